//! Guest memory with a pattern before, between and behind its pieces, which nobody may touch.
//!
//! `unsafe`: guest memory is laid into a mapping that this module makes, and keeps until after the
//! last use of that memory; the patterns are read when no device runs.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::fuzzing::driver::{HIGH, HIGH_SIZE, LOW};

const GUARD: usize = 1 << 20;
const PATTERN: u8 = 0xa5;

/// The mapping: guard, low memory, guard, high memory, guard.
#[derive(Debug)]
pub(super) struct Guarded {
    base: *mut u8,
    memory: Arc<GuestMemoryMmap>,
}

// SAFETY: the pointer is only read, by `check`, and the mapping lives as long as this does.
unsafe impl Send for Guarded {}

const fn low() -> usize {
    1 << 20
}

const SIZE: usize = GUARD + low() + GUARD + HIGH_SIZE + GUARD;

impl Guarded {
    pub(super) fn new() -> Self {
        assert_eq!(u64::try_from(low()).unwrap(), LOW);
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping wherever the kernel likes.
        let base = unsafe { libc::mmap(ptr::null_mut(), SIZE, prot, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let base = base.cast::<u8>();
        let region = |offset: usize, size: usize, at: u64| {
            // SAFETY: inside the mapping, which outlives the region: `Drop` waits for its end.
            let region = unsafe { MmapRegion::build_raw(base.add(offset), size, prot, flags) };
            GuestRegionMmap::new(region.unwrap(), GuestAddress(at)).unwrap()
        };
        // SAFETY: the whole mapping is ours, and nothing else knows it yet.
        unsafe { ptr::write_bytes(base, PATTERN, SIZE) };
        let second = GUARD + low() + GUARD;
        for (offset, size) in [(GUARD, low()), (second, HIGH_SIZE)] {
            // SAFETY: inside the mapping. Guest memory begins as zeros.
            unsafe { ptr::write_bytes(base.add(offset), 0, size) };
        }
        let regions = vec![region(GUARD, low(), 0), region(second, HIGH_SIZE, HIGH)];
        Self { base, memory: Arc::new(GuestMemoryMmap::from_regions(regions).unwrap()) }
    }

    pub(super) fn memory(&self) -> Arc<GuestMemoryMmap> {
        Arc::clone(&self.memory)
    }

    /// No guard has changed. To be called when no device runs.
    pub(super) fn check(&self) {
        for (offset, size) in
            [(0, GUARD), (GUARD + low(), GUARD), (GUARD + low() + GUARD + HIGH_SIZE, GUARD)]
        {
            // SAFETY: inside the mapping, to which nobody writes now.
            let guard = unsafe { std::slice::from_raw_parts(self.base.add(offset), size) };
            let broken = guard.iter().position(|byte| *byte != PATTERN);
            assert_eq!(broken, None, "a byte outside guest memory was written");
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Somebody may still use the memory when a test has failed: then it is left alone.
        if Arc::strong_count(&self.memory) == 1 {
            // SAFETY: the mapping of `new`, to which nothing points any more but `memory`, which
            // does not unmap it and is not used again.
            unsafe { libc::munmap(self.base.cast(), SIZE) };
        }
    }
}

#[test]
#[should_panic(expected = "outside guest memory")]
fn the_guards_notice() {
    let guarded = Guarded::new();
    // SAFETY: inside the mapping, in a guard.
    unsafe { *guarded.base.add(GUARD - 1) = 0 };
    guarded.check();
}
