//! Hand-written guests in a whole machine on this machine's own KVM: they touch everything that it
//! has, and the machine ends as it says it does. They need no more of KVM than port I/O, MMIO and
//! 64-bit mode, which even a KVM that can't run Linux does right.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::boot::{Discovery, KernelFormat};
use crate::devices::serial::Ends;
use crate::devices::virtio::vsock::Vsock;
use crate::fuzzing::fs::Surroundings;
use crate::machine::{self, MachineConfig, Outcome};

/// How long a guest may take, where its instructions are emulated and others run beside it.
const LIMIT: Duration = Duration::from_secs(120);
/// Where the code is loaded and entered.
const CODE: u64 = 0x20_0000;
/// `mov al, 0xfe; out 0x64, al`: the end that a guest asks for, then a halt.
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];

/// An ELF image that is entered at its first byte in 64-bit mode.
fn elf(code: &[u8]) -> File {
    let length = u64::try_from(code.len()).unwrap();
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2u16, 62].iter().flat_map(|field| field.to_le_bytes()));
    image.extend(1u32.to_le_bytes());
    image.extend([CODE, 64, 0].iter().flat_map(|field| field.to_le_bytes()));
    image.extend(0u32.to_le_bytes());
    image.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|field| field.to_le_bytes()));
    image.extend([1u32, 5].iter().flat_map(|field| field.to_le_bytes()));
    let segment = [120, CODE, CODE, length, length, 0x1000];
    image.extend(segment.iter().flat_map(|field| field.to_le_bytes()));
    image.extend(code);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file
}

/// Runs `code` in a machine with a share, a socket and a serial port; `None` without KVM. The
/// machine is stopped at the limit, and the share's surroundings are looked at afterwards.
fn run(code: &[u8], limit: Duration) -> Option<Outcome> {
    let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("skipped: /dev/kvm: {error}");
            return None;
        }
    };
    let around = Surroundings::new();
    let (_host, agent) = UnixStream::pair().unwrap();
    let stop = EventFd::new(EFD_NONBLOCK).unwrap();
    let config = MachineConfig {
        kernel: elf(code),
        kernel_format: KernelFormat::Elf,
        initramfs: Vec::new(),
        cmdline: String::new(),
        discovery: Discovery::Cmdline,
        vcpus: 1,
        memory: 32 << 20,
        devices: vec![Box::new(around.device()), Box::new(Vsock::new(agent.into()).unwrap())],
        serial: Some(Ends { output: Box::new(std::io::sink()), input: None }),
        stop: stop.try_clone().unwrap(),
        confine: crate::jail::leave_free,
    };
    let (ended, end) = std::sync::mpsc::channel();
    let machine = thread::spawn(move || {
        let outcome = machine::run(kvm.into(), config);
        let _ = ended.send(());
        outcome
    });
    if end.recv_timeout(limit).is_err() {
        stop.write(1).unwrap();
        end.recv_timeout(LIMIT).expect("a machine that is stopped ends");
    }
    Some(machine.join().unwrap().unwrap())
}

/// `code`, then the reset that says that the guest came so far.
fn survives(code: &[u8]) {
    if let Some(outcome) = run(&[code, RESET].concat(), LIMIT) {
        assert_eq!(outcome, Outcome::Reset);
    }
}

/// For each port in `ports`: read and write 0 by 1, 2 and 4 bytes.
fn ports(ports: std::ops::Range<u16>) -> Vec<u8> {
    let [low, high] = ports.start.to_le_bytes();
    let [end_low, end_high] = ports.end.to_le_bytes();
    let mut code = vec![0x66, 0xba, low, high]; // mov dx, start
    let body = [
        0xec, // in al, dx
        0x66, 0xed, // in ax, dx
        0xed, // in eax, dx
        0x31, 0xc0, // xor eax, eax
        0xee, // out dx, al
        0x66, 0xef, // out dx, ax
        0xef, // out dx, eax
        0x66, 0xff, 0xc2, // inc dx
        0x66, 0x81, 0xfa, end_low, end_high, // cmp dx, end
    ];
    code.extend(body);
    code.extend([0x75, 0u8.wrapping_sub(u8::try_from(body.len()).unwrap() + 2)]); // jne body
    code
}

#[test]
fn every_port_of_the_machine_by_every_width() {
    for range in [0x60..0x66, 0x3f0..0x402, 0x5fc..0x606, 0xcf8..0xd00, 0xfff0..0xffff] {
        survives(&ports(range));
    }
}

