//! Numbers and layouts of the block device (virtio 1.2, section 5.2).

/// A sector, in bytes, whatever the disk's own blocks are (5.2.4).
pub(super) const SECTOR: u64 = 512;

/// Feature bits (5.2.3).
pub(super) mod feature {
    pub(in super::super) const SIZE_MAX: u64 = 1 << 1;
    pub(in super::super) const SEG_MAX: u64 = 1 << 2;
    pub(in super::super) const READ_ONLY: u64 = 1 << 5;
    pub(in super::super) const BLK_SIZE: u64 = 1 << 6;
    pub(in super::super) const FLUSH: u64 = 1 << 9;
    pub(in super::super) const TOPOLOGY: u64 = 1 << 10;
    pub(in super::super) const DISCARD: u64 = 1 << 13;
    pub(in super::super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (5.2.6).
pub(super) mod kind {
    pub(in super::super) const IN: u32 = 0;
    pub(in super::super) const OUT: u32 = 1;
    pub(in super::super) const FLUSH: u32 = 4;
    pub(in super::super) const GET_ID: u32 = 8;
    pub(in super::super) const DISCARD: u32 = 11;
    pub(in super::super) const WRITE_ZEROES: u32 = 13;
}

/// How a request ended (5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    Failed = 1,
    Unsupported = 2,
}

/// Bytes of a request's header: type, reserved, sector (5.2.6).
pub(super) const HEADER: usize = 16;
/// Bytes of one range to discard or zero: sector, sectors, flags (5.2.6).
pub(super) const RANGE: usize = 16;
/// Bytes of a disk's name (5.2.6).
pub(super) const ID: usize = 20;
/// Flag of a range: its blocks may be given back (5.2.6).
pub(super) const UNMAP: u32 = 1;

/// Chains in the queue.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Pieces of data in a request, beside header and status.
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of one piece.
const SEGMENT_SIZE: u32 = 256 << 10;
/// The most data of one request, in bytes: what all pieces may have, rounded up.
pub(super) const MAX_DATA: usize = 64 << 20;
/// Ranges in one request to discard, and sectors in each: 2 GiB, which is a matter of extents.
pub(super) const DISCARD_RANGES: u32 = 16;
pub(super) const DISCARD_SECTORS: u32 = 1 << 22;
/// Ranges in one request to zero, and sectors in each: 32 MiB, since zeroes may have to be written.
pub(super) const ZERO_RANGES: u32 = 1;
pub(super) const ZERO_SECTORS: u32 = 1 << 16;

/// A block as the guest sees it, in bytes: a sector.
const BLOCK: u32 = 512;
/// Blocks that the host handles at once, as a power of two of sectors: 4 KiB, its pages.
const PHYSICAL_EXPONENT: u8 = 3;

/// Bytes of the configuration space, to the last field that has a meaning for us.
pub(super) const CONFIG: usize = 60;

/// The configuration space of a disk of `sectors` (5.2.4).
pub(super) fn config(sectors: u64) -> [u8; CONFIG] {
    let mut config = [0; CONFIG];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in config.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &sectors.to_le_bytes());
    put(8, &SEGMENT_SIZE.to_le_bytes());
    put(12, &SEGMENTS.to_le_bytes());
    put(20, &BLOCK.to_le_bytes());
    put(24, &[PHYSICAL_EXPONENT, 0]);
    // The least and the best request: a page, and no preference. In blocks of 512.
    put(26, &(1u16 << PHYSICAL_EXPONENT).to_le_bytes());
    put(28, &0u32.to_le_bytes());
    put(36, &DISCARD_SECTORS.to_le_bytes());
    put(40, &DISCARD_RANGES.to_le_bytes());
    // What is discarded best begins at a whole page.
    put(44, &(1u32 << PHYSICAL_EXPONENT).to_le_bytes());
    put(48, &ZERO_SECTORS.to_le_bytes());
    put(52, &ZERO_RANGES.to_le_bytes());
    // Zeroing may give blocks back.
    put(56, &[1]);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets counted by hand from `struct virtio_blk_config`.
    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let config = config(0x1122_3344_5566_7788);
        assert_eq!(config[..8], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(config[12..16], 254u32.to_le_bytes());
        assert_eq!(config[16..20], [0; 4], "no geometry");
        assert_eq!(config[20..24], 512u32.to_le_bytes());
        assert_eq!(config[24..32], [3, 0, 8, 0, 0, 0, 0, 0]);
        assert_eq!(config[32..36], [0; 4], "no switch of the cache, one queue");
        assert_eq!(config[36..40], (1u32 << 22).to_le_bytes());
        assert_eq!(config[48..52], (1u32 << 16).to_le_bytes());
        assert_eq!(config[56..60], [1, 0, 0, 0]);
    }
}
