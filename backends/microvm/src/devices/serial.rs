//! COM1, the console that works before any driver: output goes to the caller's sink.

use std::io::Write;

use vm_superio::Serial;
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;
use vmm_sys_util::eventfd::EventFd;

/// The serial port's interrupt line.
#[derive(Debug)]
pub struct Line(pub EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> std::io::Result<()> {
        self.0.write(1)
    }
}

/// Where console output goes. An error ends nothing: the guest must not stop because its console
/// is full or gone.
pub type Sink = Box<dyn Write + Send>;

/// A 16550A whose output is `Sink`.
pub struct Com1(Serial<Line, NoEvents, Sink>);

impl std::fmt::Debug for Com1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Com1").finish_non_exhaustive()
    }
}

impl Com1 {
    /// A port that raises `line` and writes to `sink`.
    #[must_use]
    pub fn new(line: Line, sink: Sink) -> Self {
        Self(Serial::new(line, sink))
    }

    /// A guest's write to register `offset`: one byte, or the bytes of a string instruction.
    pub fn write(&mut self, offset: u8, data: &[u8]) {
        for &byte in data {
            // Either the sink is gone or the interrupt's counter is full: the guest goes on.
            let _ = self.0.write(offset, byte);
        }
    }

    /// A guest's read of register `offset`.
    pub fn read(&mut self, offset: u8, data: &mut [u8]) {
        for byte in data {
            *byte = self.0.read(offset);
        }
    }
}
