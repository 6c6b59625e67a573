//! The balloon over raw queue memory.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::devices::virtio::rig::{Buffer, Rig};

const REPORTING_QUEUE: usize = 3;

fn all() -> u32 {
    u32::try_from(FEATURES).unwrap()
}

fn balloon() -> (Rig, Arc<Handle>) {
    let balloon = Balloon::new().unwrap();
    let handle = balloon.handle();
    (Rig::new(Box::new(balloon)), handle)
}

/// Fills the memory that is not the rig's; where it begins.
fn fill(rig: &Rig) -> u64 {
    let bytes = vec![7; usize::try_from(rig.size() - rig.free()).unwrap()];
    rig.memory.write_slice(&bytes, GuestAddress(rig.free())).unwrap();
    rig.free()
}

fn byte(rig: &Rig, at: u64) -> u8 {
    rig.memory.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn reported_pages_are_gone_and_what_is_no_memory_does_no_harm() {
    let (mut rig, _) = balloon();
    rig.start(all());
    let free = fill(&rig);
    let end = rig.size();
    let two = Buffer::At(free, 2 * 4096);
    rig.put(REPORTING_QUEUE, &[two, Buffer::At(free + 3 * 4096 + 1, 4097)]);
    rig.put(
        REPORTING_QUEUE,
        &[Buffer::At(end - 4096, u32::MAX), Buffer::At(u64::MAX - 3, 4096), Buffer::At(end, 0)],
    );
    rig.kick(REPORTING_QUEUE);
    // Nothing is said to be written: the driver reads nothing out of them.
    assert!(rig.used(REPORTING_QUEUE, 2).iter().all(Vec::is_empty));
    let at = |page: u64| byte(&rig, free + page * 4096);
    assert_eq!([at(0), at(1), at(2), at(3), at(4), at(5)], [0, 0, 7, 7, 7, 7]);
    assert_eq!((byte(&rig, end - 4097), byte(&rig, end - 1)), (7, 0));
}

#[test]
fn pages_of_the_balloon_are_gone_one_by_one_or_in_runs_up_or_down() {
    let (mut rig, _) = balloon();
    rig.start(all());
    let free = fill(&rig);
    let first = u32::try_from(free / 4096).unwrap();
    let numbers = [first + 1, first + 2, first + 9, first + 8, first, 0xffff_ffff, u32::MAX / 2];
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    bytes.extend([1, 2, 3]);
    rig.put(0, &[Buffer::Bytes(&bytes[..5]), Buffer::Bytes(&bytes[5..])]);
    rig.put(0, &[Buffer::Room(8)]);
    rig.kick(0);
    rig.used(0, 2);
    let gone: Vec<u64> = (0..12).filter(|page| byte(&rig, free + page * 4096) == 0).collect();
    assert_eq!(gone, [0, 1, 2, 8, 9]);
    // Deflation is an answer and nothing else.
    rig.put(1, &[Buffer::Bytes(&bytes)]);
    rig.kick(1);
    rig.used(1, 1);
}

#[test]
fn what_is_asked_for_is_told_and_what_is_given_is_heard() {
    let (mut rig, handle) = balloon();
    handle.ask(10 << 20).unwrap();
    rig.start(all());
    rig.until(|rig| rig.register(0x100) == 2560);
    rig.until(|rig| rig.register(0x60) & 2 != 0);
    let generation = rig.register(0xfc);
    rig.write(0x104, 7);
    assert_eq!(rig.register(0x104), 7);
    handle.ask(u64::MAX).unwrap();
    rig.until(|rig| rig.register(0x100) == u32::MAX);
    rig.until(|_| handle.given() == 7 * 4096);
    assert_ne!(rig.register(0xfc), generation);
    // The rest is not the driver's, nor is what begins in the rest.
    rig.write(0x100, 1);
    rig.transport.write(0x102, &[1, 2, 3, 4]);
    rig.transport.write(0x106, &[1, 2, 3, 4]);
    rig.transport.write(u64::MAX, &[1, 2, 3, 4]);
    assert_eq!((rig.register(0x100), rig.register(0x104)), (u32::MAX, 7));
    // After a reset nothing was given, and the same is asked for.
    rig.start(all());
    rig.until(|rig| rig.register(0x100) == u32::MAX);
    assert_eq!(rig.register(0x104), 0);
}

#[test]
fn statistics_come_when_asked_for() {
    let (mut rig, handle) = balloon();
    rig.start(all());
    let pair = |value: u64| [4u16.to_le_bytes().as_slice(), &value.to_le_bytes()].concat();
    rig.put(2, &[Buffer::Bytes(&pair(100))]);
    rig.kick(2);
    rig.until(|_| handle.statistics().is_some_and(|last| last.free == Some(100)));
    assert_eq!(rig.waiting(2), 0);
    handle.refresh().unwrap();
    rig.used(2, 1);
    rig.put(2, &[Buffer::Bytes(&pair(200))]);
    rig.kick(2);
    rig.until(|_| handle.statistics().is_some_and(|last| last.free == Some(200)));
    // A second buffer gives the first back.
    rig.put(2, &[Buffer::Room(5)]);
    rig.kick(2);
    rig.used(2, 1);
    rig.until(|_| handle.statistics().is_some_and(|last| last.free.is_none()));
}

#[test]
fn a_driver_may_use_fewer_queues() {
    let (mut rig, handle) = balloon();
    rig.start_with(0, 2);
    assert_eq!(rig.register(0x70), 15);
    handle.refresh().unwrap();
    // Without statistics, reporting is the third.
    rig.start_with(u32::try_from(REPORTING).unwrap(), 3);
    let free = fill(&rig);
    rig.put(2, &[Buffer::At(free, 4096)]);
    rig.kick(2);
    rig.used(2, 1);
    assert_eq!((byte(&rig, free), byte(&rig, free + 4096)), (0, 7));
    // One that takes a feature sets up its queue.
    rig.write(0x70, 0);
    rig.start_with(u32::try_from(REPORTING).unwrap(), 2);
    rig.asks_reset();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever a guest reports, each buffer comes back and nothing but memory is touched.
    #[test]
    fn hostile_reports_are_answered(
        ranges in proptest::collection::vec(
            (prop_oneof![0..16u64 << 20, any::<u64>()], any::<u32>()), 1..40),
        numbers in proptest::collection::vec(any::<u8>(), 1..3000),
    ) {
        let (mut rig, _) = balloon();
        rig.start(all());
        // Of the rig's own memory nothing may go, or the test could not go on.
        let free = rig.free();
        let parts: Vec<_> =
            ranges.iter().map(|(at, length)| Buffer::At((*at).max(free), *length)).collect();
        for part in parts.chunks(8) {
            rig.put(REPORTING_QUEUE, part);
        }
        rig.kick(REPORTING_QUEUE);
        rig.used(REPORTING_QUEUE, parts.len().div_ceil(8));
        let high: Vec<u8> =
            numbers.chunks_exact(4).flat_map(|it| [it[0], it[1], it[2] | 1, it[3]]).collect();
        rig.put(0, &[Buffer::Bytes(&high), Buffer::Bytes(&numbers[..1])]);
        rig.kick(0);
        rig.used(0, 1);
        rig.transport.stop();
    }
}
