//! The C library's allocator, kept from what no filter allows.
//!
//! Unsafe because mallopt(3) is the C library's: it takes two numbers, and changes settings of the
//! allocator's own, under its own lock.
#![allow(unsafe_code)]

/// Makes all threads share one heap. With one for each, a heap that shrinks makes glibc look into
/// `/proc/sys/vm/overcommit_memory` (malloc/arena.c, `shrink_heap`), and each takes memory. To be
/// called before there are threads; those that are there keep theirs.
pub(crate) fn one_heap() {
    // SAFETY: see the head of this file. It fails only for numbers that it does not know.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
