//! The network by way of raw queue memory and a socket in the tap's place; and a real tap, where
//! this user may make one.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::driver::{Driver, FREE, INDIRECT, MEMORY, NEXT, SIZE, WRITE, bytes_of};
use super::super::rate::Rate;
use super::layout::{HEADER, MAX_FRAME};
use super::*;

const RX: u32 = 0;
const TX: u32 = 1;
const ROOM: u64 = FREE;
const PACKET: u64 = FREE + 0x12_0000;
const MERGES: u64 = feature::MRG_RXBUF;
const BIG: u64 = feature::MRG_RXBUF | feature::OFFLOADS;

fn net(options: &NetOptions) -> (Box<Net>, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (Box::new(Net::new(Tap::fake(theirs), options).unwrap()), ours)
}

fn started(features: u64) -> (Driver, UnixDatagram) {
    let (net, host) = net(&NetOptions::default());
    (Driver::started(net, features), host)
}

fn frame(length: usize, seed: u8) -> Vec<u8> {
    (0..=250u8).cycle().map(|byte| byte.wrapping_add(seed)).take(length).collect()
}

/// What comes from the tap: a header of its kind, and a frame.
fn from_tap(frame: &[u8]) -> Vec<u8> {
    [&[0u8; HEADER][..], frame].concat()
}

