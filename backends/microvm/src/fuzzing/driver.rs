//! A driver that knows the rules of virtio, so that whoever holds it can break one at a time.
//!
//! Guest memory is 1 MiB at 0, a hole of 1 MiB, and 64 KiB behind it. Each queue has 64 entries or
//! fewer, its parts in 4 KiB from `RINGS` on; buffers come after them.
// Some of it is only for `crate::hostile`, which is not there when fuzzing.
#![cfg_attr(not(test), allow(dead_code))]

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::devices::virtio::Device;
use crate::devices::virtio::mmio::Transport;

/// Guest memory below the hole, in bytes.
pub(crate) const LOW: u64 = 1 << 20;
/// Where memory goes on behind the hole.
pub(crate) const HIGH: u64 = 2 << 20;
/// Bytes of memory behind the hole.
pub(crate) const HIGH_SIZE: usize = 64 << 10;
const RINGS: u64 = 0x1000;
const RING_SIZE: u64 = 0x1000;
/// Where the parts of a queue's 4 KiB lie.
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
/// The most entries of a queue here.
pub(crate) const ENTRIES: u16 = 64;
const BUFFERS: u64 = 0x1_0000;
/// How long a device may take for anything, on a machine that is busy otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Descriptor flags (virtio 1.2, 2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Registers (table 4.1) that tests write in unusual order.
pub(crate) mod register {
    pub(crate) const QUEUE_SEL: u64 = 0x30;
    pub(crate) const QUEUE_NUM_MAX: u64 = 0x34;
    pub(crate) const QUEUE_NUM: u64 = 0x38;
    pub(crate) const QUEUE_READY: u64 = 0x44;
    pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
    pub(crate) const STATUS: u64 = 0x70;
    pub(crate) const QUEUE_DESC: u64 = 0x80;
    pub(crate) const QUEUE_DRIVER: u64 = 0x90;
    pub(crate) const QUEUE_DEVICE: u64 = 0xa0;
}
const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SEL: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
/// Status: all that a driver sets, and what the device sets when it gave up.
pub(crate) const LIVE: u32 = 15;
pub(crate) const NEEDS_RESET: u32 = 64;

/// One descriptor: address, length, flags, next (virtio 1.2, 2.7.5).
pub(crate) type Descriptor = (u64, u32, u16, u16);

/// How a device ended what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Every chain came back.
    Used,
    /// The device asked for a reset.
    NeedsReset,
}

#[derive(Debug, Clone, Copy, Default)]
struct Queue {
    entries: u16,
    next_descriptor: u16,
    available: u16,
}

/// The driver's side of one device.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) transport: Transport,
    line: EventFd,
    lines: Epoll,
    queues: Vec<Queue>,
    next_buffer: u64,
}

/// The memory that a driver has when nobody gives it another.
pub(crate) fn memory() -> Arc<GuestMemoryMmap> {
    let low = usize::try_from(LOW).unwrap_or_default();
    let ranges = [(GuestAddress(0), low), (GuestAddress(HIGH), HIGH_SIZE)];
    Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap())
}

impl Driver {
    pub(crate) fn new(device: Box<dyn Device>) -> Self {
        Self::with_memory(device, memory())
    }

