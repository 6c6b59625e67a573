//! virtio-rng (virtio 1.2, section 5.4): randomness from the host's kernel.
//!
//! A guest that asks without end keeps this one thread busy, which its cgroup limits, and nothing
//! else: the host's generator does not run dry (getrandom(2)).
//!
//! Calls: epoll_create1, epoll_ctl, epoll_wait, getrandom, read, write, close.

use std::io::{self, Write};
use std::os::fd::AsRawFd;

use virtio_queue::Writer;
use vmm_sys_util::epoll::{EpollEvent, EventSet};

use super::{Active, Broken, Device, Poller};

/// Section 5.4.1.
const KIND: u32 = 4;
/// Section 5.4.2.
const QUEUES: [u16; 1] = [64];
/// The most bytes that one buffer gets; a driver must do with fewer than it has room for (5.4.6).
const MAX_BYTES: usize = 4 << 10;
/// Buffers filled before the stop signal is looked at again.
const BATCH: usize = 16;

const REQUEST_TOKEN: u64 = 0;
const STOP_TOKEN: u64 = 1;

/// The entropy device.
#[derive(Debug, Default)]
pub struct Rng;

impl Device for Rng {
    fn name(&self) -> &'static str {
        "virtio-rng"
    }

    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn run(&mut self, mut active: Active) -> Result<(), Broken> {
        let [requests] = active.rings.as_mut_slice() else {
            return Err(virtio_queue::Error::QueueNotReady.into());
        };
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, STOP_TOKEN)?;
        poller.add(requests.kick_fd(), EventSet::IN, REQUEST_TOKEN)?;
        let mut events = [EpollEvent::default(); 2];
        let mut bytes = [0; MAX_BYTES];
        loop {
            requests.serve(BATCH, |memory, chain| {
                let mut writer: Writer<'_> = chain.writer(memory)?;
                let room = writer.available_bytes().min(MAX_BYTES);
                let bytes = bytes.get_mut(..room).unwrap_or_default();
                getrandom::fill(bytes).map_err(io::Error::from)?;
                let broken = |_| Broken::Buffer { reason: "not in memory".to_owned() };
                writer.write_all(bytes).map_err(broken)?;
                Ok(u32::try_from(room).unwrap_or(0))
            })?;
            let ready = poller.wait(&mut events)?;
            let ready = events.get(..ready).unwrap_or_default();
            if ready.iter().any(|event| event.data() == STOP_TOKEN) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{Buffer, Rig};
    use super::*;

    #[test]
    fn each_buffer_is_filled_with_other_bytes_and_none_beyond_its_bound() {
        let mut rig = Rig::new(Box::new(Rng));
        rig.start(0);
        rig.put(0, &[Buffer::Room(64)]);
        rig.put(0, &[Buffer::Room(64), Buffer::Room(100)]);
        rig.put(0, &[Buffer::Room(8000)]);
        rig.kick(0);
        let filled = rig.used(0, 3);
        assert_eq!(filled.iter().map(Vec::len).collect::<Vec<_>>(), [64, 164, MAX_BYTES]);
        assert!(filled[0] != filled[1][..64] && filled[2][..64] != filled[0]);
        let zeros = filled[2].iter().filter(|byte| **byte == 0).count();
        assert!(zeros < 200, "{zeros} of 4096 bytes are 0");
    }

    #[test]
    fn buffers_without_room_are_given_back_and_more_than_a_batch_is_served() {
        let mut rig = Rig::new(Box::new(Rng));
        rig.start(0);
        for _ in 0..BATCH {
            rig.put(0, &[Buffer::Bytes(b"not for writing")]);
            rig.put(0, &[Buffer::Room(3)]);
        }
        rig.kick(0);
        let used = rig.used(0, 2 * BATCH);
        assert!(used.iter().step_by(2).all(Vec::is_empty));
        assert!(used.iter().skip(1).step_by(2).all(|bytes| bytes.len() == 3));
    }

    #[test]
    fn a_buffer_outside_memory_asks_for_a_reset() {
        let mut rig = Rig::new(Box::new(Rng));
        for address in [rig.size(), u64::MAX - 10, 1 << 40] {
            rig.start(0);
            rig.put(0, &[Buffer::At(address, 64)]);
            rig.kick(0);
            rig.asks_reset();
        }
    }
}
