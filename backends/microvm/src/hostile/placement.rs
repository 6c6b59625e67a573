//! Queues where no queue can be, queues on top of each other, queues changed while they are used,
//! and drivers that go through the steps in another order.

use std::time::{Duration, Instant};

use super::registers::devices;
use super::{ask, ends, guarded_share, is_well};
use crate::fuzzing::driver::{
    Driver, HIGH, HIGH_SIZE, LIVE, LOW, NEEDS_RESET, NEXT, WRITE, register,
};
use crate::fuzzing::fs::{REQUEST_QUEUE, Surroundings, init};

/// How long a device that may spin is watched.
const WATCHED: Duration = Duration::from_millis(50);

#[test]
fn queues_outside_memory_do_not_start() {
    let high_end = HIGH + u64::try_from(HIGH_SIZE).unwrap();
    let (good, available, used) = Driver::rings(REQUEST_QUEUE);
    for bad in [LOW - 16, LOW, HIGH - 16, high_end - 16, high_end, 1 << 40, u64::MAX - 15] {
        for place in [(bad, available, used), (good, bad, used), (good, available, bad)] {
            let (_around, guarded, mut driver) = guarded_share();
            driver.negotiate(0);
            driver.place(0, Driver::rings(0));
            driver.place(REQUEST_QUEUE, place);
            driver.write(register::STATUS, LIVE);
            assert_ne!(driver.status() & NEEDS_RESET, 0, "{place:x?}");
            is_well(&mut driver);
            driver.transport.stop();
            guarded.check();
        }
    }
}

/// A ring that gives the device more to do with each chain that it gives back never runs dry. The
/// device may go on for ever, as long as it can be reset.
#[test]
fn queues_on_top_of_each_other_can_be_reset() {
    let (descriptors, available, used) = Driver::rings(REQUEST_QUEUE);
    for place in [
        (descriptors, available, available),
        (descriptors, available & !3, used & !0xfff),
        (descriptors, descriptors, used),
        (descriptors, available, descriptors),
        (descriptors, descriptors, descriptors),
        (available & !0xf, available, used),
    ] {
        for index in [1, 64] {
            ends(move || {
                let (around, guarded, mut driver) = guarded_share();
                driver.negotiate(0);
                driver.place(0, Driver::rings(0));
                driver.place(REQUEST_QUEUE, place);
                driver.push(REQUEST_QUEUE, &[(0x8000, 64, NEXT, 0), (0x9000, 200, WRITE, 0)]);
                driver.set_available(REQUEST_QUEUE, index);
                driver.write(register::STATUS, LIVE);
                driver.kick(REQUEST_QUEUE);
                std::thread::sleep(WATCHED);
                let started = Instant::now();
                is_well(&mut driver);
                assert!(started.elapsed() < Duration::from_secs(30), "{place:x?}");
                driver.transport.stop();
                guarded.check();
                around.check(&driver.memory);
            });
        }
    }
}

/// The same for every queue of every device, by the worst of these places: what the device counts as
/// given back is what the driver counts as made available.
#[test]
fn no_device_lets_a_queue_that_feeds_itself_hold_it() {
    let around = Surroundings::new();
    for device in devices(&around) {
        ends(move || {
            let mut driver = Driver::new(device);
            let features = driver.offered();
            for fed in 0..driver.queues() {
                driver.negotiate(features);
                for queue in 0..driver.queues() {
                    let (descriptors, available, used) = Driver::rings(queue);
                    let used = if queue == fed { available } else { used };
                    driver.place(queue, (descriptors, available, used));
                }
                driver.push(fed, &[(0x8000, 64, NEXT, 0), (0x9000, 200, WRITE, 0)]);
                driver.write(register::STATUS, LIVE);
                driver.kick(fed);
                std::thread::sleep(WATCHED);
                driver.reset();
            }
            driver.start(features);
            assert_eq!(driver.status(), LIVE);
            driver.transport.stop();
        });
    }
}

#[test]
fn what_is_written_to_a_live_queue_changes_nothing() {
    let (_around, _guarded, mut driver) = guarded_share();
    driver.start(0);
    driver.write(register::QUEUE_SEL, 1);
    for (offset, value) in [
        (register::QUEUE_NUM, 2),
        (register::QUEUE_NUM, 0),
        (register::QUEUE_NUM, 3),
        (register::QUEUE_NUM, u32::MAX),
        (register::QUEUE_READY, 0),
        (register::QUEUE_DESC, 0xdead_0000),
        (register::QUEUE_DRIVER + 4, u32::MAX),
        (register::QUEUE_DEVICE, 4),
    ] {
        driver.write(offset, value);
        assert_eq!(driver.read(register::QUEUE_READY), 1);
        let answer = ask(&mut driver, &init(), 200).expect("an answer");
        assert_eq!(answer.error, 0);
    }
    is_well(&mut driver);
    driver.reset();
    driver.write(register::QUEUE_SEL, 1);
    assert_eq!(driver.read(register::QUEUE_READY), 0, "a reset makes it not ready");
}

#[test]
fn sizes_that_no_queue_has_are_not_taken() {
    let (_around, _guarded, mut driver) = guarded_share();
    driver.write(register::QUEUE_SEL, 7);
    assert_eq!(driver.read(register::QUEUE_NUM_MAX), 0, "there is no eighth queue");
    driver.write(register::QUEUE_READY, 1);
    assert_eq!(driver.read(register::QUEUE_READY), 0);
    driver.write(register::QUEUE_SEL, 1);
    let most = driver.read(register::QUEUE_NUM_MAX);
    // Each is refused, and the queue works with the largest size it has.
    for size in [0, 3, most + 1, most * 2, u32::MAX] {
        driver.reset();
        driver.start(0);
        driver.reset();
        driver.negotiate(0);
        driver.write(register::QUEUE_SEL, 1);
        driver.write(register::QUEUE_NUM, size);
        is_well(&mut driver);
    }
}

#[test]
fn a_driver_that_skips_steps_gets_no_device() {
    let (_around, _guarded, mut driver) = guarded_share();
    // Ready without queues.
    driver.negotiate(0);
    driver.write(register::STATUS, LIVE);
    assert_ne!(driver.status() & NEEDS_RESET, 0);
    driver.reset();
    // Ready without agreeing on features: nothing starts, and a kick is for nobody.
    driver.write(register::STATUS, 1 | 2 | 4);
    assert_eq!(driver.status(), 7);
    driver.kick(REQUEST_QUEUE);
    driver.write(register::STATUS, LIVE);
    assert_eq!(driver.status() & 8, 0, "features that were never written don't agree");
    driver.reset();
    // Everything at once.
    driver.write(register::STATUS, u32::MAX);
    driver.reset();
    // Features after they were agreed on.
    driver.negotiate(0);
    driver.write(0x24, 1);
    driver.write(0x20, u32::MAX);
    driver.place(0, Driver::rings(0));
    driver.place(1, Driver::rings(1));
    driver.write(register::STATUS, LIVE);
    assert_eq!(driver.status(), LIVE);
    // Bits can't be taken back, and a second start is none.
    for status in [1, 3, 11, LIVE, LIVE, NEEDS_RESET, 128] {
        driver.write(register::STATUS, status);
        assert_eq!(driver.status() & LIVE, LIVE);
    }
    assert_eq!(ask(&mut driver, &init(), 200).expect("an answer").error, 0);
    is_well(&mut driver);
}
