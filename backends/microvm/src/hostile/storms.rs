//! Guests that never acknowledge, that kick for ever, and that reset while the device works.

use std::thread;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};

use super::{ask, ends, guarded_share, is_well};
use crate::fuzzing::driver::{Driver, LIVE, LOW, Settled, register};
use crate::fuzzing::fs::{REQUEST_QUEUE, init, request};

/// Where interrupts are acknowledged, and what they are for (table 4.1).
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACK: u64 = 0x64;

#[test]
fn a_guest_that_never_acknowledges_is_served() {
    ends(|| {
        let (_around, guarded, mut driver) = guarded_share();
        driver.start(0);
        for _ in 0..1000 {
            assert_eq!(ask(&mut driver, &init(), 200).unwrap().error, 0);
        }
        assert_eq!(driver.read(INTERRUPT_STATUS), 1, "a used buffer, however many");
        driver.write(INTERRUPT_ACK, u32::MAX);
        assert_eq!(driver.read(INTERRUPT_STATUS), 0);
        is_well(&mut driver);
        driver.transport.stop();
        guarded.check();
    });
}

#[test]
fn a_guest_that_kicks_for_ever_is_served_and_reset() {
    ends(|| {
        let (_around, _guarded, mut driver) = guarded_share();
        driver.start(0);
        for round in 0..20_000u32 {
            for queue in [0, 1, 2, u32::MAX] {
                driver.write(register::QUEUE_NOTIFY, queue);
            }
            if round % 1000 == 0 {
                assert_eq!(ask(&mut driver, &init(), 200).unwrap().error, 0);
            }
        }
        is_well(&mut driver);
    });
}

/// After a reset the memory is the driver's alone (2.4): nothing of what was under way comes late.
#[test]
fn a_reset_while_requests_are_under_way_ends_them() {
    ends(|| {
        let (around, guarded, mut driver) = guarded_share();
        let pattern = vec![0x3c; usize::try_from(LOW).unwrap()];
        for round in 0..100u64 {
            driver.start(0);
            for _ in 0..20 {
                driver.ask(REQUEST_QUEUE, &init(), 200);
                driver.ask(REQUEST_QUEUE, &request(1, 1, b"file\0"), 200);
            }
            driver.kick(REQUEST_QUEUE);
            thread::sleep(Duration::from_micros(round * 5));
            driver.write(register::STATUS, 0);
            driver.memory.write_slice(&pattern, GuestAddress(0)).unwrap();
            if round % 10 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            let mut now = pattern.clone();
            driver.memory.read_slice(&mut now, GuestAddress(0)).unwrap();
            assert!(now == pattern, "the device wrote after its reset, round {round}");
            driver.memory.write_slice(&vec![0; pattern.len()], GuestAddress(0)).unwrap();
            driver.reset();
        }
        is_well(&mut driver);
        driver.transport.stop();
        guarded.check();
        around.check(&driver.memory);
    });
}

#[test]
fn starts_and_resets_without_end_leave_no_thread_and_no_descriptor() {
    ends(|| {
        let (_around, _guarded, mut driver) = guarded_share();
        is_well(&mut driver);
        let before = descriptors();
        for _ in 0..300 {
            driver.reset();
            driver.start(0);
            driver.write(register::STATUS, LIVE);
        }
        is_well(&mut driver);
        // Other tests of this process come and go meanwhile.
        assert!(descriptors() < before + 250, "{before} descriptors and then {}", descriptors());
    });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A guest that changes descriptors and heads under the device's hands.
#[test]
fn rings_that_change_while_they_are_read_end() {
    ends(|| {
        let (around, guarded, mut driver) = guarded_share();
        let (table, available, _) = Driver::rings(REQUEST_QUEUE);
        for round in 0..50u64 {
            driver.start(0);
            let memory = driver.memory.clone();
            let scribbler = thread::spawn(move || {
                for step in 0..5_000u64 {
                    let noise = (step + round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let at = [table, available][usize::from(step % 7 == 0)] + noise % 256;
                    memory.write_obj(noise.to_le_bytes()[7], GuestAddress(at)).unwrap();
                }
            });
            for _ in 0..20 {
                driver.ask(REQUEST_QUEUE, &init(), 200);
                driver.kick(REQUEST_QUEUE);
            }
            scribbler.join().unwrap();
            is_well(&mut driver);
            driver.reset();
        }
        driver.start(0);
        driver.ask(REQUEST_QUEUE, &init(), 200);
        driver.kick(REQUEST_QUEUE);
        assert_eq!(driver.settle(REQUEST_QUEUE), Settled::Used);
        driver.transport.stop();
        guarded.check();
        around.check(&driver.memory);
    });
}
