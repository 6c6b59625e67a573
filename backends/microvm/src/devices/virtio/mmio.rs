//! The MMIO transport (virtio 1.2, section 4.2): registers, negotiation, and a device's life.
//!
//! ```text
//! idle --DRIVER_OK--> running --status 0--> idle
//!                        | the device's thread panicked, or could not be confined
//!                        v
//!                      lost
//! ```

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::config::Config;
use super::queue::Ring;
use super::worker::Worker;
use super::{Active, Broken, Device, Interrupt};
use crate::jail::Confine;

/// Register offsets (table 4.1).
mod register {
    pub(super) const MAGIC: u64 = 0x00;
    pub(super) const VERSION: u64 = 0x04;
    pub(super) const DEVICE_ID: u64 = 0x08;
    pub(super) const VENDOR_ID: u64 = 0x0c;
    pub(super) const DEVICE_FEATURES: u64 = 0x10;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(super) const QUEUE_SEL: u64 = 0x30;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x34;
    pub(super) const QUEUE_NUM: u64 = 0x38;
    pub(super) const QUEUE_READY: u64 = 0x44;
    pub(super) const QUEUE_NOTIFY: u64 = 0x50;
    pub(super) const INTERRUPT_STATUS: u64 = 0x60;
    pub(super) const INTERRUPT_ACK: u64 = 0x64;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x80;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x84;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0xa0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0xa4;
    pub(super) const SHM_LEN_LOW: u64 = 0xb0;
    pub(super) const SHM_BASE_HIGH: u64 = 0xbc;
    pub(super) const CONFIG_GENERATION: u64 = 0xfc;
    pub(super) const CONFIG: u64 = 0x100;
}

/// Offset of the register to which a driver writes the number of a queue that it filled.
pub const QUEUE_NOTIFY: u64 = register::QUEUE_NOTIFY;

/// "virt"
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "MOAT"
const VENDOR: u32 = 0x5441_4f4d;

/// Device status bits (2.1).
const FEATURES_OK: u32 = 8;
const DRIVER_OK: u32 = 4;
const NEEDS_RESET: u32 = 64;

/// Feature bits of the transport, for all our devices (6): indirect descriptors, event index, version 1.
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const FEATURES: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;

/// The device's life.
enum State {
    Idle,
    Running,
    Lost,
}

/// A virtio device's registers.
pub struct Transport {
    state: State,
    worker: Worker,
    kind: u32,
    /// What the transport and the device offer.
    features: u64,
    queue_features: &'static [u64],
    config: Arc<Config>,
    /// What it holds when a driver begins.
    fresh_config: Vec<u8>,
    name: &'static str,
    memory: Arc<GuestMemoryMmap>,
    interrupt: Arc<Interrupt>,
    queues: Vec<Queue>,
    kicks: Vec<EventFd>,
    /// Tells the device's thread to stop serving. Made before there is a guest, whose threads may
    /// make none.
    stop: EventFd,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    status: u32,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("name", &self.name)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Registers for `device`, whose interrupt is `line`. Its thread, which is made here, confines
    /// itself with `confine` first.
    ///
    /// # Errors
    /// When the host gives no event descriptors or no thread, or the device's queue sizes are not
    /// powers of two.
    pub fn new(
        device: Box<dyn Device>,
        memory: Arc<GuestMemoryMmap>,
        line: EventFd,
        confine: Confine,
    ) -> Result<Self, Broken> {
        let mut queues = Vec::new();
        let mut kicks = Vec::new();
        for &size in device.queue_sizes() {
            queues.push(Queue::new(size)?);
            kicks.push(EventFd::new(EFD_NONBLOCK)?);
        }
        let interrupt = Interrupt::new(line);
        let writable = device.config_writable();
        Ok(Self {
            kind: device.kind(),
            features: FEATURES | device.features(),
            queue_features: device.queue_features(),
            config: Arc::new(Config::new(device.config(), writable, Arc::clone(&interrupt))),
            fresh_config: device.config().to_vec(),
            name: device.name(),
            state: State::Idle,
            worker: Worker::new(device, Arc::clone(&interrupt), confine)?,
            memory,
            interrupt,
            queues,
            kicks,
            stop: EventFd::new(EFD_NONBLOCK)?,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            status: 0,
        })
    }

