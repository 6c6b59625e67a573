//! Rings in any memory, and registers in any order.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT, Reader, Writer};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::driver::Driver;
use super::input::Input;
use crate::devices::virtio::queue::Ring;
use crate::devices::virtio::{Active, Broken, Device, Interrupt, Poller};

/// Guest memory: two pieces with a hole between, so small that a ring can lie across it.
const PIECE: usize = 0x4000;
const SECOND: u64 = 0x6000;
/// The most chains that a run takes.
const CHAINS: usize = 512;

/// A ring: its size and place, then what lies in guest memory. Every chain is read, written and
/// given back.
pub fn queue(data: &[u8]) {
    let mut input = Input::new(data);
    let Ok(mut queue) = Queue::new(1 << (input.u8() % 9)) else { return };
    let choices = input.u8();
    // Places near each other in half of the runs, anywhere in the rest.
    let mut place = || if choices & 1 == 0 { u64::from(input.u16()) } else { input.u64() };
    let (descriptors, available, used) = (place(), place(), place());
    // What is not aligned is refused, and the default stays.
    let _ = queue.try_set_desc_table_address(GuestAddress(descriptors & !0xf));
    let _ = queue.try_set_avail_ring_address(GuestAddress(available & !1));
    let _ = queue.try_set_used_ring_address(GuestAddress(used & !3));
    queue.set_event_idx(choices & 2 != 0);
    queue.set_ready(true);
    let ranges = [(GuestAddress(0), PIECE), (GuestAddress(SECOND), PIECE)];
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
    let contents = input.rest();
    let (first, second) = contents.split_at(contents.len().min(PIECE));
    memory.write_slice(first, GuestAddress(0)).unwrap();
    let second = second.get(..PIECE.min(second.len())).unwrap_or_default();
    memory.write_slice(second, GuestAddress(SECOND)).unwrap();
    let kick = EventFd::new(EFD_NONBLOCK).unwrap();
    let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap());
    if let Ok(mut ring) = Ring::new(queue, memory, kick, interrupt) {
        let _ = drain(&mut ring);
    }
}

/// Serves a ring as devices do, until it is empty or broken.
fn drain(ring: &mut Ring) -> Result<(), Broken> {
    ring.mute()?;
    let mut empty = 0;
    for _ in 0..CHAINS {
        let Some(chain) = ring.take()? else {
            // Nobody adds chains while this runs.
            empty += 1;
            assert!(empty < 3, "a ring that is empty and is not");
            if ring.unmute()? {
                continue;
            }
            return Ok(());
        };
        let head = chain.head_index();
        let memory = Arc::clone(ring.memory());
        assert!(chain.clone().count() <= usize::from(u16::MAX));
        let mut piece = [0; 64];
        if let Ok::<Reader<'_>, _>(mut reader) = chain.clone().reader(&memory) {
            let said = reader.available_bytes();
            let read = std::io::Read::read(&mut reader, &mut piece).unwrap_or(0);
            assert_eq!(reader.available_bytes() + read, said);
        }
        if let Ok::<Writer<'_>, _>(mut writer) = chain.writer(&memory) {
            let _ = std::io::Write::write(&mut writer, &piece);
        }
        ring.give_back(head, 1)?;
        ring.notify()?;
    }
    Ok(())
}

/// A device that takes whatever is in its rings.
struct Probe;

impl Device for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn kind(&self) -> u32 {
        42
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[256, 16]
    }

    fn features(&self) -> u64 {
        1 << 5
    }

    fn config(&self) -> &[u8] {
        b"configuration"
    }

    fn run(&mut self, mut active: Active) -> Result<(), Broken> {
        assert_eq!(active.features & !self.features(), 0, "features that nobody offered");
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, u64::MAX)?;
        for (token, ring) in (0..).zip(&active.rings) {
            poller.add(ring.kick_fd(), EventSet::IN, token)?;
        }
        loop {
            let mut events = [EpollEvent::default(); 1];
            poller.wait(&mut events)?;
            let index = usize::try_from(events[0].data()).unwrap_or(usize::MAX);
            let Some(ring) = active.rings.get_mut(index) else { return Ok(()) };
            ring.clear_kick();
            drain(ring)?;
        }
    }
}

/// Register accesses: what, where, how wide, which value; one in eight of them brings the device
/// up by the rules. What comes last lies in guest memory.
pub fn registers(data: &[u8]) {
    let mut driver = Driver::new(Box::new(Probe));
    let mut input = Input::new(data);
    let accesses = input.u8() % 64;
    let contents = input.bytes(usize::from(input.clone().u16()) % 0x800 + 2);
    driver.memory.write_slice(contents, GuestAddress(0x1000)).unwrap();
    for _ in 0..accesses {
        let what = input.u8();
        let offset = match what & 6 {
            0 => u64::from(input.u16()),
            _ => u64::from(input.u8()) & !3,
        };
        let width = usize::from(what >> 4) % 9;
        match what & 9 {
            0 => driver.transport.read(offset, &mut vec![0xa5; width]),
            1 => driver.transport.write(offset, input.bytes(width)),
            8 => driver.write(offset, input.u8().into()),
            _ if what & 6 == 6 => driver.start(input.u32()),
            _ => driver.write(offset, input.u32()),
        }
    }
    driver.transport.write(0x70, &[0; 4]);
    assert_eq!(driver.status(), 0);
}