/// For each address from `start` on, `count` of them: read by 1, 2, 4 and 8 bytes, and write
/// `value` back by each.
fn addresses(start: u32, count: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0xbb]; // mov ebx, start
    code.extend(start.to_le_bytes());
    code.push(0xb9); // mov ecx, count
    code.extend(count.to_le_bytes());
    let mut body = vec![
        0x8a, 0x03, // mov al, [rbx]
        0x66, 0x8b, 0x03, // mov ax, [rbx]
        0x8b, 0x03, // mov eax, [rbx]
        0x48, 0x8b, 0x03, // mov rax, [rbx]
        0xb8, // mov eax, value
    ];
    body.extend(value.to_le_bytes());
    body.extend([
        0x88, 0x03, // mov [rbx], al
        0x66, 0x89, 0x03, // mov [rbx], ax
        0x89, 0x03, // mov [rbx], eax
        0x48, 0x89, 0x03, // mov [rbx], rax
        0xff, 0xc3, // inc ebx
        0xff, 0xc9, // dec ecx
    ]);
    code.extend(&body);
    code.extend([0x75, 0u8.wrapping_sub(u8::try_from(body.len()).unwrap() + 2)]); // jnz body
    code
}

#[test]
fn every_register_by_every_width_and_across_pages() {
    for value in [0, 0x0f0f_0f0f, u32::MAX] {
        // Registers, configuration space and the end of both devices' pages, and what follows.
        for (start, count) in [
            (0xd000_0000, 0x130),
            (0xd000_0ff8, 0x140),
            (0xd000_1ff8, 16),
            (0xcfff_fff8, 16),
            (0xc000_0000, 8),
        ] {
            survives(&addresses(start, count, value));
        }
    }
}

/// Long strings: 64 KiB in one instruction to and from each of the machine's ports.
#[test]
fn strings_to_and_from_ports() {
    let mut code = Vec::new();
    for [low, high] in [[0xf8u8, 0x03u8], [0x60, 0], [0x00, 0x06], [0x34, 0x12]] {
        code.extend([0x66, 0xba, low, high]); // mov dx, port
        // Past the code, where all is zero: neither a reset nor a power-off is in it.
        code.extend([0xbe, 0, 0, 0x40, 0, 0xbf, 0, 0, 0x50, 0]); // mov esi, 0x400000; mov edi, 0x500000
        code.extend([0xb9, 0, 0x10, 0, 0, 0xf3, 0x6e]); // mov ecx, 0x1000; rep outsb
        code.extend([0xb9, 0, 0x10, 0, 0, 0xf3, 0x6c]); // mov ecx, 0x1000; rep insb
    }
    survives(&code);
}

#[test]
fn a_guest_that_kicks_every_queue_for_ever_is_stopped() {
    // mov ebx, 0xd0000050; xor eax, eax; loop: mov [rbx], eax; mov [rbx+0x1000], eax; inc eax;
    // and eax, 7; jmp loop
    let code = [
        0xbb, 0x50, 0x00, 0x00, 0xd0, 0x31, 0xc0, 0x89, 0x03, 0x89, 0x83, 0x00, 0x10, 0x00, 0x00,
        0xff, 0xc0, 0x83, 0xe0, 0x07, 0xeb, 0xf1,
    ];
    if let Some(outcome) = run(&code, Duration::from_millis(500)) {
        assert_eq!(outcome, Outcome::Stopped);
    }
}

#[test]
fn a_guest_that_starts_and_resets_a_device_for_ever_is_stopped() {
    // mov ebx, 0xd0000070; loop: status 0, 1, 3, 11, 15; jmp loop
    let mut code = vec![0xbb, 0x70, 0x00, 0x00, 0xd0];
    for status in [0u8, 1, 3, 11, 15] {
        code.extend([0xb8, status, 0, 0, 0, 0x89, 0x03]); // mov eax, status; mov [rbx], eax
    }
    let back = u8::try_from(code.len() - 5 + 2).unwrap();
    code.extend([0xeb, 0u8.wrapping_sub(back)]);
    if let Some(outcome) = run(&code, Duration::from_millis(500)) {
        assert_eq!(outcome, Outcome::Stopped);
    }
}

#[test]
fn guests_that_break_themselves_end_the_machine_with_a_reason() {
    for (name, code) in [
        ("an undefined instruction", &[0x0f, 0x0b][..]),
        // lidt of nothing, then an interrupt
        ("no interrupt table", &[0x0f, 0x01, 0x1c, 0x25, 0, 0, 0x40, 0, 0xcd, 0x80]),
        // mov rax, 0x700000; mov cr3, rax: page tables of zeros
        ("no page tables", &[0xb8, 0, 0, 0x70, 0, 0x0f, 0x22, 0xd8, 0xff, 0xe0]),
    ] {
        match run(code, LIMIT) {
            None => return,
            Some(Outcome::Crashed { reason }) => assert!(!reason.is_empty(), "{name}"),
            Some(other) => panic!("{name}: {other:?}"),
        }
    }
}
