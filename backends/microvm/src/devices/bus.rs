//! Which device answers which address. Built once; shared by all vCPU threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::i8042::{self, I8042};
use super::serial::Com1;
use super::virtio::mmio::Transport;
use crate::boot::layout;

/// What a write to a port asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Nothing: go on.
    None,
    /// Reset through the keyboard controller.
    Reset,
    /// Soft off through ACPI's sleep control.
    PowerOff,
}

/// Registers of COM1.
const COM1_LAST: u16 = layout::COM1_PORT + 7;
/// What a bus reads where no device answers.
const FLOATING: u8 = 0xff;

/// The machine's port and memory-mapped devices.
#[derive(Debug)]
pub struct Bus {
    com1: Option<Arc<Mutex<Com1>>>,
    i8042: Mutex<I8042>,
    virtio: Vec<Mutex<Transport>>,
}

/// A device whose thread panicked half-way through is no more broken than one whose guest wrote
/// nonsense: its registers stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// A machine with this serial port, if it has one, and these virtio devices, one page each
    /// from `layout::VIRTIO_MMIO` on.
    #[must_use]
    pub fn new(com1: Option<Arc<Mutex<Com1>>>, virtio: Vec<Transport>) -> Self {
        Self { com1, i8042: Mutex::default(), virtio: virtio.into_iter().map(Mutex::new).collect() }
    }

    /// A guest wrote `data` to `port`.
    pub fn port_write(&self, port: u16, data: &[u8]) -> Request {
        match port {
            layout::COM1_PORT..=COM1_LAST => {
                if let Some(com1) = &self.com1 {
                    lock(com1).write(offset(port), data);
                }
                Request::None
            }
            i8042::DATA | i8042::COMMAND if lock(&self.i8042).write(port, data) => Request::Reset,
            layout::SLEEP_PORT if data.contains(&layout::SLEEP_S5) => Request::PowerOff,
            _ => Request::None,
        }
    }

    /// A guest reads `port`.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        match (port, &self.com1) {
            (layout::COM1_PORT..=COM1_LAST, Some(com1)) => lock(com1).read(offset(port), data),
            (i8042::DATA | i8042::COMMAND, _) => data.fill(lock(&self.i8042).read(port)),
            _ => data.fill(FLOATING),
        }
    }

    /// A guest wrote `data` to `address`, where no memory is.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.virtio_at(address) {
            lock(device).write(offset, data);
        }
    }

    /// A guest reads `address`, where no memory is.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.virtio_at(address) {
            Some((device, offset)) => lock(device).read(offset, data),
            None => data.fill(FLOATING),
        }
    }

    /// Ends every device's thread.
    pub fn stop(&self) {
        for device in &self.virtio {
            lock(device).stop();
        }
    }

    fn virtio_at(&self, address: u64) -> Option<(&Mutex<Transport>, u64)> {
        let offset = address.checked_sub(layout::VIRTIO_MMIO)?;
        let index = usize::try_from(offset / layout::VIRTIO_MMIO_SIZE).ok()?;
        Some((self.virtio.get(index)?, offset % layout::VIRTIO_MMIO_SIZE))
    }
}

fn offset(port: u16) -> u8 {
    u8::try_from(port - layout::COM1_PORT).unwrap_or_default()
}