    /// The descriptors that stand for writes of 0, 1, ... to the notify register.
    #[must_use]
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// A guest reads at `offset`.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(config) = offset.checked_sub(register::CONFIG) {
            self.config.read(config, data);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            // All registers are four bytes wide and aligned (4.2.2.2).
            *word = self.read_register(offset).to_le_bytes();
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.kind,
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.features, self.device_features_sel),
            register::QUEUE_NUM_MAX => self.queue().map_or(0, |queue| queue.max_size().into()),
            register::QUEUE_READY => self.queue().map_or(0, |queue| queue.ready().into()),
            register::INTERRUPT_STATUS => self.interrupt.status.load(Ordering::SeqCst),
            register::STATUS => {
                let reset = self.interrupt.needs_reset.load(Ordering::SeqCst);
                self.status | if reset { NEEDS_RESET } else { 0 }
            }
            // No shared memory: all lengths and bases read as -1 (4.2.2).
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.config.generation(),
            _ => 0,
        }
    }

    /// A guest writes at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(config) = offset.checked_sub(register::CONFIG) {
            return self.config.write(config, data);
        }
        // All registers are four bytes wide (4.2.2.2).
        let Ok(word) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(word);
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::DRIVER_FEATURES => self.write_features(value),
            register::QUEUE_SEL => self.queue_sel = value,
            register::QUEUE_NOTIFY => {
                let kick = usize::try_from(value).ok().and_then(|index| self.kicks.get(index));
                if let Some(kick) = kick {
                    // Fails only when the counter is full, and then it is readable anyway.
                    let _ = kick.write(1);
                }
            }
            register::INTERRUPT_ACK => {
                self.interrupt.status.fetch_and(!value, Ordering::SeqCst);
            }
            register::STATUS => self.write_status(value),
            _ => self.write_queue(offset, value),
        }
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn write_features(&mut self, value: u32) {
        // Fixed once agreed on (3.1.1).
        if self.status & FEATURES_OK != 0 {
            return;
        }
        let value = u64::from(value);
        match self.driver_features_sel {
            0 => self.driver_features = (self.driver_features & !0xffff_ffff) | value,
            1 => self.driver_features = (self.driver_features & 0xffff_ffff) | (value << 32),
            _ => {}
        }
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        // A running device's queues belong to its thread.
        if self.status & DRIVER_OK != 0 {
            return;
        }
        let index = usize::try_from(self.queue_sel).unwrap_or(usize::MAX);
        let Some(queue) = self.queues.get_mut(index) else { return };
        match offset {
            register::QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            register::QUEUE_READY => queue.set_ready(value == 1),
            register::QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            register::QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            register::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            register::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        // A driver only ever sets bits; all are cleared by a reset alone (2.1.1).
        let mut new = self.status | (value & !NEEDS_RESET);
        if new & FEATURES_OK != 0 && !self.features_agree() {
            // The driver reads it back and gives up (3.1.1).
            new &= !FEATURES_OK;
        }
        let starts = new & DRIVER_OK != 0 && self.status & DRIVER_OK == 0;
        self.status = new;
        if starts
            && new & FEATURES_OK != 0
            && let Err(reason) = self.start()
        {
            self.fail(&reason);
        }
    }

    fn features_agree(&self) -> bool {
        self.driver_features & !self.features == 0 && self.driver_features & VERSION_1 != 0
    }

    fn fail(&self, reason: &Broken) {
        tracing::warn!(device = self.name, reason = reason as &dyn std::error::Error, "stopped");
        // Without its interrupt line the guest finds the status by itself.
        let _ = self.interrupt.ask_reset();
    }

    fn start(&mut self) -> Result<(), Broken> {
        let features = self.driver_features & !FEATURES;
        let missing = self.queue_features.iter().filter(|feature| features & **feature == 0);
        let used = self.queues.len().saturating_sub(missing.count());
        let mut rings = Vec::with_capacity(used);
        for (queue, kick) in self.queues.iter_mut().zip(&self.kicks).take(used) {
            queue.set_event_idx(self.driver_features & EVENT_IDX != 0);
            let used = mem::replace(queue, Queue::new(queue.max_size())?);
            // What the driver reads of it while the device's thread has it (4.2.2).
            queue.set_ready(used.ready());
            let interrupt = Arc::clone(&self.interrupt);
            rings.push(Ring::new(used, Arc::clone(&self.memory), kick.try_clone()?, interrupt)?);
        }
        // Fails when nothing stopped the device before.
        let _ = self.stop.read();
        let (config, stop) = (Arc::clone(&self.config), self.stop.try_clone()?);
        let active = Active { features, rings, config, stop };
        if !matches!(self.state, State::Idle) || self.worker.start(active).is_err() {
            self.state = State::Lost;
            return Err(virtio_queue::Error::QueueNotReady.into());
        }
        self.state = State::Running;
        Ok(())
    }

    /// Makes the device's thread stop serving, if it does.
    pub fn stop(&mut self) {
        match mem::replace(&mut self.state, State::Lost) {
            State::Running => {
                // Can't fail: one write to a counter that the start has emptied.
                let _ = self.stop.write(1);
                match self.worker.wait() {
                    Ok(config) => {
                        self.fresh_config = config;
                        self.state = State::Idle;
                    }
                    Err(_) => tracing::error!(device = self.name, "the device's thread is gone"),
                }
            }
            idle => self.state = idle,
        }
    }

    fn reset(&mut self) {
        self.stop();
        self.queues.iter_mut().for_each(Queue::reset);
        for kick in &self.kicks {
            // Fails when there is nothing to forget.
            let _ = kick.read();
        }
        let lost = match &self.state {
            State::Idle => {
                self.config.restart(&self.fresh_config);
                false
            }
            _ => true,
        };
        self.interrupt.needs_reset.store(lost, Ordering::SeqCst);
        self.interrupt.status.store(0, Ordering::SeqCst);
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
        self.status = 0;
    }
}

/// A device's thread does not outlive its registers.
impl Drop for Transport {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The low (0) or high (1) half of `value`; there are no more.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => u32::try_from(value & 0xffff_ffff).unwrap_or_default(),
        1 => u32::try_from(value >> 32).unwrap_or_default(),
        _ => 0,
    }
}
