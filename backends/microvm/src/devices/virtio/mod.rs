//! virtio devices (OASIS Virtual I/O Device Version 1.2), modern only, over MMIO.
//!
//! A device is idle until its driver is ready, then serves it, in a thread of its own that was made
//! with the machine, until the driver resets it or the machine ends. All that it reads from rings
//! and buffers is the guest's, so hostile: a broken ring ends the thread and asks for a reset, and never the process.

pub mod balloon;
pub mod blk;
mod buffers;
pub mod config;
pub mod console;
#[cfg(test)]
mod driver;
pub mod fs;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rate;
#[cfg(test)]
mod rig;
pub mod rng;
#[cfg(test)]
mod tests;
pub mod vsock;
mod worker;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use config::Config;
use queue::Ring;

use crate::jail::Confine;

/// Why a device stopped working.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The rings don't follow the specification.
    #[error("the driver broke the ring")]
    Ring(#[from] virtio_queue::Error),
    /// A buffer lies outside guest memory, or its descriptors contradict each other.
    #[error("the driver gave a broken buffer: {reason}")]
    Buffer {
        /// What is wrong.
        reason: String,
    },
    /// The host refused something that the device lives on.
    #[error("the host refused an event")]
    Event(#[from] io::Error),
}

/// A virtio device behind a transport.
pub trait Device: Send {
    /// The device's name, for its thread and for messages.
    fn name(&self) -> &'static str;

    /// The device's number (section 5).
    fn kind(&self) -> u32;

    /// The size of each of its queues, powers of two.
    fn queue_sizes(&self) -> &'static [u16];

    /// Those of [`Device::features`] that bring a queue each, without which a driver uses one less,
    /// from the first on.
    fn queue_features(&self) -> &'static [u64] {
        &[]
    }

    /// Feature bits of its own (section 5) that it offers, besides those of the transport.
    fn features(&self) -> u64 {
        0
    }

    /// What its configuration space holds when a driver begins. Its length never changes.
    fn config(&self) -> &[u8];

    /// What of its configuration space the driver may write.
    fn config_writable(&self) -> Range<usize> {
        0..0
    }

    /// Makes the threads that it needs beside its own, each of which confines itself first. Called
    /// once, before there is a guest: later, none can be made.
    ///
    /// # Errors
    /// When the host refuses one.
    fn prepare(&mut self, confine: Confine) -> io::Result<()> {
        let _ = confine;
        Ok(())
    }

    /// Serves the driver until `active.stop` is signalled. Called once after each time the
    /// driver became ready; after it returns, the device must be ready for a fresh start.
    ///
    /// # Errors
    /// When the driver broke the rules, or the host failed: the device then asks for a reset.
    fn run(&mut self, active: Active) -> Result<(), Broken>;
}

/// What a device has while its driver uses it.
#[derive(Debug)]
pub struct Active {
    /// What the driver took of [`Device::features`].
    pub features: u64,
    /// Its queues, in the device's order, as many as [`Device::queue_features`] says.
    pub rings: Vec<Ring>,
    /// Its configuration space.
    pub config: Arc<Config>,
    /// Readable when the device must stop.
    pub stop: EventFd,
}

/// The bits of the interrupt status register (4.2.2).
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

/// A device's interrupt line and what it stands for.
#[derive(Debug)]
pub struct Interrupt {
    line: EventFd,
    status: AtomicU32,
    needs_reset: AtomicBool,
}

impl Interrupt {
    /// An interrupt that raises `line`.
    #[must_use]
    pub fn new(line: EventFd) -> Arc<Self> {
        Arc::new(Self { line, status: AtomicU32::new(0), needs_reset: AtomicBool::new(false) })
    }

    /// Tells the driver that buffers were used.
    ///
    /// # Errors
    /// When the line can't be raised.
    pub fn used(&self) -> io::Result<()> {
        self.raise(USED_BUFFER)
    }

    /// Tells the driver that the configuration space changed.
    ///
    /// # Errors
    /// When the line can't be raised.
    pub fn config(&self) -> io::Result<()> {
        self.raise(CONFIG_CHANGE)
    }

    /// Tells the driver that the device needs a reset (2.1.2).
    ///
    /// # Errors
    /// When the line can't be raised.
    pub fn ask_reset(&self) -> io::Result<()> {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.raise(CONFIG_CHANGE)
    }

    fn raise(&self, cause: u32) -> io::Result<()> {
        self.status.fetch_or(cause, Ordering::SeqCst);
        self.line.write(1)
    }
}

/// Epoll over descriptors that are known by a number each.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()? })
    }

    pub(crate) fn add(&self, fd: i32, events: EventSet, token: u64) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))
    }

    pub(crate) fn remove(&self, fd: i32) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default())
    }

    /// Waits for events, without end, and returns how many of `events` are filled.
    pub(crate) fn wait(&self, events: &mut [EpollEvent]) -> io::Result<usize> {
        self.wait_until(events, None)
    }

    /// The same, but not beyond `until`: then it is 0.
    pub(crate) fn wait_until(
        &self,
        events: &mut [EpollEvent],
        until: Option<Instant>,
    ) -> io::Result<usize> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // Rounded up: too late is better than again and again too early.
            let left = left.map(|left| left.as_millis().saturating_add(1));
            let left = left.map_or(-1, |left| i32::try_from(left).unwrap_or(i32::MAX));
            match self.epoll.wait(left, events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
