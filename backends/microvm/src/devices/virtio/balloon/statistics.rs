//! What a guest says of its memory (virtio 1.2, 5.5.6.3): pairs of a tag and a value, packed.

use std::io::Read;

/// Bytes of one pair: 16 bits of tag, 64 of value.
const PAIR: usize = 10;
/// Pairs looked at; 10 are known.
const MAX_PAIRS: usize = 32;

/// A guest's memory, in bytes, in its own words: it may lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Not used for anything.
    pub free: Option<u64>,
    /// All that the guest has.
    pub total: Option<u64>,
    /// What could be used without swapping.
    pub available: Option<u64>,
    /// Page cache that could be dropped.
    pub caches: Option<u64>,
    /// Page faults that waited for a disk, counted since the guest's boot.
    pub major_faults: Option<u64>,
}

impl Statistics {
    /// Reads what a driver sent; tags that are not known are passed over.
    pub(super) fn read(mut from: impl Read) -> Self {
        let mut statistics = Self::default();
        for _ in 0..MAX_PAIRS {
            let mut pair = [0; PAIR];
            if from.read_exact(&mut pair).is_err() {
                break;
            }
            let Some((tag, value)) = pair.split_first_chunk() else { break };
            let value = <[u8; 8]>::try_from(value).ok().map(u64::from_le_bytes);
            // VIRTIO_BALLOON_S_*
            match u16::from_le_bytes(*tag) {
                2 => statistics.major_faults = value,
                4 => statistics.free = value,
                5 => statistics.total = value,
                6 => statistics.available = value,
                7 => statistics.caches = value,
                _ => {}
            }
        }
        statistics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_tags_are_taken_and_half_a_pair_is_none() {
        let pair =
            |tag: u16, value: u64| [tag.to_le_bytes().as_slice(), &value.to_le_bytes()].concat();
        let mut sent = [pair(4, 10), pair(900, 1), pair(5, 20), pair(4, 11)].concat();
        sent.extend(&pair(7, 30)[..9]);
        let expected = Statistics { free: Some(11), total: Some(20), ..Statistics::default() };
        assert_eq!(Statistics::read(sent.as_slice()), expected);
        assert_eq!(Statistics::read([0xff; 4000].as_slice()), Statistics::default());
    }
}
