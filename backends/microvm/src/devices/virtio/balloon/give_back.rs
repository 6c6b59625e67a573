//! Gives whole pages of guest memory back to the host (madvise(2), `MADV_DONTNEED`): the guest reads
//! zeros there, or the file that is mapped there, when it next looks.
//!
//! Safety: guest memory is mapped by vm-memory for as long as its `GuestMemoryMmap` lives, and no
//! Rust reference ever points into it: it is read and written through volatile slices alone, since
//! the guest may change it at any time. That it changes by losing its pages is no different. What is
//! dropped lies inside one region's mapping, which is looked up here, and begins and ends at pages.
#![allow(unsafe_code)]

use nix::sys::mman::{MmapAdvise, madvise};
use std::ptr::NonNull;
use vm_memory::{Address, GuestMemory, GuestMemoryMmap, GuestMemoryRegion};

/// Bytes of a page, the guest's and the host's.
pub(super) const PAGE: u64 = 4096;

/// Gives back the whole pages of `length` bytes at `address` that are memory, and returns how many
/// bytes those are. What the host refuses is kept: it costs memory and nothing else.
pub(super) fn give_back(memory: &GuestMemoryMmap, address: u64, length: u64) -> u64 {
    let Some(end) = address.checked_add(length) else { return 0 };
    memory.iter().map(|region| in_region(region, address, end)).sum()
}

fn in_region(region: &vm_memory::GuestRegionMmap, address: u64, end: u64) -> u64 {
    let start = region.start_addr().raw_value();
    // A region that the address space does not hold is none of ours.
    let Some(last) = start.checked_add(region.len()) else { return 0 };
    let (from, to) = (address.max(start), end.min(last));
    let Some(from) = from.checked_next_multiple_of(PAGE) else { return 0 };
    let to = to - to % PAGE;
    let Some(length) = to.checked_sub(from).filter(|length| *length > 0) else { return 0 };
    let offset = vm_memory::MemoryRegionAddress(from - start);
    let slice = usize::try_from(length).ok().and_then(|length| {
        let slice = region.get_slice(offset, length).ok()?;
        Some((NonNull::new(slice.ptr_guard_mut().as_ptr())?, length))
    });
    let Some((pages, bytes)) = slice else { return 0 };
    // SAFETY: `get_slice` has checked that these bytes lie in the region's mapping; they are whole
    // pages, and nothing refers to them but volatile accesses (see above).
    let dropped = unsafe { madvise(pages.cast(), bytes, MmapAdvise::MADV_DONTNEED) };
    if dropped.is_ok() { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    const MIB: u64 = 1 << 20;

    /// 1 MiB at 0, a hole, 1 MiB at 2 MiB, right behind it another.
    fn memory() -> GuestMemoryMmap {
        let mib = 1 << 20;
        let at = |mib: u64| GuestAddress(mib * MIB);
        let memory =
            GuestMemoryMmap::from_ranges(&[(at(0), mib), (at(2), mib), (at(3), mib)]).unwrap();
        for mebi in [0, 2, 3] {
            memory.write_slice(&vec![7; mib], at(mebi)).unwrap();
        }
        memory
    }

    fn byte(memory: &GuestMemoryMmap, at: u64) -> u8 {
        memory.read_obj(GuestAddress(at)).unwrap()
    }

    #[test]
    fn only_whole_pages_go() {
        let memory = memory();
        assert_eq!(give_back(&memory, 1, PAGE - 1), 0);
        assert_eq!(give_back(&memory, 1, 2 * PAGE - 2), 0);
        assert_eq!(give_back(&memory, 1, 2 * PAGE - 1), PAGE);
        let kept = [0, PAGE - 1, 2 * PAGE].map(|at| byte(&memory, at));
        assert_eq!((kept, byte(&memory, PAGE)), ([7; 3], 0));
    }

    #[test]
    fn a_range_may_cross_regions_and_holes_and_what_is_no_memory_is_left_alone() {
        let memory = memory();
        assert_eq!(give_back(&memory, MIB - PAGE, 2 * MIB + 2 * PAGE), PAGE + MIB + PAGE);
        let gone = [MIB - PAGE, 2 * MIB, 3 * MIB].map(|at| byte(&memory, at));
        assert_eq!((gone, byte(&memory, 3 * MIB + PAGE)), ([0; 3], 7));
        for (address, length) in
            [(MIB, MIB), (4 * MIB, u64::MAX - 4 * MIB), (u64::MAX, 1), (u64::MAX, 2), (0, 0)]
        {
            assert_eq!(give_back(&memory, address, length), 0, "{address:#x}+{length:#x}");
        }
        assert_eq!(give_back(&memory, 0, u64::MAX), 3 * MIB);
    }
}