    pub(crate) fn with_memory(device: Box<dyn Device>, memory: Arc<GuestMemoryMmap>) -> Self {
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let lines = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        lines.ctl(ControlOperation::Add, line.as_raw_fd(), event).unwrap();
        let queues = device
            .queue_sizes()
            .iter()
            .map(|&size| Queue { entries: size.min(ENTRIES), ..Queue::default() })
            .collect();
        let transport = Transport::new(
            device,
            Arc::clone(&memory),
            line.try_clone().unwrap(),
            crate::jail::leave_free,
        )
        .unwrap();
        Self { memory, transport, line, lines, queues, next_buffer: BUFFERS }
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub(crate) fn status(&self) -> u32 {
        self.read(register::STATUS)
    }

    /// Takes version 1 and these features of the first 32.
    pub(crate) fn negotiate(&mut self, features: u32) {
        self.write(register::STATUS, 1);
        self.write(register::STATUS, 3);
        self.write(DRIVER_FEATURES_SEL, 0);
        self.write(DRIVER_FEATURES, features);
        self.write(DRIVER_FEATURES_SEL, 1);
        self.write(DRIVER_FEATURES, 1);
        self.write(register::STATUS, 11);
    }

    /// The first 32 features that the device offers.
    pub(crate) fn offered(&mut self) -> u32 {
        self.write(DEVICE_FEATURES_SEL, 0);
        self.read(DEVICE_FEATURES)
    }

    /// Where descriptors, available and used ring of a queue are.
    pub(crate) fn rings(queue: usize) -> (u64, u64, u64) {
        let start = RINGS + RING_SIZE * u64::try_from(queue).unwrap_or_default();
        (start, start + AVAILABLE, start + USED)
    }

    pub(crate) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Tells the device where a queue is.
    pub(crate) fn place(&mut self, queue: usize, (descriptors, available, used): (u64, u64, u64)) {
        self.write(register::QUEUE_SEL, u32::try_from(queue).unwrap_or_default());
        self.write(register::QUEUE_NUM, self.queues[queue].entries.into());
        for (register, address) in [
            (register::QUEUE_DESC, descriptors),
            (register::QUEUE_DRIVER, available),
            (register::QUEUE_DEVICE, used),
        ] {
            self.write(register, u32::try_from(address & 0xffff_ffff).unwrap_or_default());
            self.write(register + 4, u32::try_from(address >> 32).unwrap_or_default());
        }
        self.write(register::QUEUE_READY, 1);
    }

    /// Brings the device up as Linux does.
    pub(crate) fn start(&mut self, features: u32) {
        self.negotiate(features);
        for queue in 0..self.queues.len() {
            self.place(queue, Self::rings(queue));
        }
        self.write(register::STATUS, LIVE);
    }

    /// Resets the device, empties the rings, and checks that it is as new.
    pub(crate) fn reset(&mut self) {
        self.write(register::STATUS, 0);
        assert_eq!(self.status(), 0, "a reset leaves nothing");
        for queue in 0..self.queues.len() {
            let (start, ..) = Self::rings(queue);
            self.memory.write_slice(&[0; 0x1000], GuestAddress(start)).unwrap();
            self.queues[queue] = Queue { entries: self.queues[queue].entries, ..Queue::default() };
        }
        self.next_buffer = BUFFERS;
    }

    /// A fresh buffer of guest memory. They come round again when there are no more.
    pub(crate) fn buffer(&mut self, length: u64) -> u64 {
        if self.next_buffer + length > LOW {
            self.next_buffer = BUFFERS;
        }
        let at = self.next_buffer;
        self.next_buffer += length.next_multiple_of(16);
        at
    }

    /// Makes a chain available, and returns its head. Descriptors that say `NEXT` get the next index.
    pub(crate) fn push(&mut self, queue: usize, chain: &[Descriptor]) -> u16 {
        let (table, ..) = Self::rings(queue);
        let entries = self.queues[queue].entries;
        let head = self.queues[queue].next_descriptor;
        for &(address, length, flags, next) in chain {
            let index = self.queues[queue].next_descriptor;
            let following = (index + 1) % entries;
            self.queues[queue].next_descriptor = following;
            let next = if flags & NEXT != 0 && next == 0 { following } else { next };
            self.describe(table, index, (address, length, flags, next));
        }
        self.offer(queue, head);
        head
    }

    /// Writes descriptor `index` of a table.
    pub(crate) fn describe(&self, table: u64, index: u16, descriptor: Descriptor) {
        let at = table + 16 * u64::from(index);
        let (address, length, flags, next) = descriptor;
        self.memory.write_obj(address, GuestAddress(at)).unwrap();
        self.memory.write_obj(length, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    /// Puts a head into the available ring.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let (_, available, _) = Self::rings(queue);
        let state = &mut self.queues[queue];
        let slot = u64::from(state.available % state.entries);
        self.memory.write_obj(head, GuestAddress(available + 4 + 2 * slot)).unwrap();
        state.available = state.available.wrapping_add(1);
        let index = state.available;
        self.set_available(queue, index);
    }

    /// Says that the available ring goes to `index`.
    pub(crate) fn set_available(&mut self, queue: usize, index: u16) {
        let (_, available, _) = Self::rings(queue);
        self.queues[queue].available = index;
        self.memory.write_obj(index, GuestAddress(available + 2)).unwrap();
    }

    /// A chain of `request` and room for an answer of `room` bytes; where the answer will be.
    pub(crate) fn ask(&mut self, queue: usize, request: &[u8], room: u32) -> (u16, u64) {
        let length = u32::try_from(request.len()).unwrap_or_default();
        let at = self.buffer(u64::from(length));
        self.memory.write_slice(request, GuestAddress(at)).unwrap();
        let answer = self.buffer(u64::from(room));
        let head = self.push(queue, &[(at, length, NEXT, 0), (answer, room, WRITE, 0)]);
        (head, answer)
    }

    pub(crate) fn kick(&mut self, queue: usize) {
        self.write(register::QUEUE_NOTIFY, u32::try_from(queue).unwrap_or_default());
    }

    /// How far the used ring goes.
    pub(crate) fn used_index(&self, queue: usize) -> u16 {
        let (_, _, used) = Self::rings(queue);
        self.memory.read_obj(GuestAddress(used + 2)).unwrap()
    }

    /// The entry `index` of the used ring: head and bytes written.
    pub(crate) fn used(&self, queue: usize, index: u16) -> (u32, u32) {
        let (_, _, used) = Self::rings(queue);
        let slot = u64::from(index % self.queues[queue].entries);
        let at = used + 4 + 8 * slot;
        let head = self.memory.read_obj(GuestAddress(at)).unwrap();
        (head, self.memory.read_obj(GuestAddress(at + 4)).unwrap())
    }

    /// Waits until the device gave back all chains of `queue`, or asked for a reset.
    pub(crate) fn settle(&self, queue: usize) -> Settled {
        let started = Instant::now();
        loop {
            if self.status() & NEEDS_RESET != 0 {
                return Settled::NeedsReset;
            }
            if self.used_index(queue) == self.queues[queue].available {
                return Settled::Used;
            }
            assert!(started.elapsed() < PATIENCE, "the device hangs");
            self.wait_for_interrupt();
        }
    }

    /// Waits for the device to end by itself with a request for a reset.
    pub(crate) fn fails(&self) {
        let started = Instant::now();
        while self.status() & NEEDS_RESET == 0 {
            assert!(started.elapsed() < PATIENCE, "no reset is asked for");
            self.wait_for_interrupt();
        }
    }

    /// The device interrupts after what it gives back; a look now and then is for those that don't.
    fn wait_for_interrupt(&self) {
        let mut events = [EpollEvent::default()];
        match self.lines.wait(2, &mut events) {
            Ok(_) => {}
            // A stop and a continuation, and libFuzzer's alarm.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("wait for an interrupt: {error}"),
        }
        // Fails when there was none.
        let _ = self.line.read();
    }
}
