//! A device's thread. It is made with the machine, confines itself, and then waits for its driver:
//! once the guest runs, no thread is made any more.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::{Active, Device, Interrupt};
use crate::jail::{Confine, Thread};

/// The device's thread is gone: it panicked, or could not be confined.
#[derive(Debug)]
pub(super) struct Gone;

/// The thread of a device, seen from its transport. It ends when this is dropped.
pub(super) struct Worker {
    orders: Sender<Active>,
    /// One for each order that was carried out: what the configuration space holds when the next
    /// driver begins.
    done: Receiver<Vec<u8>>,
}

impl Worker {
    /// Makes the thread, and those that the device needs beside it.
    pub(super) fn new(
        mut device: Box<dyn Device>,
        interrupt: Arc<Interrupt>,
        confine: Confine,
    ) -> io::Result<Self> {
        device.prepare(confine)?;
        let (orders, inbox) = channel();
        let (outbox, done) = channel();
        std::thread::Builder::new()
            .name(device.name().to_owned())
            .spawn(move || work(device, &interrupt, confine, &inbox, &outbox))?;
        Ok(Self { orders, done })
    }

    /// Lets the device serve its driver, until `active.stop` is signalled.
    pub(super) fn start(&self, active: Active) -> Result<(), Gone> {
        self.orders.send(active).map_err(|_| Gone)
    }

    /// Waits until the device has stopped, once after each start, and gives its configuration space
    /// for the next driver.
    pub(super) fn wait(&self) -> Result<Vec<u8>, Gone> {
        self.done.recv().map_err(|_| Gone)
    }
}

fn work(
    mut device: Box<dyn Device>,
    interrupt: &Interrupt,
    confine: Confine,
    inbox: &Receiver<Active>,
    outbox: &Sender<Vec<u8>>,
) {
    if let Err(reason) = confine(Thread::Device(device.name())) {
        let reason: &dyn std::error::Error = &reason;
        tracing::error!(device = device.name(), reason, "can't be confined");
        return;
    }
    for active in inbox {
        if let Err(reason) = device.run(active) {
            let reason: &dyn std::error::Error = &reason;
            tracing::warn!(device = device.name(), reason, "stopped");
            // Without its interrupt line the guest finds the status by itself.
            let _ = interrupt.ask_reset();
        }
        if outbox.send(device.config().to_vec()).is_err() {
            return;
        }
    }
}
