//! Numbers and layouts of the network device (virtio 1.2, section 5.1).

/// Feature bits (5.1.3).
pub(super) mod feature {
    pub(in super::super) const CSUM: u64 = 1 << 0;
    pub(in super::super) const GUEST_CSUM: u64 = 1 << 1;
    pub(in super::super) const MTU: u64 = 1 << 3;
    pub(in super::super) const MAC: u64 = 1 << 5;
    pub(in super::super) const GUEST_TSO4: u64 = 1 << 7;
    pub(in super::super) const GUEST_TSO6: u64 = 1 << 8;
    pub(in super::super) const GUEST_ECN: u64 = 1 << 9;
    pub(in super::super) const HOST_TSO4: u64 = 1 << 11;
    pub(in super::super) const HOST_TSO6: u64 = 1 << 12;
    pub(in super::super) const HOST_ECN: u64 = 1 << 13;
    pub(in super::super) const MRG_RXBUF: u64 = 1 << 15;
    pub(in super::super) const STATUS: u64 = 1 << 16;
    /// What a tap does for us.
    pub(in super::super) const OFFLOADS: u64 =
        CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | HOST_TSO4 | HOST_TSO6 | HOST_ECN;
}

/// Bytes before each packet (`struct virtio_net_hdr`, 5.1.6).
pub(super) const HEADER: usize = 12;
/// Where the header counts the buffers of a packet that is received.
pub(super) const NUM_BUFFERS: usize = 10;
/// The longest frame: an IP packet of 64 KiB less one byte, behind an Ethernet header with a VLAN
/// tag.
pub(super) const MAX_FRAME: usize = 65_535 + 18;
/// The longest without segmentation offload (5.1.6.3.1), where the MTU is not larger.
pub(super) const FRAME: usize = 1514 + 4;
/// An Ethernet header with a VLAN tag, in bytes.
pub(super) const ETHERNET: usize = 18;

/// Flag of a header: a checksum is still to be made (5.1.6).
const NEEDS_CSUM: u8 = 1;
/// Kinds of segmentation (5.1.6), and a bit beside them.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// Bytes of the configuration space, to the last field that has a meaning for us.
pub(super) const CONFIG: usize = 12;

/// The configuration space (5.1.4).
pub(super) fn config(mac: Option<[u8; 6]>, mtu: Option<u16>) -> [u8; CONFIG] {
    let [m0, m1, m2, m3, m4, m5] = mac.unwrap_or_default();
    let [low, high] = mtu.unwrap_or_default().to_le_bytes();
    // Between them: the link's status, and the pairs of queues, which are not offered.
    let mut config = [m0, m1, m2, m3, m4, m5, 0, 0, 0, 0, low, high];
    set_link(&mut config, true);
    config
}

/// Says whether there is a network (VIRTIO_NET_S_LINK_UP).
pub(super) fn set_link(config: &mut [u8; CONFIG], up: bool) {
    let [_, _, _, _, _, _, low, _, ..] = config;
    *low = u8::from(up);
}

