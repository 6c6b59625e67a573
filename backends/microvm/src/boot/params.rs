//! What the kernel is told at entry: Linux's boot parameters, or PVH's start info.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
};

use super::{Span, layout};

/// Memory map types, the same for E820 and PVH (ACPI 6.5, 15).
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// "xEn3" (Xen public/arch-x86/hvm/start_info.h).
const PVH_MAGIC: u32 = 0x336e_c578;
/// Version 1 has the memory map.
const PVH_VERSION: u32 = 1;

/// Values of the setup header for a kernel that brings none (Linux
/// Documentation/arch/x86/boot.rst).
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
const LOADER_UNDEFINED: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x0100_0000;
/// A `setup_data` node: the next one's address, its type and length, and what it holds (Linux
/// Documentation/arch/x86/boot.rst; arch/x86/include/uapi/asm/setup_data.h).
const SETUP_DATA_HEADER: usize = 16;
const SETUP_RNG_SEED: u32 = 9;
/// As many bytes as Linux's generator has of state.
const SEED: usize = 32;
/// `loadflags`: loaded high.
const LOADED_HIGH: u8 = 1;

/// The memory map: base memory, the tables' area reserved, and all the rest.
fn memory_map(memory: &GuestMemoryMmap) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, layout::MP_TABLE, RAM),
        (layout::MP_TABLE, layout::HIGH_MEMORY - layout::MP_TABLE, RESERVED),
    ];
    for region in memory.iter() {
        let start = region.start_addr().raw_value();
        let from = start.max(layout::HIGH_MEMORY);
        map.push((from, (start + region.len()).saturating_sub(from), RAM));
    }
    map
}

/// The low 32 bits; callers give addresses below 4 GiB.
fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}

pub(super) fn write_boot_params(
    memory: &GuestMemoryMmap,
    header: Option<setup_header>,
    initramfs: Span,
    rsdp: u64,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params {
        hdr: header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            kernel_alignment: KERNEL_ALIGNMENT,
            loadflags: LOADED_HIGH,
            ..Default::default()
        }),
        acpi_rsdp_addr: rsdp,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = low(layout::CMDLINE);
    params.hdr.setup_data = write_seed(memory)?;
    params.hdr.ramdisk_image = low(initramfs.start);
    params.hdr.ramdisk_size = low(initramfs.size);
    let map = memory_map(memory);
    for (entry, &(addr, size, type_)) in params.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr, size, type_ };
    }
    params.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    memory.write_obj(params, GuestAddress(layout::BOOT_PARAMS))
}

/// Hands randomness to the kernel, which credits it before anything asks for some, and wipes it.
/// PVH has no such thing: there it is the processor's own generator, then virtio-rng, and the seed
/// that moat's agent gets.
///
/// Gives the node's address, or 0 when the host has no randomness to give: that is no reason not
/// to boot.
fn write_seed(memory: &GuestMemoryMmap) -> Result<u64, GuestMemoryError> {
    let mut seed = [0; SEED];
    if getrandom::fill(&mut seed).is_err() {
        return Ok(0);
    }
    let length = u32::try_from(SEED).unwrap_or_default();
    let mut node = Vec::with_capacity(SETUP_DATA_HEADER + SEED);
    node.extend(0u64.to_le_bytes());
    node.extend(SETUP_RNG_SEED.to_le_bytes());
    node.extend(length.to_le_bytes());
    node.extend(seed);
    memory.write_slice(&node, GuestAddress(layout::SETUP_DATA))?;
    Ok(layout::SETUP_DATA)
}

pub(super) fn write_start_info(
    memory: &GuestMemoryMmap,
    initramfs: Span,
    rsdp: u64,
) -> Result<(), GuestMemoryError> {
    let map = memory_map(memory);
    let info = hvm_start_info {
        magic: PVH_MAGIC,
        version: PVH_VERSION,
        nr_modules: u32::from(initramfs.size > 0),
        modlist_paddr: layout::PVH_MODULES,
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: rsdp,
        memmap_paddr: layout::PVH_MEMMAP,
        memmap_entries: u32::try_from(map.len()).unwrap_or_default(),
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(layout::PVH_START_INFO))?;
    let module =
        hvm_modlist_entry { paddr: initramfs.start, size: initramfs.size, ..Default::default() };
    memory.write_obj(module, GuestAddress(layout::PVH_MODULES))?;
    let mut at = layout::PVH_MEMMAP;
    for (addr, size, type_) in map {
        let entry = hvm_memmap_table_entry { addr, size, type_, ..Default::default() };
        memory.write_obj(entry, GuestAddress(at))?;
        at += size_of::<hvm_memmap_table_entry>() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_has_all_memory_and_reserves_the_tables() {
        let memory = crate::memory::create((3 << 30) + (1 << 20)).unwrap();
        let map = memory_map(&memory);
        assert_eq!(map[0], (0, 0x9_fc00, RAM));
        assert_eq!(map[1], (0x9_fc00, 0x6_0400, RESERVED));
        assert_eq!(map[2], (0x10_0000, (3 << 30) - 0x10_0000, RAM));
        assert_eq!(map[3], (4 << 30, 1 << 20, RAM));
    }

    #[test]
    fn the_kernel_is_seeded_anew_each_time() {
        let memory = crate::memory::create(32 << 20).unwrap();
        let seed = || {
            let none = Span { start: 0, size: 0 };
            write_boot_params(&memory, None, none, 0).unwrap();
            let params: boot_params = memory.read_obj(GuestAddress(layout::BOOT_PARAMS)).unwrap();
            let mut node = [0u8; SETUP_DATA_HEADER + SEED];
            memory.read_slice(&mut node, GuestAddress(params.hdr.setup_data)).unwrap();
            assert_eq!(node[..8], [0; 8]);
            assert_eq!(node[8..16], [9, 0, 0, 0, 32, 0, 0, 0]);
            node[16..].to_vec()
        };
        assert_ne!(seed(), seed());
    }
}
