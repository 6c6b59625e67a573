//! A driver for tests: brings a device up over raw guest memory, and makes chains that follow the
//! rules or break them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Device;
use super::mmio::Transport;
use crate::jail::leave_free;

/// Descriptor flags (virtio 1.2, 2.7.5).
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Chains in each queue.
pub(super) const SIZE: u16 = 16;
/// Memory for the test's own buffers begins here; all before is the queues'.
pub(super) const FREE: u64 = 0x1_0000;
pub(super) const MEMORY: u64 = 4 << 20;

/// Each queue has three pages, at 0x1000 and after.
fn descriptors(queue: u32) -> u64 {
    0x1000 + 0x3000 * u64::from(queue)
}

fn available(queue: u32) -> u64 {
    descriptors(queue) + 0x1000
}

fn used(queue: u32) -> u64 {
    descriptors(queue) + 0x2000
}

/// One descriptor: address, length, flags, next (virtio 1.2, 2.7.5).
pub(super) type Descriptor = (u64, u32, u16, u16);

pub(super) struct Driver {
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) transport: Transport,
    pub(super) line: EventFd,
    queues: u32,
    /// Of each queue: chains made available, chains seen used, the next free descriptor.
    state: Vec<(u16, u16, u16)>,
}

impl Driver {
    /// A driver of `device`, which is not started.
    pub(super) fn new(device: Box<dyn Device>) -> Self {
        let memory = Arc::new(crate::memory::create_small(MEMORY).unwrap());
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let queues = u32::try_from(device.queue_sizes().len()).unwrap();
        let transport =
            Transport::new(device, Arc::clone(&memory), line.try_clone().unwrap(), leave_free)
                .unwrap();
        let state = vec![(0, 0, 0); usize::try_from(queues).unwrap()];
        Self { memory, transport, line, queues, state }
    }

    /// A driver that has started `device`, with those of its own `features`.
    pub(super) fn started(device: Box<dyn Device>, features: u64) -> Self {
        let mut driver = Self::new(device);
        driver.start(features);
        driver
    }

    pub(super) fn register(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Resets the device, and starts it with clean queues.
    pub(super) fn start(&mut self, features: u64) {
        self.reset();
        for queue in 0..self.queues {
            self.memory.write_slice(&[0; 0x3000], GuestAddress(descriptors(queue))).unwrap();
        }
        self.state.fill((0, 0, 0));
        self.write(0x70, 3);
        for (half, select) in [(features & 0xffff_ffff, 0), (features >> 32 | 1, 1)] {
            self.write(0x24, select);
            self.write(0x20, u32::try_from(half).unwrap());
        }
        self.write(0x70, 11);
        assert_eq!(self.register(0x70), 11, "the device refuses the features");
        for queue in 0..self.queues {
            self.write(0x30, queue);
            self.write(0x38, SIZE.into());
            self.write(0x80, u32::try_from(descriptors(queue)).unwrap());
            self.write(0x90, u32::try_from(available(queue)).unwrap());
            self.write(0xa0, u32::try_from(used(queue)).unwrap());
            self.write(0x44, 1);
        }
        self.write(0x70, 15);
        assert_eq!(self.register(0x70), 15);
    }

    pub(super) fn reset(&mut self) {
        self.write(0x70, 0);
        assert_eq!(self.register(0x70), 0);
    }

    /// The device asked for a reset.
    pub(super) fn broken(&self) -> bool {
        self.register(0x70) & 64 != 0
    }

    pub(super) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(super) fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Writes one descriptor of a queue's table.
    pub(super) fn descriptor(&self, queue: u32, index: u16, descriptor: Descriptor) {
        self.put(descriptors(queue) + 16 * u64::from(index), &bytes_of(descriptor));
    }

    /// Makes the chain that begins at `head` available, without a kick.
    pub(super) fn offer(&mut self, queue: u32, head: u16) {
        let at = available(queue);
        let state = &mut self.state[usize::try_from(queue).unwrap()];
        self.memory.write_obj(head, GuestAddress(at + 4 + 2 * u64::from(state.0 % SIZE))).unwrap();
        state.0 = state.0.wrapping_add(1);
        self.set_available(queue, self.state[usize::try_from(queue).unwrap()].0);
    }

    /// Says how many chains were made available ever.
    pub(super) fn set_available(&self, queue: u32, index: u16) {
        self.memory.write_obj(index, GuestAddress(available(queue) + 2)).unwrap();
    }

    pub(super) fn kick(&mut self, queue: u32) {
        self.write(0x50, queue);
    }

    /// Makes a chain of `pieces` (address, length, flags without NEXT) available, and returns its
    /// head.
    pub(super) fn chain(&mut self, queue: u32, pieces: &[(u64, u32, u16)]) -> u16 {
        let first = self.state[usize::try_from(queue).unwrap()].2;
        let mut next = first;
        for (index, &(address, length, flags)) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let here = next;
            next = (next + 1) % SIZE;
            let flags = flags | if last { 0 } else { NEXT };
            self.descriptor(queue, here, (address, length, flags, next));
        }
        self.state[usize::try_from(queue).unwrap()].2 = next;
        self.offer(queue, first);
        first
    }

    /// How many chains the device gave back ever.
    pub(super) fn used_count(&self, queue: u32) -> u16 {
        self.memory.read_obj(GuestAddress(used(queue) + 2)).unwrap()
    }

    /// The next chain that the device gives back: head and bytes written. Waits for it.
    pub(super) fn used(&mut self, queue: u32) -> (u16, u32) {
        self.used_within(queue, Duration::from_secs(10)).expect("the device gives nothing back")
    }

    pub(super) fn used_within(&mut self, queue: u32, limit: Duration) -> Option<(u16, u32)> {
        let seen = self.state[usize::try_from(queue).unwrap()].1;
        if !wait(limit, || self.used_count(queue) != seen) {
            return None;
        }
        let at = used(queue) + 4 + 8 * u64::from(seen % SIZE);
        self.state[usize::try_from(queue).unwrap()].1 = seen.wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        Some((u16::try_from(head).unwrap(), self.memory.read_obj(GuestAddress(at + 4)).unwrap()))
    }

    /// Waits until the device asks for a reset.
    pub(super) fn wait_broken(&self) {
        assert!(wait(Duration::from_secs(10), || self.broken()), "no reset was asked for");
    }
}

/// A descriptor as it lies in memory.
pub(super) fn bytes_of((address, length, flags, next): Descriptor) -> Vec<u8> {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    bytes
}

/// True once `done` is, false after `limit`.
pub(super) fn wait(limit: Duration, done: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    true
}