/// The header of a packet that the guest sends with a frame of `length` bytes, as the host gets
/// it; nothing when it asks for what was not agreed on, or contradicts itself.
pub(super) fn checked(header: [u8; HEADER], length: usize, features: u64) -> Option<[u8; HEADER]> {
    let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1, _, _] = header;
    let word = |low, high| usize::from(u16::from_le_bytes([low, high]));
    let sums = flags & NEEDS_CSUM != 0;
    if sums && (features & feature::CSUM == 0 || word(c0, c1) + word(o0, o1) + 2 > length) {
        return None;
    }
    let needed = match gso & !GSO_ECN {
        GSO_NONE => 0,
        GSO_TCPV4 => feature::HOST_TSO4,
        GSO_TCPV6 => feature::HOST_TSO6,
        _ => return None,
    };
    let needed = needed | if gso & GSO_ECN != 0 { feature::HOST_ECN } else { 0 };
    if features & needed != needed {
        return None;
    }
    if needed != 0 && (!sums || gso == GSO_ECN || word(s0, s1) == 0 || word(h0, h1) > length) {
        return None;
    }
    // What does not count is not passed on (5.1.6.2).
    let (h, s) = if needed == 0 { ([0; 2], [0; 2]) } else { ([h0, h1], [s0, s1]) };
    let (c, o) = if sums { ([c0, c1], [o0, o1]) } else { ([0; 2], [0; 2]) };
    let flags = flags & NEEDS_CSUM;
    Some([flags, gso, h[0], h[1], s[0], s[1], c[0], c[1], o[0], o[1], 0, 0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_configuration_is_as_specified() {
        let mac = [2, 3, 4, 5, 6, 7];
        assert_eq!(config(Some(mac), Some(0x1234)), [2, 3, 4, 5, 6, 7, 1, 0, 0, 0, 0x34, 0x12]);
        let mut none = config(None, None);
        set_link(&mut none, false);
        assert_eq!(none, [0; CONFIG]);
    }

    /// flags, kind, header's length, segment's, checksum's start and offset.
    fn header(flags: u8, gso: u8, words: [u16; 4]) -> [u8; HEADER] {
        let mut bytes = [0xee; HEADER];
        bytes[0] = flags;
        bytes[1] = gso;
        for (index, word) in words.iter().enumerate() {
            bytes[2 + 2 * index..4 + 2 * index].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_header_counts_only_as_far_as_it_was_agreed_on() {
        let all = feature::OFFLOADS;
        let plain = header(0, 0, [0; 4]);
        assert_eq!(checked(plain, 60, 0), Some([0; HEADER]));
        // Unknown flags, and words that mean nothing without theirs.
        let odd = header(0xfe, 0, [54, 1448, 34, 16]);
        assert_eq!(checked(odd, 60, all), Some([0; HEADER]));
        let sum = header(1, 0, [0, 0, 34, 16]);
        assert_eq!(checked(sum, 60, all).unwrap()[..10], sum[..10]);
        assert_eq!(checked(sum, 60, all & !feature::CSUM), None);
        assert_eq!(checked(sum, 51, all), None);
        assert_eq!(checked(header(1, 0, [0, 0, u16::MAX, u16::MAX]), 60, all), None);
        let segments = header(1, 1, [54, 1448, 34, 16]);
        assert_eq!(checked(segments, 9000, all).unwrap()[..10], segments[..10]);
        assert_eq!(checked(segments, 9000, all & !feature::HOST_TSO4), None);
        assert_eq!(checked(header(0, 1, [54, 1448, 34, 16]), 9000, all), None, "no checksum");
        assert_eq!(checked(header(1, 1, [54, 0, 34, 16]), 9000, all), None, "no size");
        assert_eq!(checked(header(1, 1, [9001, 1448, 34, 16]), 9000, all), None);
        assert_eq!(checked(header(1, 4, [54, 1448, 34, 16]), 9000, feature::CSUM), None);
        assert!(checked(header(1, 0x84, [54, 1448, 34, 16]), 9000, all).is_some());
        assert_eq!(checked(header(1, 0x80, [54, 1448, 34, 16]), 9000, all), None);
        for gso in [2, 3, 5, 6, 0x7f, 0xff] {
            assert_eq!(checked(header(1, gso, [54, 1448, 34, 16]), 9000, all), None);
        }
    }

    proptest! {
        #[test]
        fn what_passes_lies_within_the_frame(bytes: [u8; HEADER], length in 0..70_000usize) {
            if let Some(passed) = checked(bytes, length, feature::OFFLOADS) {
                let word = |at: usize| usize::from(u16::from_le_bytes([passed[at], passed[at + 1]]));
                prop_assert!(word(2) <= length);
                prop_assert!(passed[0] == 0 || word(6) + word(8) + 2 <= length);
                prop_assert!(passed[1] == 0 || word(4) > 0);
            }
        }
    }
}
