//! Rings and registers fed by a driver that knows no rules, over raw guest memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::fs::Fs;
use super::mmio::Transport;
use super::queue::Ring;
use super::{Device, Interrupt};
use crate::jail::leave_free;

const MEMORY: u64 = 1 << 20;
const SIZE: u16 = 16;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;

/// One descriptor: address, length, flags, next (virtio 1.2, 2.7.5).
type Descriptor = (u64, u32, u16, u16);

fn memory() -> Arc<GuestMemoryMmap> {
    Arc::new(crate::memory::create_small(MEMORY).unwrap())
}

fn write_descriptors(memory: &GuestMemoryMmap, descriptors: &[Descriptor]) {
    for (index, &(address, length, flags, next)) in descriptors.iter().enumerate() {
        let at = DESCRIPTORS + 16 * index as u64;
        memory.write_obj(address, GuestAddress(at)).unwrap();
        memory.write_obj(length, GuestAddress(at + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }
}

fn write_available(memory: &GuestMemoryMmap, index: u16, heads: &[u16]) {
    memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
    for (slot, head) in heads.iter().enumerate() {
        memory.write_obj(*head, GuestAddress(AVAILABLE + 4 + 2 * slot as u64)).unwrap();
    }
}

fn descriptors() -> impl Strategy<Value = Vec<Descriptor>> {
    let address = prop_oneof![0..MEMORY, any::<u64>()];
    let length = prop_oneof![0..5000u32, any::<u32>()];
    let one = (address, length, 0..8u16, 0..20u16);
    proptest::collection::vec(one, usize::from(SIZE))
}

proptest! {
    /// Whatever lies in the ring, a device ends with it: chains of bounded length, or an error.
    #[test]
    fn a_ring_of_nonsense_ends(
        descriptors in descriptors(),
        index in any::<u16>(),
        heads in proptest::collection::vec(0..20u16, usize::from(SIZE)),
        event_index in any::<bool>(),
    ) {
        let memory = memory();
        write_descriptors(&memory, &descriptors);
        write_available(&memory, index, &heads);
        let mut queue = Queue::new(SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(DESCRIPTORS)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_event_idx(event_index);
        queue.set_ready(true);
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let mut ring = Ring::new(queue, memory, kick, interrupt).unwrap();
        let mut chains = 0;
        while let Ok(Some(chain)) = ring.take() {
            chains += 1;
            prop_assert!(chains <= SIZE);
            let head = chain.head_index();
            // An indirect table may be longer than the ring, but no longer than 16 bits count.
            prop_assert!(chain.count() <= usize::from(u16::MAX));
            if ring.give_back(head, 0).is_err() {
                break;
            }
            ring.notify().unwrap();
        }
    }

    /// Any register access in any order: no panic, and a device that can be reset at the end.
    #[test]
    fn any_register_access_leaves_a_device_that_resets(
        accesses in proptest::collection::vec(
            (prop_oneof![0..0x40u64, 0..0x200u64], 0..9usize, any::<bool>(),
             prop_oneof![0..16u32, any::<u32>()]),
            1..200,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut transport = transport(Box::new(Fs::new("moat", dir.path()).unwrap()), memory());
        for (word, length, write, value) in accesses {
            let bytes = [value.to_le_bytes(), value.to_le_bytes()].concat();
            if write {
                transport.write(word * 4, &bytes[..length]);
            } else {
                transport.read(word * 4, &mut vec![0; length]);
            }
        }
        transport.write(0x70, &0u32.to_le_bytes());
        prop_assert_eq!(register(&transport, 0x70), 0);
    }
}

/// A FUSE request's header: length, operation, unique, node, then whose it is (Linux
/// include/uapi/linux/fuse.h, `struct fuse_in_header`).
fn fuse_header(length: u32, operation: u32, node: u64) -> Vec<u8> {
    let mut bytes = [length.to_le_bytes(), operation.to_le_bytes()].concat();
    bytes.extend(7u64.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    bytes.extend([0; 16]);
    bytes
}

const WRITABLE: u16 = 2;
const NEXT: u16 = 1;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any FUSE requests: each is answered or dropped, and the server lives.
    #[test]
    fn hostile_fuse_requests_are_answered_or_dropped(
        requests in proptest::collection::vec(
            (0..60u32, 0..4u64, prop_oneof![40..200u32, any::<u32>()],
             proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()],
                                       0..160),
             0..8000u32),
            1..SIZE.into(),
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"text").unwrap();
        let memory = memory();
        let mut transport =
            transport(Box::new(Fs::new("moat", dir.path()).unwrap()), Arc::clone(&memory));
        let mut descriptors = Vec::new();
        let mut heads = Vec::new();
        for (index, (operation, node, length, body, room)) in (0u16..).zip(&requests) {
            let at = 0x1_0000 + 0x1000 * u64::from(index);
            let request = [fuse_header(*length, *operation, *node), body.clone()].concat();
            memory.write_slice(&request, GuestAddress(at)).unwrap();
            let size = u32::try_from(request.len()).unwrap();
            let head = index * 2 % SIZE;
            descriptors.push((at, size, NEXT, head + 1));
            descriptors.push((0x8_0000, *room, WRITABLE, 0));
            heads.push(head);
            if descriptors.len() == usize::from(SIZE) {
                break;
            }
        }
        write_descriptors(&memory, &descriptors);
        write_available(&memory, u16::try_from(heads.len()).unwrap(), &heads);
        start(&mut transport, 2);
        transport.write(0x50, &0u32.to_le_bytes());
        let done = || memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap();
        let started = Instant::now();
        while usize::from(done()) < heads.len() {
            prop_assert_eq!(register(&transport, 0x70) & 64, 0);
            prop_assert!(started.elapsed() < Duration::from_secs(20), "the server hangs");
            std::thread::sleep(Duration::from_micros(100));
        }
        transport.write(0x70, &0u32.to_le_bytes());
        prop_assert_eq!(register(&transport, 0x70), 0);
    }
}

fn transport(device: Box<dyn Device>, memory: Arc<GuestMemoryMmap>) -> Transport {
    let line = EventFd::new(EFD_NONBLOCK).unwrap();
    Transport::new(device, memory, line, leave_free).unwrap()
}

fn register(transport: &Transport, offset: u64) -> u32 {
    let mut word = [0; 4];
    transport.read(offset, &mut word);
    u32::from_le_bytes(word)
}

/// Brings a device up as Linux does, with its first queue at the addresses above.
fn start(transport: &mut Transport, queues: u32) {
    let mut write = |offset: u64, value: u32| transport.write(offset, &value.to_le_bytes());
    write(0x70, 1);
    write(0x70, 3);
    write(0x24, 1);
    write(0x20, 1);
    write(0x70, 11);
    for queue in 0..queues {
        let offset = 0x4000 * queue;
        write(0x30, queue);
        write(0x38, SIZE.into());
        write(0x80, u32::try_from(DESCRIPTORS).unwrap() + offset);
        write(0x90, u32::try_from(AVAILABLE).unwrap() + offset);
        write(0xa0, u32::try_from(USED).unwrap() + offset);
        write(0x44, 1);
    }
    write(0x70, 15);
}

#[test]
fn a_device_negotiates_runs_and_resets() {
    let dir = tempfile::tempdir().unwrap();
    let mut transport = transport(Box::new(Fs::new("moat", dir.path()).unwrap()), memory());
    assert_eq!(register(&transport, 0), 0x7472_6976);
    assert_eq!((register(&transport, 4), register(&transport, 8)), (2, 26));
    for _ in 0..3 {
        start(&mut transport, 2);
        assert_eq!(register(&transport, 0x70), 15);
        transport.write(0x70, &0u32.to_le_bytes());
        assert_eq!(register(&transport, 0x70), 0);
    }
}

#[test]
fn features_we_did_not_offer_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut transport = transport(Box::new(Fs::new("moat", dir.path()).unwrap()), memory());
    transport.write(0x70, &3u32.to_le_bytes());
    transport.write(0x24, &1u32.to_le_bytes());
    transport.write(0x20, &3u32.to_le_bytes());
    transport.write(0x70, &11u32.to_le_bytes());
    assert_eq!(register(&transport, 0x70), 3);
}

#[test]
fn a_broken_ring_asks_for_a_reset_and_a_reset_repairs_it() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory();
    let device = Box::new(Fs::new("moat", dir.path()).unwrap());
    let mut transport = transport(device, Arc::clone(&memory));
    // More available than the ring has room for.
    write_available(&memory, 1000, &[]);
    start(&mut transport, 2);
    transport.write(0x50, &0u32.to_le_bytes());
    let started = Instant::now();
    while register(&transport, 0x70) & 64 == 0 {
        assert!(started.elapsed() < Duration::from_secs(5), "no reset was asked for");
        std::thread::sleep(Duration::from_millis(1));
    }
    transport.write(0x70, &0u32.to_le_bytes());
    write_available(&memory, 0, &[]);
    start(&mut transport, 2);
    assert_eq!(register(&transport, 0x70), 15);
    transport.stop();
}

#[test]
fn rings_outside_memory_do_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let small = Arc::new(crate::memory::create_small(0x2000).unwrap());
    let mut transport = transport(Box::new(Fs::new("moat", dir.path()).unwrap()), small);
    start(&mut transport, 2);
    assert_ne!(register(&transport, 0x70) & 64, 0);
}
