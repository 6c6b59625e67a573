//! The guest's physical memory: below the device hole and, if there is more, above 4 GiB.

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestMemoryRegion};

use crate::boot::layout::{HIGH_RAM, HOLE, HOLE_SIZE};

/// The least memory that a machine may have, in bytes: 32 MiB.
pub const MIN_MEMORY: u64 = 32 << 20;
/// The most, in bytes: 1 TiB, far below any processor's physical address width with nested paging.
pub const MAX_MEMORY: u64 = 1 << 40;
const PAGE: u64 = 4096;

/// Why the guest's memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Outside the limits, or not whole pages.
    #[error(
        "a machine can't have {bytes} bytes of memory: it takes whole pages of 4 KiB, \
         from {MIN_MEMORY} to {MAX_MEMORY} bytes"
    )]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// The host gave no address space.
    #[error("can't reserve {bytes} bytes of guest memory")]
    Map {
        /// What was asked for.
        bytes: u64,
        /// The kernel's answer.
        source: vm_memory::mmap::FromRangesError,
    },
}

/// Where `bytes` of memory lie: (guest physical address, length).
#[must_use]
pub fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(HOLE);
    let mut ranges = vec![(0, low)];
    if bytes > low {
        ranges.push((HIGH_RAM, bytes - low));
    }
    ranges
}

/// Reserves `bytes` of guest memory. The host's pages come only when they are first touched.
///
/// # Errors
/// When the size is out of bounds or the host has no room for it.
pub fn create(bytes: u64) -> Result<GuestMemoryMmap, Error> {
    debug_assert_eq!(HOLE + HOLE_SIZE, HIGH_RAM);
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&bytes) || !bytes.is_multiple_of(PAGE) {
        return Err(Error::Size { bytes });
    }
    map(&ranges(bytes), bytes)
}

/// `create` for the tiny guests of probes and tests: one range from 0, without a lower bound.
pub(crate) fn create_small(bytes: u64) -> Result<GuestMemoryMmap, Error> {
    map(&[(0, bytes)], bytes)
}

fn map(ranges: &[(u64, u64)], bytes: u64) -> Result<GuestMemoryMmap, Error> {
    let mut of_usize = Vec::with_capacity(ranges.len());
    for &(start, length) in ranges {
        let length = usize::try_from(length).map_err(|_| Error::Size { bytes })?;
        of_usize.push((GuestAddress(start), length));
    }
    GuestMemoryMmap::from_ranges(&of_usize).map_err(|source| Error::Map { bytes, source })
}

/// The end of the memory below the device hole.
pub(crate) fn low_end(memory: &GuestMemoryMmap) -> u64 {
    use vm_memory::{Address, GuestMemory};
    let first = memory.iter().next();
    first.map_or(0, |region| region.start_addr().raw_value().saturating_add(region.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_above_the_hole_goes_to_4_gib_and_none_is_lost() {
        let gib = 1 << 30;
        assert_eq!(ranges(gib), [(0, gib)]);
        assert_eq!(ranges(3 * gib), [(0, 3 * gib)]);
        assert_eq!(ranges(5 * gib), [(0, 3 * gib), (4 * gib, 2 * gib)]);
    }

    #[test]
    fn sizes_out_of_bounds_or_not_whole_pages_are_refused() {
        for bytes in [0, MIN_MEMORY - PAGE, MIN_MEMORY + 1, MAX_MEMORY + PAGE, u64::MAX] {
            assert!(matches!(create(bytes), Err(Error::Size { .. })), "{bytes}");
        }
        assert_eq!(low_end(&create(MIN_MEMORY).unwrap()), MIN_MEMORY);
    }
}