fn received(host: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    let length = host.recv(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

fn send(driver: &mut Driver, header: &[u8], frame: &[u8]) -> u16 {
    driver.put(PACKET, &[header, frame].concat());
    let length = u32::try_from(header.len() + frame.len()).unwrap();
    let head = driver.chain(TX, &[(PACKET, length, 0)]);
    driver.kick(TX);
    let used = driver.used(TX);
    assert_eq!(used, (head, 0));
    head
}

#[test]
fn the_guest_sees_address_mtu_and_features() {
    let options =
        NetOptions { mac: Some([2, 0, 0, 1, 2, 3]), mtu: Some(9000), ..Default::default() };
    let driver = Driver::new(net(&options).0);
    assert_eq!(driver.register(0x08), 1);
    assert_eq!(driver.register(0x100), 0x0100_0002);
    assert_eq!(driver.register(0x104), 0x0001_0302, "and the link is up");
    assert_eq!(driver.register(0x108) >> 16, 9000);
    let features = driver.register(0x10);
    assert_ne!(features & (1 << 5), 0);
    assert_ne!(features & (1 << 3), 0);
    assert_eq!(Driver::new(net(&NetOptions::default()).0).register(0x10) & (1 << 5 | 1 << 3), 0);
}

#[test]
fn packets_go_both_ways() {
    let (mut driver, host) = started(MERGES);
    let sent = frame(1000, 1);
    send(&mut driver, &[0; HEADER], &sent);
    assert_eq!(received(&host), from_tap(&sent));
    driver.put(ROOM, &[0xee; 4096]);
    let head = driver.chain(RX, &[(ROOM, 2048, WRITE)]);
    driver.kick(RX);
    host.send(&from_tap(&sent)).unwrap();
    assert_eq!(driver.used(RX), (head, 1012));
    let mut expected = from_tap(&sent);
    expected[10] = 1;
    assert_eq!(driver.get(ROOM, 1012), expected);
    assert_eq!(driver.get(ROOM + 1012, 1), [0xee]);
    // One that was there before there was room.
    host.send(&from_tap(&sent)).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let head = driver.chain(RX, &[(ROOM, 1, WRITE), (ROOM + 1, 0, WRITE), (ROOM + 7, 2047, WRITE)]);
    driver.kick(RX);
    assert_eq!(driver.used(RX), (head, 1012));
    assert_eq!(driver.get(ROOM + 7, 1011), expected[1..]);
}

#[test]
fn a_large_packet_fills_several_buffers_which_are_given_back_at_once() {
    let (mut driver, host) = started(BIG);
    let sent = frame(5000, 3);
    for index in 0..16 {
        driver.chain(RX, &[(ROOM + 0x1000 * index, 2000, WRITE)]);
    }
    driver.kick(RX);
    for _ in 0..5 {
        host.send(&from_tap(&sent)).unwrap();
        let (first, length) = driver.used(RX);
        assert_eq!(length, 2000);
        // The others are there as soon as the first is.
        let more = [(); 2].map(|()| driver.used_within(RX, Duration::ZERO).unwrap());
        assert_eq!(more.map(|(_, length)| length), [2000, 1012]);
        let heads = [first, more[0].0, more[1].0];
        let got: Vec<u8> = heads
            .iter()
            .zip([2000, 2000, 1012])
            .flat_map(|(head, length)| driver.get(ROOM + 0x1000 * u64::from(*head), length))
            .collect();
        let mut expected = from_tap(&sent);
        expected[10] = 3;
        assert_eq!(got, expected);
        // The same buffers again, so that the ring is full.
        for head in heads {
            driver.offer(RX, head);
        }
        driver.kick(RX);
    }
}

#[test]
fn without_merging_each_packet_has_one_buffer() {
    let (mut driver, host) = started(0);
    for index in 0..3 {
        driver.chain(RX, &[(ROOM + 0x1000 * index, 1526, WRITE)]);
    }
    driver.kick(RX);
    host.send(&from_tap(&frame(60, 0))).unwrap();
    // Too long for its buffer: its end is lost, and nothing else.
    host.send(&from_tap(&frame(3000, 1))).unwrap();
    host.send(&from_tap(&frame(60, 2))).unwrap();
    assert_eq!([(); 3].map(|()| driver.used(RX).1), [72, 1526, 72]);
    for index in 0..3 {
        assert_eq!(driver.get(ROOM + 0x1000 * index + 10, 2), [1, 0]);
    }
    assert_eq!(driver.get(ROOM + 0x2000 + 12, 60), frame(60, 2));
}

#[test]
fn checksums_are_told_of_only_to_who_agreed() {
    for (features, flags) in [(0, 0), (feature::GUEST_CSUM, 2)] {
        let (mut driver, host) = started(features);
        driver.chain(RX, &[(ROOM, 2048, WRITE)]);
        driver.kick(RX);
        let mut packet = from_tap(&frame(60, 0));
        packet[0] = 2;
        host.send(&packet).unwrap();
        driver.used(RX);
        assert_eq!(driver.get(ROOM, 1), [flags]);
    }
}

#[test]
fn what_a_network_loses_is_taken_and_not_sent() {
    let (mut driver, host) = started(BIG);
    let frame = frame(100, 0);
    // Segmentation without a checksum, of an unknown kind, a checksum outside the frame.
    for (flags, gso, start) in [(0, 1, 0), (1, 3, 0), (1, 0x7f, 0), (1, 0, 200), (1, 0, 0xffff)] {
        let mut header = [0; HEADER];
        (header[0], header[1]) = (flags, gso);
        header[4] = 100;
        header[6..8].copy_from_slice(&u16::to_le_bytes(start));
        send(&mut driver, &header, &frame);
    }
    // Too long for any network.
    let long = u32::try_from(HEADER + MAX_FRAME + 1).unwrap();
    driver.put(PACKET, &[0; HEADER]);
    driver.chain(TX, &[(PACKET, long, 0)]);
    driver.kick(TX);
    driver.used(TX);
    send(&mut driver, &[0; HEADER], &frame);
    assert_eq!(received(&host), from_tap(&frame));
    assert!(!driver.broken());
}

#[test]
fn headers_may_be_split_and_tables_indirect() {
    let (mut driver, host) = started(0);
    let sent = frame(70, 5);
    driver.put(PACKET, &from_tap(&sent));
    driver.chain(
        TX,
        &[(PACKET, 5, 0), (PACKET + 5, 7, 0), (PACKET + 12, 0, 0), (PACKET + 12, 70, 0)],
    );
    driver.kick(TX);
    driver.used(TX);
    assert_eq!(received(&host), from_tap(&sent));
    let table = PACKET + 0x1000;
    let chain = [bytes_of((PACKET, 13, NEXT, 1)), bytes_of((PACKET + 13, 69, 0, 0))];
    driver.put(table, &chain.concat());
    driver.chain(TX, &[(table, 32, INDIRECT)]);
    driver.kick(TX);
    driver.used(TX);
    assert_eq!(received(&host), from_tap(&sent));
}

#[test]
fn chains_that_make_no_sense_stop_the_device() {
    type Case<'a> = (u32, &'a [(u64, u32, u16)]);
    let cases: &[Case<'_>] = &[
        (TX, &[(PACKET, 11, 0)]),
        (TX, &[(PACKET, 0, 0)]),
        (TX, &[(MEMORY, 100, 0)]),
        (TX, &[(PACKET, 12, 0), (u64::MAX - 10, 100, 0)]),
        (TX, &[(PACKET, 12, 0), (PACKET, u32::MAX - 12, 0)]),
        (TX, &[(PACKET, 12, WRITE), (PACKET, 12, 0)]),
        (RX, &[(ROOM, 11, WRITE)]),
        (RX, &[(ROOM, 0, WRITE)]),
        (RX, &[(ROOM, 100, 0), (ROOM, 100, WRITE)]),
        (RX, &[(ROOM, 100, 0)]),
        (RX, &[(MEMORY - 1, 100, WRITE)]),
        (RX, &[(1 << 50, 100, WRITE)]),
    ];
    let (mut driver, host) = started(MERGES);
    for (queue, case) in cases {
        driver.chain(*queue, case);
        driver.kick(*queue);
        driver.wait_broken();
        driver.start(MERGES);
        send(&mut driver, &[0; HEADER], &frame(60, 1));
        received(&host);
        driver.start(MERGES);
    }
}

#[test]
fn packets_wait_for_their_turn_in_both_directions() {
    let rate = Rate { size: 2000, refill: Duration::from_millis(100), burst: 0 };
    let limits = Limits { bytes: Some(rate), operations: None };
    let options = NetOptions { receive: limits, transmit: limits, ..Default::default() };
    let (net, host) = net(&options);
    let mut driver = Driver::started(net, 0);
    driver.put(PACKET, &[0; HEADER]);
    let begun = Instant::now();
    for _ in 0..6 {
        driver.chain(TX, &[(PACKET, 1012, 0)]);
    }
    driver.kick(TX);
    for _ in 0..6 {
        driver.used(TX);
        received(&host);
    }
    assert!(begun.elapsed() >= Duration::from_millis(195), "{:?}", begun.elapsed());
    let begun = Instant::now();
    for index in 0..6 {
        driver.chain(RX, &[(ROOM + 0x1000 * index, 2048, WRITE)]);
    }
    driver.kick(RX);
    for index in 0..6 {
        host.send(&from_tap(&frame(1000, index))).unwrap();
    }
    for index in 0..6 {
        let (head, length) = driver.used(RX);
        assert_eq!(length, 1012);
        assert_eq!(driver.get(ROOM + 0x1000 * u64::from(head % 6), 1012)[12..], frame(1000, index));
    }
    assert!(begun.elapsed() >= Duration::from_millis(195), "{:?}", begun.elapsed());
}

#[test]
fn many_packets_go_round_and_a_reset_is_no_end() {
    let (mut driver, host) = started(MERGES);
    for round in 0..200u8 {
        let sent = frame(60 + usize::from(round), round);
        for index in 0..4 {
            driver.chain(RX, &[(ROOM + 0x1000 * index, 2048, WRITE)]);
            host.send(&from_tap(&sent)).unwrap();
        }
        driver.kick(RX);
        send(&mut driver, &[0; HEADER], &sent);
        assert_eq!(received(&host), from_tap(&sent));
        for _ in 0..4 {
            assert_eq!(driver.used(RX).1, u32::try_from(HEADER + sent.len()).unwrap());
        }
        if round % 10 == 0 {
            // With room held, and a packet that nobody gets.
            driver.chain(RX, &[(ROOM, 2048, WRITE)]);
            driver.kick(RX);
            driver.start(MERGES);
        }
    }
    driver.transport.stop();
}

#[test]
fn a_host_that_hangs_up_leaves_a_network_on_which_nothing_arrives() {
    let (mut driver, host) = started(MERGES);
    driver.chain(RX, &[(ROOM, 2048, WRITE)]);
    driver.kick(RX);
    drop(host);
    for _ in 0..40 {
        send(&mut driver, &[0; HEADER], &frame(60, 0));
    }
    assert!(!driver.broken());
    driver.start(MERGES);
    send(&mut driver, &[0; HEADER], &frame(60, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever chains lie in both queues: the device takes them, or asks for a reset.
    #[test]
    fn any_chain_is_taken_or_stops_the_device(
        chains in proptest::collection::vec((
            any::<bool>(),
            proptest::collection::vec((
                prop_oneof![FREE..MEMORY + 600, any::<u64>()],
                prop_oneof![Just(0u32), 0..100u32, 0..70_000u32, any::<u32>()],
                prop_oneof![Just(0u16), Just(WRITE)],
            ), 1..4),
        ), 1..12),
        features in prop_oneof![Just(0), Just(MERGES), Just(BIG)],
        packets in proptest::collection::vec(0..5000usize, 0..6),
    ) {
        let (mut driver, host) = started(features);
        host.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; 70_000];
        for (index, (transmits, pieces)) in chains.iter().enumerate() {
            let queue = if *transmits { TX } else { RX };
            // The right direction, as a rule.
            let flags = if *transmits { 0 } else { WRITE };
            let pieces: Vec<_> = pieces
                .iter()
                .map(|&(at, length, odd)| (at, length, if odd == 0 { flags } else { odd }))
                .collect();
            driver.chain(queue, &pieces);
            driver.kick(queue);
            if let Some(length) = packets.get(index) {
                let _ = host.send(&from_tap(&frame(*length, 0)));
            }
            if *transmits {
                let begun = Instant::now();
                while driver.used_within(TX, Duration::from_micros(100)).is_none() {
                    prop_assert!(begun.elapsed() < Duration::from_secs(10), "no answer");
                    let _ = host.recv(&mut bytes);
                    if driver.broken() {
                        driver.start(features);
                        break;
                    }
                }
            }
        }
        prop_assert!(SIZE >= 12);
        driver.start(features);
        while host.recv(&mut bytes).is_ok() {}
        send(&mut driver, &[0; HEADER], &frame(60, 7));
        host.set_nonblocking(false).unwrap();
        prop_assert_eq!(received(&host), from_tap(&frame(60, 7)));
    }
}

/// Runs `test` in a network namespace of its own, where this user may make one.
fn in_own_network(test: impl FnOnce() + Send + 'static) {
    use nix::sched::{CloneFlags, unshare};
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: this user can make no network namespace: {error}");
        return;
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: there is no /dev/net/tun");
        return;
    }
    test();
}

fn ip(line: &str) {
    let status = std::process::Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

/// Names are checked, one process has a tap at a time, and what is no tap is refused.
#[test]
fn taps_are_opened_by_name_and_by_descriptor() {
    let refused = Tap::from_file(std::fs::File::open("/dev/null").unwrap());
    assert!(matches!(refused, Err(TapError::Kind(_))));
    for name in ["", "0123456789abcdef", "a/b", "tap%d"] {
        assert!(matches!(Tap::open(name), Err(TapError::Name { .. })), "{name}");
    }
    in_own_network(|| {
        let tap = Tap::open("moat0").unwrap();
        assert!(tap.offloads());
        let busy = Tap::open("moat0").unwrap_err();
        assert!(matches!(&busy, TapError::Attach { name, .. } if name == "moat0"), "{busy}");
        let copy = std::fs::File::from(tap.as_fd().try_clone_to_owned().unwrap());
        Tap::from_file(copy).unwrap();
    });
}

/// A real tap: what the guest sends reaches the host's network, and what that answers the guest;
/// and when the tap is deleted the device goes on, without it.
#[test]
fn a_real_tap_carries_packets_and_may_go_away() {
    in_own_network(|| {
        let net = Net::new(Tap::open("moat0").unwrap(), &NetOptions::default()).unwrap();
        ip("addr add 192.0.2.1/24 dev moat0");
        ip("link set moat0 up");
        let mut driver = Driver::started(Box::new(net), BIG);
        for index in 0..16 {
            driver.chain(RX, &[(ROOM + 0x1_0000 * index, 65_565, WRITE)]);
        }
        driver.kick(RX);
        // An ARP request of 192.0.2.2 for 192.0.2.1 (RFC 826), and its answer.
        let me = [2, 0, 0, 0, 0, 2];
        let mut arp = [&[0xff; 6][..], &me, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        arp.extend([&me[..], &[192, 0, 2, 2], &[0; 6], &[192, 0, 2, 1]].concat());
        send(&mut driver, &[0; HEADER], &arp);
        let answer = (0..16).find_map(|_| {
            let (head, length) = driver.used(RX);
            let at = ROOM + 0x1_0000 * u64::from(head);
            let packet = driver.get(at, usize::try_from(length).unwrap());
            (packet[24..26] == [8, 6] && packet[33] == 2).then_some(packet)
        });
        let answer = answer.expect("no answer");
        assert_eq!(answer[12..18], me);
        assert_eq!(answer[40..44], [192, 0, 2, 1]);
        assert_eq!(driver.register(0x104) >> 16, 1);
        let generation = driver.register(0xfc);
        ip("link del moat0");
        for _ in 0..3 {
            send(&mut driver, &[0; HEADER], &arp);
        }
        assert!(!driver.broken());
        assert_eq!(driver.register(0x104) >> 16, 0, "the link is down");
        assert_ne!(driver.register(0xfc), generation);
        assert_ne!(driver.register(0x60) & 2, 0, "no interrupt told of it");
        driver.start(BIG);
        assert_eq!(driver.register(0x104) >> 16, 0);
        send(&mut driver, &[0; HEADER], &arp);
    });
}
