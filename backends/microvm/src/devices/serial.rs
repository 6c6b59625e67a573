//! COM1, the console that works before any driver: output goes to the caller's sink, and input
//! comes from the caller's descriptor, read by a thread of its own.
//!
//! Calls of the thread `com1`: poll, read, write (of the interrupt's eventfd), futex.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moat_init::watch::Watch;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd as Event};
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::jail::{Confine, Thread};

/// The serial port's interrupt line.
#[derive(Debug)]
pub struct Line(pub EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Where console output goes. An error ends nothing: the guest must not stop because its console
/// is full or gone.
pub type Sink = Box<dyn Write + Send>;

/// What is at the other end of COM1's cable.
pub struct Ends {
    /// Takes what the guest says. It must not block for long: the vCPU that prints waits for it.
    pub output: Sink,
    /// What is typed: a pipe, a socket or a terminal.
    pub input: Option<File>,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends").field("input", &self.input).finish_non_exhaustive()
    }
}

/// Tells that the guest has read all that was there.
struct Room(Arc<Event>);

impl SerialEvents for Room {
    fn buffer_read(&self) {}

    fn out_byte(&self) {}

    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = self.0.write(1);
    }
}

/// A 16550A.
pub struct Com1(Serial<Line, Room, Sink>);

impl std::fmt::Debug for Com1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Com1").finish_non_exhaustive()
    }
}

impl Com1 {
    /// A port that raises `line` and writes to `sink`.
    ///
    /// # Errors
    /// When the host gives no event descriptor.
    pub fn new(line: Line, sink: Sink) -> io::Result<Self> {
        let room = Room(event()?);
        Ok(Self(Serial::with_events(line, room, sink)))
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

    /// Hands bytes to the guest, as many as there is room for.
    fn type_in(&mut self, bytes: &[u8]) -> usize {
        // A full queue takes none; a full interrupt counter is raised already.
        self.0.enqueue_raw_bytes(bytes).unwrap_or(0)
    }
}

/// The thread that types into COM1.
#[derive(Debug)]
pub struct Typist {
    thread: JoinHandle<()>,
    stop: Arc<Event>,
}

/// How many bytes are read at once: what the port's queue holds.
const BLOCK: usize = 64;

/// So often a port in loop-back mode, which takes nothing and tells nobody when it ends, is tried
/// again.
const RETRY: Duration = Duration::from_millis(50);

impl Typist {
    /// Begins to type what comes from `input`, in a thread that confines itself first.
    ///
    /// # Errors
    /// When the host gives no thread or event descriptor.
    pub fn start(com1: Arc<Mutex<Com1>>, input: File, confine: Confine) -> io::Result<Self> {
        let room = Arc::clone(&lock(&com1).0.events().0);
        let stop = event()?;
        let stopped = Arc::clone(&stop);
        let body = move || {
            if let Err(refused) = confine(Thread::Device("com1")) {
                tracing::error!(
                    error = &refused as &dyn std::error::Error,
                    "the console has no input"
                );
                return;
            }
            if let Err(error) = type_on(&com1, input, &room, &stopped) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the console's input ended"
                );
            }
        };
        let thread = std::thread::Builder::new().name("com1".to_owned()).spawn(body)?;
        Ok(Self { thread, stop })
    }

    /// Ends the thread.
    pub fn stop(self) {
        // Can't fail: one write to a fresh counter.
        let _ = self.stop.write(1);
        if self.thread.join().is_err() {
            tracing::error!("the serial port's thread panicked");
        }
    }
}

fn lock(com1: &Mutex<Com1>) -> MutexGuard<'_, Com1> {
    com1.lock().unwrap_or_else(PoisonError::into_inner)
}

fn type_on(com1: &Mutex<Com1>, mut input: File, room: &Event, stop: &Event) -> io::Result<()> {
    let mut block = [0; BLOCK];
    loop {
        if !ready(input.as_fd(), stop, None)? {
            return Ok(());
        }
        let count = match input.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut left = block.get(..count).unwrap_or_default();
        while !left.is_empty() {
            // Forgotten before it is tried, so that what happens meanwhile is not.
            let _ = room.read();
            let taken = lock(com1).type_in(left);
            left = left.get(taken..).unwrap_or_default();
            if !left.is_empty() && !ready(room.as_fd(), stop, Some(Instant::now() + RETRY))? {
                return Ok(());
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

fn event() -> io::Result<Arc<Event>> {
    Ok(Arc::new(Event::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
}

/// Waits for `fd`, or until then; false when the thread must stop.
fn ready(fd: BorrowedFd<'_>, stop: &Event, until: Option<Instant>) -> io::Result<bool> {
    let mut watch = Watch::default();
    let stopped = watch.add(Some(stop.as_fd()), PollFlags::POLLIN);
    watch.add(Some(fd), PollFlags::POLLIN);
    watch.wait(until)?;
    Ok(!watch.is_ready(stopped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jail::leave_free;

    /// Registers: data; line status, whose bit 0 says that there is some.
    const DATA: u8 = 0;
    const STATUS: u8 = 5;

    fn read(com1: &Mutex<Com1>, register: u8) -> u8 {
        let mut byte = [0];
        lock(com1).read(register, &mut byte);
        byte[0]
    }

    #[test]
    fn more_than_the_port_holds_is_typed_as_the_guest_reads() {
        let line = Line(EventFd::new(0).unwrap());
        let com1 = Arc::new(Mutex::new(Com1::new(line, Box::new(io::sink())).unwrap()));
        let (input, mut keys) = io::pipe().unwrap();
        let input = File::from(std::os::fd::OwnedFd::from(input));
        let typist = Typist::start(Arc::clone(&com1), input, leave_free).unwrap();
        let text: Vec<u8> = (0..=255).cycle().take(1000).collect();
        keys.write_all(&text).unwrap();
        let mut seen = Vec::new();
        let limit = Instant::now() + Duration::from_secs(10);
        while seen.len() < text.len() && Instant::now() < limit {
            match read(&com1, STATUS) & 1 {
                0 => std::thread::yield_now(),
                _ => seen.push(read(&com1, DATA)),
            }
        }
        assert_eq!(seen, text);
        // Though nothing more comes.
        typist.stop();
    }
}
