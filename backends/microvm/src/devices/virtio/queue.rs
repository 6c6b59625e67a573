//! One virtqueue as a device uses it: take a chain, give it back, tell the driver when it asked.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::buffers::Buffers;
use super::{Broken, Interrupt};

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
}

impl Ring {
    /// A ring of a queue that the driver has set up.
    ///
    /// # Errors
    /// When the queue is not ready or lies outside guest memory.
    pub fn new(
        queue: Queue,
        memory: Arc<GuestMemoryMmap>,
        kick: EventFd,
        interrupt: Arc<Interrupt>,
    ) -> Result<Self, Broken> {
        if !queue.is_valid(memory.as_ref()) {
            return Err(virtio_queue::Error::QueueNotReady.into());
        }
        Ok(Self { queue, memory, kick, interrupt })
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

    /// Interrupts the driver if it wants to hear of what was given back.
    ///
    /// # Errors
    /// When the ring is broken or the line can't be raised.
    pub fn notify(&mut self) -> Result<(), Broken> {
        if self.queue.needs_notification(self.memory.as_ref())? {
            self.interrupt.used()?;
        }
        Ok(())
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
