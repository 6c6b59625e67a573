//! Bytes of this program's own file that were needed once.
//!
//! Safety argument for the whole file: madvise(2) with `MADV_DONTNEED` drops pages of this process;
//! those of a private mapping of a file come back from the file when they are touched again. So it
//! is asked for only inside the pieces of this program that nobody ever writes, which lie between
//! the linker's symbols `__executable_start` and `etext` (end(3)): whole pages of them are the
//! file's own, as it was mapped.
#![allow(unsafe_code)]

use std::ptr::addr_of;

const PAGE: usize = 4096;

unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// Lets the host have back the pages of `bytes` that nothing else is on, if they are the program's
/// own: a VMM lives for hours after it has put the guest's first program into its memory.
pub(super) fn forget(bytes: &'static [u8]) {
    // Nothing but their addresses is taken.
    let program = addr_of!(__executable_start).addr()..addr_of!(etext).addr();
    let start = bytes.as_ptr().addr().next_multiple_of(PAGE);
    let end = bytes.as_ptr_range().end.addr() / PAGE * PAGE;
    if program.start <= start && start < end && end <= program.end {
        let first = bytes.as_ptr().with_addr(start);
        // SAFETY: whole pages of the program's own file that nobody writes (head comment).
        unsafe { libc::madvise(first.cast_mut().cast(), end - start, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than two pages of this test's own file.
    static OWN: [u8; 4 * PAGE] = [0xa5; 4 * PAGE];

    #[test]
    fn what_is_forgotten_comes_back_as_it_was() {
        forget(&OWN);
        assert!(OWN.iter().all(|byte| *byte == 0xa5));
    }

    #[test]
    fn what_is_not_the_programs_stays() {
        let bytes: &'static [u8] = Box::leak(vec![7; 4 * PAGE].into_boxed_slice());
        forget(bytes);
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
