//! A driver for tests: a device behind its registers, its rings in raw memory, and chains as a
//! guest may make them, honest or not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Device;
use super::mmio::Transport;
use crate::jail::leave_free;

/// One part of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) enum Buffer<'a> {
    /// For the device to read.
    Bytes(&'a [u8]),
    /// For the device to write: so many bytes.
    Room(u32),
    /// The same, wherever the guest says.
    At(u64, u32),
}

/// Slots of each ring.
const SIZE: u16 = 64;
/// Memory of each queue: a page each for descriptors and the two rings, then buffers.
const QUEUE: u64 = 1 << 20;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const BUFFERS: u64 = 0x3000;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const NEXT: u16 = 1;
const WRITABLE: u16 = 2;

/// Where a queue stands in the driver's eyes.
#[derive(Debug, Default, Clone)]
struct Queue {
    available: u16,
    used: u16,
    /// The next free descriptor and byte.
    descriptor: u16,
    byte: u64,
    /// Of each chain by its head: the parts that the device may write.
    rooms: Vec<(u16, Vec<(u64, u32)>)>,
}

pub(super) struct Rig {
    pub(super) transport: Transport,
    pub(super) memory: Arc<GuestMemoryMmap>,
    line: EventFd,
    queues: Vec<Queue>,
}

impl Rig {
    pub(super) fn new(device: Box<dyn Device>) -> Self {
        let queues = device.queue_sizes().len();
        // Beyond the rings, a few MiB that nothing of the rig's is in.
        let size = QUEUE * (queues as u64 + 4);
        let memory = Arc::new(crate::memory::create_small(size).unwrap());
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let transport =
            Transport::new(device, Arc::clone(&memory), line.try_clone().unwrap(), leave_free)
                .unwrap();
        Self { transport, memory, line, queues: vec![Queue::default(); queues] }
    }

    /// Bytes of guest memory.
    pub(super) fn size(&self) -> u64 {
        QUEUE * (self.queues.len() as u64 + 4)
    }

    /// The first byte that is not the rig's.
    pub(super) fn free(&self) -> u64 {
        QUEUE * self.queues.len() as u64
    }

