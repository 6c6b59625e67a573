//! Page tables and segment descriptors for a vCPU that begins in 64-bit mode.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout;

/// Who may use the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Rings 0 to 2.
    Kernel,
    /// All rings.
    User,
}

/// Page table entry bits (Intel SDM volume 3A, 4.5).
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const PAGE: u64 = 4096;
const ENTRIES: u64 = 512;
const LARGE_PAGE: u64 = 2 << 20;
/// GiB mapped: all that lies below 4 GiB.
const DIRECTORIES: u64 = 4;

/// Null, null, 64-bit code at 0x10, data at 0x18 (Linux's __BOOT_CS and __BOOT_DS).
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// The descriptor table's limit: its size less one.
pub(crate) const GDT_LIMIT: u16 = 31;

/// Maps the first 4 GiB to themselves, and returns the address for CR3.
pub(crate) fn write_tables(
    memory: &GuestMemoryMmap,
    access: Access,
) -> Result<u64, GuestMemoryError> {
    let flags = PRESENT | WRITABLE | if access == Access::User { USER } else { 0 };
    let pml4 = layout::PAGE_TABLES;
    let pdpt = pml4 + PAGE;
    memory.write_obj(pdpt | flags, GuestAddress(pml4))?;
    for directory in 0..DIRECTORIES {
        let table = pdpt + PAGE * (directory + 1);
        memory.write_obj(table | flags, GuestAddress(pdpt + directory * 8))?;
        let first = directory * ENTRIES;
        let page: Vec<u8> = (first..first + ENTRIES)
            .flat_map(|entry| ((entry * LARGE_PAGE) | flags | LARGE).to_le_bytes())
            .collect();
        memory.write_slice(&page, GuestAddress(table))?;
    }
    let gdt: Vec<u8> = DESCRIPTORS.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    memory.write_slice(&gdt, GuestAddress(layout::GDT))?;
    Ok(pml4)
}
