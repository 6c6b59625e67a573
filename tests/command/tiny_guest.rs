//! Guests of a few instructions, as kernels that `moat microvm boot` takes. Even a KVM that can't
//! run Linux runs them.

/// Where a guest's code is loaded, and begins.
const CODE: u64 = 0x10_0000;

/// Writes 0x34 to port 0x600: ACPI's soft off. For 32-bit and 64-bit mode.
pub(crate) const POWER_OFF: &[u8] = &[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee];
/// Writes 0xfe to port 0x64: the keyboard controller's reset.
pub(crate) const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64];
/// ud2, without an interrupt table.
pub(crate) const TRIPLE_FAULT: &[u8] = &[0x0f, 0x0b];
/// cli; hlt
pub(crate) const HALT: &[u8] = &[0xfa, 0xf4];
/// jmp to itself
pub(crate) const LOOP: &[u8] = &[0xeb, 0xfe];

/// Writes this to COM1. For 32-bit and 64-bit mode.
pub(crate) fn say(text: &str) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code
}

/// Sends back what is typed, up to `q`, and then switches off.
pub(crate) fn echo() -> Vec<u8> {
    let mut code = vec![
        0x66, 0xba, 0xfd, 0x03, // wait: mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xf7, // jz wait
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, // in al, dx
        0xee, // out dx, al
        0x3c, b'q', // cmp al, 'q'
        0x75, 0xed, // jne wait
    ];
    code.extend(POWER_OFF);
    code
}

/// Starts all other vCPUs by INIT and SIPI, waits until `others` have counted themselves, and
/// goes on.
pub(crate) fn start_others(others: u8) -> Vec<u8> {
    // What the others run, in real mode at 0x1000:0.
    const OTHERS: [u8; 14] = [
        0xb8, 0x00, 0x30, // mov ax, 0x3000
        0x8e, 0xd8, // mov ds, ax
        0xf0, 0xff, 0x06, 0x00, 0x00, // lock inc word [0]
        0xfa, 0xf4, 0xeb, 0xfd, // cli; hlt; jmp to hlt
    ];
    let mut code = Vec::new();
    for (offset, byte) in (0u8..).zip(OTHERS) {
        // mov byte [0x10000 + offset], byte
        code.extend([0xc6, 0x04, 0x25, offset, 0x00, 0x01, 0x00, byte]);
    }
    code.extend([
        0xbb, 0x00, 0x00, 0xe0, 0xfe, // mov ebx, 0xfee00000: the local APIC
        0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00, // [spurious] = on, 0xff
        0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x00, 0x45, 0x0c,
        0x00, // [command] = INIT to others
        0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x10, 0x46, 0x0c, 0x00, // [command] = SIPI 0x10
        0x66, 0x83, 0x3c, 0x25, 0x00, 0x00, 0x03, 0x00, others, // cmp word [0x30000], others
        0x75, 0xf5, // jne back
    ]);
    code
}

/// Maps what lies at 4 GiB, stores a letter there and one a page before the end of the first GiB
/// of it, and writes both, read again, to COM1. The page tables are those that moat leaves.
pub(crate) const HIGH_MEMORY: &[u8] = &[
    0xc7, 0x04, 0x25, 0x00, 0xf0, 0x00, 0x00, 0x83, 0x00, 0x00,
    0x00, // [0xf000] = 4 GiB | 0x83
    0xc7, 0x04, 0x25, 0x04, 0xf0, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, //
    0xc7, 0x04, 0x25, 0xf8, 0xff, 0x00, 0x00, 0x83, 0x00, 0xe0,
    0x3f, // the last 2 MiB of the GiB
    0xc7, 0x04, 0x25, 0xfc, 0xff, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, //
    0xc7, 0x04, 0x25, 0x20, 0xa0, 0x00, 0x00, 0x03, 0xf0, 0x00,
    0x00, // [0xa000 + 4 * 8] = 0xf003
    0xc7, 0x04, 0x25, 0x24, 0xa0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
    0x48, 0xbb, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // mov rbx, 4 GiB
    0x48, 0xb9, 0x00, 0xf0, 0xff, 0x3f, 0x01, 0x00, 0x00, 0x00, // mov rcx, 5 GiB - 4096
    0xc6, 0x03, b'h', // mov byte [rbx], 'h'
    0xc6, 0x01, b'i', // mov byte [rcx], 'i'
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0x8a, 0x03, 0xee, // mov al, [rbx]; out dx, al
    0x8a, 0x01, 0xee, // mov al, [rcx]; out dx, al
];

/// A section of notes with one: the PVH entry (Xen's public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY).
fn pvh_note() -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4u32, 8, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(CODE.to_le_bytes());
    note
}

/// An ELF kernel: this code alone, begun in 64-bit mode, or by PVH in 32-bit mode.
pub(crate) fn elf(code: &[u8], pvh: bool) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or_default();
    let note = if pvh { pvh_note() } else { Vec::new() };
    let (size, note_size) = (length(code), length(&note));
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend(2u16.to_le_bytes()); // ET_EXEC
    elf.extend(62u16.to_le_bytes()); // EM_X86_64
    elf.extend(1u32.to_le_bytes());
    for field in [CODE, 64, 0] {
        elf.extend(field.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend(0u32.to_le_bytes());
    for field in [64u16, 56, 2, 64, 0, 0] {
        elf.extend(field.to_le_bytes());
    }
    // PT_LOAD, and PT_NOTE or PT_NULL.
    let segments = [
        (1u32, HEADERS + note_size, CODE, size, 4096),
        (if pvh { 4 } else { 0 }, HEADERS, 0, note_size, 4),
    ];
    for (kind, offset, address, size, align) in segments {
        elf.extend(kind.to_le_bytes());
        elf.extend(7u32.to_le_bytes());
        for field in [offset, address, address, size, size, align] {
            elf.extend(field.to_le_bytes());
        }
    }
    elf.extend(note);
    elf.extend(code);
    elf
}

/// A bzImage of protocol 2.15 whose 64-bit entry is this code (Linux
/// Documentation/arch/x86/boot.rst).
pub(crate) fn bzimage(code: &[u8]) -> Vec<u8> {
    const SETUP: usize = 1024;
    const ENTRY: usize = 0x200;
    let mut image = vec![0; SETUP + ENTRY];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup sectors, besides the first
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x211, &[1]); // loaded high
    put(0x214, &0x10_0000u32.to_le_bytes()); // code32_start
    put(0x22c, &0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
    put(0x230, &0x20_0000u32.to_le_bytes()); // alignment
    put(0x234, &[1]); // relocatable
    put(0x236, &1u16.to_le_bytes()); // a 64-bit entry
    put(0x238, &2047u32.to_le_bytes()); // cmdline_size
    put(0x258, &CODE.to_le_bytes()); // preferred address
    put(0x260, &0x10_0000u32.to_le_bytes()); // init_size
    image.extend(code);
    // Whole paragraphs, as `syssize` counts them.
    image.resize(image.len().next_multiple_of(16), 0x90);
    let paragraphs = u32::try_from((image.len() - SETUP) / 16).unwrap_or_default();
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image
}