    pub(super) fn register(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Brings the device up afresh with these of its features, in as many queues as it has.
    pub(super) fn start(&mut self, features: u32) {
        self.start_with(features, self.queues.len());
    }

    pub(super) fn start_with(&mut self, features: u32, queues: usize) {
        for (offset, value) in
            [(0x70, 0), (0x70, 3), (0x24, 0), (0x20, features), (0x24, 1), (0x20, 1), (0x70, 11)]
        {
            self.write(offset, value);
        }
        assert_eq!(self.register(0x70), 11, "the features were refused");
        for index in 0..queues {
            let base = u32::try_from(QUEUE * index as u64).unwrap();
            let index = u32::try_from(index).unwrap();
            let ring = [(0x30, index), (0x38, self.size_of(index)), (0x80, base)];
            let rest = [(0x90, base + 0x1000), (0xa0, base + 0x2000), (0x44, 1)];
            ring.into_iter().chain(rest).for_each(|(offset, value)| self.write(offset, value));
            let empty = [0; 0x3000];
            self.memory.write_slice(&empty, GuestAddress(base.into())).unwrap();
        }
        self.queues.fill(Queue::default());
        let _ = self.line.read();
        self.write(0x70, 15);
    }

    fn size_of(&mut self, queue: u32) -> u32 {
        self.write(0x30, queue);
        self.register(0x34).min(SIZE.into())
    }

    fn base(queue: usize) -> u64 {
        QUEUE * queue as u64
    }

    /// Makes a chain available; the device hears of it by `kick`.
    pub(super) fn put(&mut self, index: usize, chain: &[Buffer<'_>]) {
        let slots = u16::try_from(self.size_of(u32::try_from(index).unwrap())).unwrap();
        let (base, queue) = (Self::base(index), &mut self.queues[index]);
        let head = queue.descriptor;
        let mut rooms = Vec::new();
        for (position, buffer) in chain.iter().enumerate() {
            let mut place = |length: usize| {
                // All buffers of the rig's go round in the rest of the queue's memory.
                if queue.byte + length as u64 > QUEUE - BUFFERS {
                    queue.byte = 0;
                }
                let at = base + BUFFERS + queue.byte;
                queue.byte += length as u64;
                at
            };
            let (at, length, writable) = match *buffer {
                Buffer::Bytes(bytes) => {
                    let at = place(bytes.len());
                    self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
                    (at, u32::try_from(bytes.len()).unwrap(), 0)
                }
                Buffer::Room(length) => (place(length as usize), length, WRITABLE),
                Buffer::At(at, length) => (at, length, WRITABLE),
            };
            if writable != 0 {
                rooms.push((at, length));
            }
            let slot = queue.descriptor;
            queue.descriptor = (slot + 1) % slots;
            let more = if position + 1 < chain.len() { NEXT } else { 0 };
            let descriptor = base + 16 * u64::from(slot);
            let memory = &self.memory;
            memory.write_obj(at, GuestAddress(descriptor)).unwrap();
            memory.write_obj(length, GuestAddress(descriptor + 8)).unwrap();
            memory.write_obj(writable | more, GuestAddress(descriptor + 12)).unwrap();
            memory.write_obj(queue.descriptor, GuestAddress(descriptor + 14)).unwrap();
        }
        queue.rooms.push((head, rooms));
        let slot = base + AVAILABLE + 4 + 2 * u64::from(queue.available % slots);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        queue.available = queue.available.wrapping_add(1);
        let index = GuestAddress(base + AVAILABLE + 2);
        self.memory.write_obj(queue.available, index).unwrap();
    }

    pub(super) fn kick(&mut self, queue: usize) {
        self.write(0x50, u32::try_from(queue).unwrap());
    }

    /// How many chains the device has given back that `used` has not taken.
    pub(super) fn waiting(&self, queue: usize) -> usize {
        let index = GuestAddress(Self::base(queue) + USED + 2);
        let used: u16 = self.memory.read_obj(index).unwrap();
        used.wrapping_sub(self.queues[queue].used).into()
    }

    /// Waits for `count` chains to come back; what the device wrote into each.
    pub(super) fn used(&mut self, index: usize, count: usize) -> Vec<Vec<u8>> {
        let started = Instant::now();
        while self.waiting(index) < count {
            assert_eq!(self.register(0x70) & 64, 0, "the device asks for a reset");
            assert!(started.elapsed() < PATIENCE, "{} came back", self.waiting(index));
            std::thread::sleep(Duration::from_micros(200));
        }
        (0..count).map(|_| self.take(index)).collect()
    }

    fn take(&mut self, index: usize) -> Vec<u8> {
        let slots = u16::try_from(self.size_of(u32::try_from(index).unwrap())).unwrap();
        let queue = &mut self.queues[index];
        let at = Self::base(index) + USED + 4 + 8 * u64::from(queue.used % slots);
        queue.used = queue.used.wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let mut left: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        let chain = queue.rooms.iter().position(|(of, _)| u32::from(*of) == head).unwrap();
        let (_, rooms) = queue.rooms.remove(chain);
        let mut written = Vec::new();
        for (at, length) in rooms {
            let mut part = vec![0; length.min(left) as usize];
            self.memory.read_slice(&mut part, GuestAddress(at)).unwrap();
            left -= length.min(left);
            written.extend(part);
        }
        assert_eq!(left, 0, "more was used than there was room for");
        written
    }

    /// Whether the device raised its interrupt since this was last asked.
    pub(super) fn interrupted(&self) -> bool {
        self.line.read().is_ok()
    }

    /// Waits until something is true.
    pub(super) fn until(&mut self, mut is_true: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        while !is_true(self) {
            assert!(started.elapsed() < PATIENCE, "it never came true");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(super) fn asks_reset(&mut self) {
        self.until(|rig| rig.register(0x70) & 64 != 0);
    }
}
