//! One virtqueue as a device uses it: take a chain, give it back, tell the driver when it asked.

use std::io;
use std::num::Wrapping;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::buffers::Buffers;
use super::{Broken, Interrupt};

/// The flag in the available ring of a driver that looks by itself (2.7.6).
const NO_INTERRUPT: u16 = 1;

/// A chain of buffers that the driver made available.
pub type Chain = DescriptorChain<Arc<GuestMemoryMmap>>;

/// A chain's buffers, as they follow each other.
#[derive(Debug)]
pub(super) struct Parts {
    /// What the device gives back when it is done.
    pub(super) head: u16,
    /// What the driver says.
    pub(super) readable: Buffers,
    /// Where the device answers.
    pub(super) writable: Buffers,
}

impl Parts {
    /// Looks through `chain`.
    ///
    /// # Errors
    /// When a buffer lies outside memory, there are too many, or one to read follows one to write
    /// (2.7.4.2).
    pub(super) fn of(chain: Chain, memory: &Arc<GuestMemoryMmap>) -> Result<Self, Broken> {
        let head = chain.head_index();
        let mut readable = Buffers::new(Arc::clone(memory));
        let mut writable = Buffers::new(Arc::clone(memory));
        let mut answers = false;
        for descriptor in chain {
            if descriptor.is_write_only() {
                answers = true;
                writable.push(descriptor.addr(), descriptor.len())?;
            } else if answers {
                let reason = "a buffer to read after one to write".to_owned();
                return Err(Broken::Buffer { reason });
            } else {
                readable.push(descriptor.addr(), descriptor.len())?;
            }
        }
        Ok(Self { head, readable, writable })
    }
}

/// A virtqueue in use.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    memory: Arc<GuestMemoryMmap>,
    kick: EventFd,
    interrupt: Arc<Interrupt>,
    /// What the used index was when the driver was last told, or was found not to ask.
    told: Wrapping<u16>,
}

impl Ring {
    /// A ring of a queue that the driver has set up.
    ///
    /// # Errors
    /// When the queue is not ready or any of it lies outside guest memory (layout: 2.7).
    pub fn new(
        queue: Queue,
        memory: Arc<GuestMemoryMmap>,
        kick: EventFd,
        interrupt: Arc<Interrupt>,
    ) -> Result<Self, Broken> {
        // The queue's own check looks at the end of each part alone.
        let size = usize::from(queue.size());
        let parts = [
            (queue.desc_table(), 16 * size),
            (queue.avail_ring(), 6 + 2 * size),
            (queue.used_ring(), 6 + 8 * size),
        ];
        let lies_in_memory = |(start, length)| memory.check_range(GuestAddress(start), length);
        if !queue.ready() || !parts.into_iter().all(lies_in_memory) {
            return Err(virtio_queue::Error::QueueNotReady.into());
        }
        let told = Wrapping(queue.next_used());
        Ok(Self { queue, memory, kick, interrupt, told })
    }

    /// Readable when the driver has something for the device.
    #[must_use]
    pub fn kick_fd(&self) -> i32 {
        self.kick.as_raw_fd()
    }

    /// How many chains there can be in the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// Forgets a kick; the ring is then to be looked through.
    pub fn clear_kick(&self) {
        // Fails only when there was none.
        let _ = self.kick.read();
    }

    /// Makes `kick_fd` readable, to come back to a ring that was left with chains in it.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn kick_again(&self) -> io::Result<()> {
        self.kick.write(1)
    }

    /// The next chain, if the driver made one available.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn take(&mut self) -> Result<Option<Chain>, Broken> {
        Ok(self.queue.iter(Arc::clone(&self.memory))?.next())
    }

    /// Puts back the chain that `take` gave last, unused.
    pub fn put_back(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back with `written` bytes in it. The driver hears of it by `notify`.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn give_back(&mut self, head: u16, written: u32) -> Result<(), Broken> {
        Ok(self.queue.add_used(self.memory.as_ref(), head, written)?)
    }

    /// Gives back several chains, of which the driver sees all or none: the buffers of one packet
    /// (5.1.6.4).
    ///
    /// # Errors
    /// When the ring is broken.
    pub(super) fn give_back_together(&mut self, chains: &[(u16, u32)]) -> Result<(), Broken> {
        let size = self.queue.size();
        let ring = self.queue.used_ring();
        let mut next = Wrapping(self.queue.next_used());
        for (head, written) in chains {
            // Flags and index, and elements of 8 bytes (2.7.8).
            let at = ring + 4 + 8 * u64::from(next.0 % size);
            let element = (u64::from(*written) << 32) | u64::from(*head);
            let result = self.memory.write_obj(element.to_le(), GuestAddress(at));
            result.map_err(virtio_queue::Error::GuestMemory)?;
            next += 1;
        }
        let result = self.memory.store(next.0.to_le(), GuestAddress(ring + 2), Ordering::Release);
        result.map_err(virtio_queue::Error::GuestMemory)?;
        self.queue.set_next_used(next.0);
        Ok(())
    }

    /// Answers what is there, up to `batch` chains, and comes back to the rest by a kick of its
    /// own. `answer` returns how many bytes it wrote into the chain.
    ///
    /// # Errors
    /// When the ring is broken, or `answer` says so.
    pub fn serve(
        &mut self,
        batch: usize,
        mut answer: impl FnMut(&GuestMemoryMmap, Chain) -> Result<u32, Broken>,
    ) -> Result<(), Broken> {
        self.clear_kick();
        self.mute()?;
        let mut given = false;
        for _ in 0..batch {
            let Some(chain) = self.take()? else {
                if self.unmute()? {
                    continue;
                }
                return if given { self.notify() } else { Ok(()) };
            };
            let head = chain.head_index();
            let written = answer(&self.memory, chain)?;
            self.give_back(head, written)?;
            given = true;
        }
        self.notify()?;
        Ok(self.kick_again()?)
    }

    /// Interrupts the driver if it wants to hear of what was given back.
    ///
    /// # Errors
    /// When the ring is broken or the line can't be raised.
    pub fn notify(&mut self) -> Result<(), Broken> {
        if self.asks_to_hear()? {
            self.interrupt.used()?;
        }
        Ok(())
    }

    /// Whether the driver wants to hear of what was given back since the last time (2.7.7.2).
    fn asks_to_hear(&mut self) -> Result<bool, Broken> {
        // What was given back is seen before it is decided that the driver need not be told.
        fence(Ordering::SeqCst);
        let used = Wrapping(self.queue.next_used());
        let old = std::mem::replace(&mut self.told, used);
        let ring = self.queue.avail_ring();
        let word = |at: u64| {
            let word: Result<u16, _> = self.memory.load(GuestAddress(at), Ordering::Relaxed);
            word.map(u16::from_le).map_err(virtio_queue::Error::GuestMemory)
        };
        if self.queue.event_idx_enabled() {
            // Behind flags, index and heads: the used index of which the driver wants to hear.
            let event = Wrapping(word(ring + 4 + 2 * u64::from(self.queue.size()))?);
            return Ok(used - event - Wrapping(1) < used - old);
        }
        Ok(used != old && word(ring)? & NO_INTERRUPT == 0)
    }

    /// Asks the driver not to kick while the device is looking anyway.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn mute(&mut self) -> Result<(), Broken> {
        Ok(self.queue.disable_notification(self.memory.as_ref())?)
    }

    /// Asks the driver to kick again. True if something came in between, which gets no kick.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn unmute(&mut self) -> Result<bool, Broken> {
        Ok(self.queue.enable_notification(self.memory.as_ref())?)
    }
}
