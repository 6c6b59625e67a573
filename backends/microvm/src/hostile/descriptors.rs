//! Chains that no honest driver makes: loops, wrong addresses and lengths, tables in tables.

use vm_memory::{Bytes, GuestAddress};

use super::{ends, guarded_share, is_well};
use crate::fuzzing::driver::{
    Descriptor, Driver, HIGH, HIGH_SIZE, INDIRECT, LOW, NEXT, Settled, WRITE,
};
use crate::fuzzing::fs::{REQUEST_QUEUE, init, request};

/// The feature bit of indirect descriptors (virtio 1.2, 6).
const INDIRECT_DESC: u32 = 1 << 28;

/// Gives one chain to a share, and tells how the device took it; it must be well after a reset.
fn given(make: impl Fn(&mut Driver) -> Vec<Descriptor> + Send + 'static) -> Settled {
    let (sender, settled) = std::sync::mpsc::channel();
    ends(move || {
        let (around, guarded, mut driver) = guarded_share();
        driver.start(INDIRECT_DESC);
        let chain = make(&mut driver);
        driver.push(REQUEST_QUEUE, &chain);
        driver.kick(REQUEST_QUEUE);
        sender.send(driver.settle(REQUEST_QUEUE)).unwrap();
        is_well(&mut driver);
        driver.transport.stop();
        guarded.check();
        around.check(&driver.memory);
    });
    settled.recv().unwrap()
}

/// An honest request in memory, with room behind it.
fn honest(driver: &mut Driver) -> (u64, u32) {
    let bytes = init();
    let at = driver.buffer(0x1000);
    driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    (at, u32::try_from(bytes.len()).unwrap())
}

#[test]
fn an_honest_chain_is_used() {
    let settled = given(|driver| {
        let (at, length) = honest(driver);
        vec![(at, length, NEXT, 0), (at + 0x800, 200, WRITE, 0)]
    });
    assert_eq!(settled, Settled::Used);
}

#[test]
fn loops_end() {
    // On itself, and over two; `next` 64 is no index at all.
    for (first, second) in [(1, 1), (0, 1), (1, 64), (1, u16::MAX)] {
        let settled = given(move |driver| {
            let (at, length) = honest(driver);
            let (table, ..) = Driver::rings(REQUEST_QUEUE);
            driver.describe(table, 0, (at, length, NEXT, first));
            driver.describe(table, 1, (at + 0x800, 100, NEXT | WRITE, second));
            driver.offer(REQUEST_QUEUE, 0);
            driver.kick(REQUEST_QUEUE);
            driver.settle(REQUEST_QUEUE);
            vec![(at, length, NEXT, 0), (at + 0x800, 100, WRITE | NEXT, second)]
        });
        // Either is right: such a chain is what the driver must not make (2.7.5.2).
        assert!(matches!(settled, Settled::Used | Settled::NeedsReset));
    }
}

#[test]
fn buffers_outside_memory_ask_for_a_reset() {
    let high_end = HIGH + u64::try_from(HIGH_SIZE).unwrap();
    for (address, length) in [
        (LOW, 16),
        (LOW - 8, 16),
        (LOW + 0x1000, 1),
        (HIGH - 1, 2),
        (high_end - 8, 16),
        (high_end, 1),
        (0, 1 << 31),
        (1 << 40, 64),
        (u64::MAX, 1),
        (u64::MAX - 7, 16),
        (1 << 63, 1 << 31),
    ] {
        for flags in [0, WRITE] {
            let settled = given(move |driver| {
                let (at, size) = honest(driver);
                vec![(at, size, NEXT, 0), (address, length, flags, 0)]
            });
            assert_eq!(settled, Settled::NeedsReset, "{length} bytes at {address:#x}, {flags}");
        }
    }
}

#[test]
fn what_must_be_readable_or_writable_and_is_not_is_no_request() {
    // Nothing readable; nothing writable; readable after writable; no bytes.
    for flags in [[WRITE, WRITE], [0, 0], [WRITE, 0]] {
        given(move |driver| {
            let (at, size) = honest(driver);
            vec![(at, size, flags[0] | NEXT, 0), (at + 0x800, 200, flags[1], 0)]
        });
    }
    given(|_| vec![(0, 0, NEXT, 0), (0, 0, WRITE, 0)]);
}

#[test]
fn odd_indirect_tables_end() {
    for (length, inner) in [
        (0, 0),
        (1, 0),
        (15, 0),
        (17, 0),
        (32, INDIRECT),
        (32, INDIRECT | NEXT),
        (16 * 65535, NEXT),
        (16 * 65536, NEXT),
        (u32::MAX, NEXT),
    ] {
        given(move |driver| {
            let (at, size) = honest(driver);
            let table = driver.buffer(0x1000);
            driver.describe(table, 0, (at, size, NEXT, 1));
            driver.describe(table, 1, (table, 32, inner, 0));
            vec![(table, length, INDIRECT, 0)]
        });
    }
}

#[test]
fn indirect_tables_outside_memory_end() {
    for table in [LOW - 16, LOW, HIGH - 16, 1 << 40, u64::MAX - 15, u64::MAX] {
        given(move |_| vec![(table, 32, INDIRECT, 0)]);
        given(move |driver| {
            let (at, size) = honest(driver);
            vec![(at, size, NEXT, 0), (table, 32, INDIRECT, 0)]
        });
    }
}

#[test]
fn heads_that_are_no_descriptor_ask_for_a_reset() {
    for head in [64, 65, u16::MAX] {
        let settled = given(move |driver| {
            driver.offer(REQUEST_QUEUE, head);
            Vec::new()
        });
        assert_eq!(settled, Settled::NeedsReset, "head {head}");
    }
}

#[test]
fn an_available_index_that_jumps_asks_for_a_reset() {
    for index in [65, 1000, u16::MAX, u16::MAX - 63] {
        ends(move || {
            let (_around, guarded, mut driver) = guarded_share();
            driver.start(0);
            driver.set_available(REQUEST_QUEUE, index);
            driver.kick(REQUEST_QUEUE);
            driver.fails();
            is_well(&mut driver);
            // And one that goes back after an honest request.
            driver.set_available(REQUEST_QUEUE, 0);
            driver.kick(REQUEST_QUEUE);
            driver.fails();
            is_well(&mut driver);
            driver.transport.stop();
            guarded.check();
        });
    }
}

/// Each request is short by its header; what it says to hold by its descriptors is 32 MiB, all of
/// them the same megabyte. FUSE_IOCTL (operation 39) then says to bring as much.
#[test]
fn a_request_larger_than_any_is_refused_before_it_is_read() {
    let settled = given(|driver| {
        let mut body = vec![0; 32];
        body[24..28].copy_from_slice(&(30u32 << 20).to_le_bytes());
        let request = request(39, 1, &body);
        let at = driver.buffer(0x1000);
        driver.memory.write_slice(&request, GuestAddress(at)).unwrap();
        let size = u32::try_from(request.len()).unwrap();
        let mut chain = vec![(at, size, NEXT, 0)];
        chain.extend([(0, 1 << 20, NEXT, 0); 32]);
        chain.push((at + 0x800, 200, WRITE, 0));
        chain
    });
    assert_eq!(settled, Settled::NeedsReset);
}
