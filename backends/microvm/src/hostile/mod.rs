//! Hostile guests: drivers that break the rules of virtio, FUSE and vsock over raw memory, and
//! hand-written guests on this machine's own KVM that touch everything that a machine has.
//!
//! One file per kind of attack. For each, the device answers as the specification says, or asks for
//! a reset, and afterwards serves an honest driver as if nothing had been. What must never happen
//! is a panic, a device that can't be reset, memory that grows without end, or a byte written
//! outside guest memory. `crate::fuzzing::driver` is the driver that each of them bends.

mod descriptors;
mod fuse;
mod growth;
mod guarded;
mod guests;
mod placement;
mod registers;
mod storms;
mod vsock;

use std::sync::mpsc;

use vm_memory::{Bytes, GuestAddress};

use crate::fuzzing::driver::{Driver, PATIENCE, Settled};
use crate::fuzzing::fs::{REQUEST_QUEUE, Surroundings, init};

/// Runs `test` in a thread, and fails if it does not come to an end.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (done, waiting) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match waiting.recv_timeout(2 * PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// The answer to a FUSE request: bytes that the device says it wrote, error, and what follows the
/// header (`struct fuse_out_header`).
#[derive(Debug)]
struct Answer {
    written: u32,
    error: i32,
    body: Vec<u8>,
}

/// Asks one FUSE request and waits for the answer; `None` if there is none, as to what is no FUSE.
fn ask(driver: &mut Driver, request: &[u8], room: u32) -> Option<Answer> {
    let index = driver.used_index(REQUEST_QUEUE);
    let (head, at) = driver.ask(REQUEST_QUEUE, request, room);
    driver.kick(REQUEST_QUEUE);
    assert_eq!(driver.settle(REQUEST_QUEUE), Settled::Used, "a reset is asked for");
    let (used, written) = driver.used(REQUEST_QUEUE, index);
    assert_eq!(used, u32::from(head));
    assert!(written <= room, "{written} bytes into {room}");
    if written < 16 {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(written).unwrap()];
    driver.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    let error = i32::from_le_bytes(*bytes[4..].first_chunk().unwrap());
    assert_eq!(bytes[..4], written.to_le_bytes(), "the answer lies about its length");
    assert_eq!(bytes[8..16], 7u64.to_le_bytes(), "the answer to another request");
    Some(Answer { written, error, body: bytes[16..].to_vec() })
}

/// The device serves an honest driver, after a reset.
fn is_well(driver: &mut Driver) {
    driver.reset();
    driver.start(0);
    let answer = ask(driver, &init(), 200).expect("an answer to FUSE_INIT");
    assert_eq!((answer.error, &answer.body[..4]), (0, &7u32.to_le_bytes()[..]), "{answer:?}");
}

/// A share's device with guest memory that has guards around it, and what is around the share.
fn guarded_share() -> (Surroundings, guarded::Guarded, Driver) {
    let around = Surroundings::new();
    let guarded = guarded::Guarded::new();
    let driver = around.driver_in(guarded.memory());
    (around, guarded, driver)
}
