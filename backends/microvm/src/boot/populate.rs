//! Brings pages of guest memory in before the guest asks for them.
//!
//! A page that is not there when the guest touches it costs an exit, a page fault and, where a
//! file's page is read first and written later, two of each and a copy. Those that a kernel surely
//! writes on its way to its first process are brought in together instead, while KVM makes the
//! machine, which is a wait on most hosts (docs/performance.md).
//!
//! All of it is a hint: a host that can't (before Linux 5.14), or an address that is not in memory,
//! changes nothing but time.
//!
//! Safety argument for the whole file: the only unsafe call is madvise(2) with
//! `MADV_POPULATE_WRITE` on a checked slice of guest memory. It changes no contents, only which
//! pages are there.
#![allow(unsafe_code)]

use std::ops::Range;

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap};

use crate::memory::low_end;

const PAGE: u64 = 4096;

/// Linux has 64 bytes of books for each page (`struct page`), in pieces for so many bytes of memory
/// (`SECTION_SIZE_BITS`, Linux arch/x86/include/asm/sparsemem.h), and writes all of them before its
/// first process.
const SECTION: u64 = 128 << 20;
const SECTION_BOOKS: u64 = SECTION / PAGE * 64;
/// They lie at a multiple of this.
const LARGE_PAGE: u64 = 2 << 20;
/// What it takes below the initramfs before them: page tables.
const EARLY: u64 = 64 << 10;

/// Brings in the pages of `range`, guest physical addresses, as if they were written to.
pub(super) fn populate(memory: &GuestMemoryMmap, range: Range<u64>) {
    let start = range.start - range.start % PAGE;
    let Some(length) =
        range.end.checked_next_multiple_of(PAGE).and_then(|end| end.checked_sub(start))
    else {
        return;
    };
    let Ok(length) = usize::try_from(length) else { return };
    let Ok(slice) = memory.get_slice(GuestAddress(start), length) else { return };
    let guard = slice.ptr_guard_mut();
    // SAFETY: the range lies in one live mapping of guest memory, and keeps its contents (head).
    let _ = unsafe { libc::madvise(guard.as_ptr().cast(), length, libc::MADV_POPULATE_WRITE) };
}

/// Where a kernel that takes memory from its end downwards, as Linux does, has its books of pages,
/// once `top` is the lowest address that is taken there.
pub(super) fn page_books(memory: &GuestMemoryMmap, top: u64) -> Range<u64> {
    let end = top.saturating_sub(EARLY);
    let end = end - end % LARGE_PAGE;
    end.saturating_sub(low_end(memory).div_ceil(SECTION) * SECTION_BOOKS)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_books_lie_below_the_initramfs_and_grow_with_memory() {
        let books = |bytes, top| page_books(&crate::memory::create(bytes).unwrap(), top);
        // Seen in guests of moat's own kernel.
        assert_eq!(books(256 << 20, 0x0fff_f000), 0x0fa0_0000..0x0fe0_0000);
        assert_eq!(books(252 << 20, 0x0fa8_3000), 0x0f60_0000..0x0fa0_0000);
        assert_eq!(books(32 << 20, 1 << 20), 0..0);
    }

    #[test]
    fn what_is_not_memory_is_left_alone() {
        let memory = crate::memory::create(32 << 20).unwrap();
        populate(&memory, 0..4096);
        populate(&memory, u64::MAX - 1..u64::MAX);
        populate(&memory, (32 << 20)..(33 << 20));
    }
}
