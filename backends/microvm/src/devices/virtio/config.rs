//! A device's configuration space (virtio 1.2, 2.5): the driver reads it and may write a part of
//! it; the device changes it, which the driver hears by an interrupt and sees by a new generation.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Interrupt;

/// A configuration space, shared by the vCPUs that read it and the device's thread.
#[derive(Debug)]
pub struct Config {
    state: Mutex<State>,
    writable: Range<usize>,
    interrupt: Arc<Interrupt>,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    /// Counts the device's changes (4.2.2, ConfigGeneration); wraps.
    generation: u32,
}

impl Config {
    /// A space that holds `bytes`, of which the driver may write those in `writable`.
    #[must_use]
    pub fn new(bytes: &[u8], writable: Range<usize>, interrupt: Arc<Interrupt>) -> Self {
        let state = State { bytes: bytes.to_vec(), generation: 0 };
        Self { state: Mutex::new(state), writable, interrupt }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole bytes are stored at a time: a panic elsewhere breaks nothing here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device reads the bytes at `offset`; what lies outside reads as 0.
    #[must_use]
    pub fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        copy(self.lock().bytes.get(offset..).unwrap_or_default(), &mut bytes);
        bytes
    }

    /// The device puts `bytes` at `offset`, and tells the driver if that is news.
    ///
    /// # Errors
    /// When the interrupt line can't be raised.
    pub fn change(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let to = state.bytes.get_mut(offset..).unwrap_or_default();
        if to.starts_with(bytes) {
            return Ok(());
        }
        copy(bytes, to);
        state.generation = state.generation.wrapping_add(1);
        drop(state);
        self.interrupt.config()
    }

    /// The device starts afresh with `bytes`.
    pub(super) fn restart(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.bytes != bytes {
            state.bytes = bytes.to_vec();
            state.generation = state.generation.wrapping_add(1);
        }
    }

    pub(super) fn generation(&self) -> u32 {
        self.lock().generation
    }

    /// The driver reads at `offset`; `data` is zeroed.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        copy(self.lock().bytes.get(start..).unwrap_or_default(), data);
    }

    /// The driver writes at `offset`. What it may not write is ignored as a whole.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(end) = start.checked_add(data.len()) else { return };
        if start < self.writable.start || end > self.writable.end {
            return;
        }
        copy(data, self.lock().bytes.get_mut(start..end).unwrap_or_default());
    }
}

fn copy(from: &[u8], to: &mut [u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
