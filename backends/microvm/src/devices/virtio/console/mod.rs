//! virtio-console (virtio 1.2, section 5.3): one port, without multiport.
//!
//! What the guest writes goes to a [`Sink`]; what it reads comes from a descriptor, which is
//! never waited for but with epoll, or where epoll can't (regular files, /dev/null), never at all.
//! A quiet guest starts no faster with it than with COM1, one that talks does (docs/performance.md).
//!
//! Calls: epoll_create1, epoll_ctl, epoll_wait, poll, read, write, close; and what the sink does.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use virtio_queue::{Reader, Writer};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::queue::{Chain, Ring};
use super::{Active, Broken, Device, Poller};
use crate::devices::serial::Sink;

/// Section 5.3.1.
const KIND: u32 = 3;
/// Receive and transmit of port 0 (5.3.2). Linux writes 16 bytes at a time and waits for each.
const QUEUES: [u16; 2] = [64, 64];
/// VIRTIO_CONSOLE_F_SIZE (5.3.3): the configuration space holds the console's size.
const SIZE: u64 = 1;
/// Section 5.3.4: columns and rows, the number of ports, a byte for emergencies. Only the first two
/// mean anything here.
const CONFIG_SIZE: usize = 12;

/// Bytes between guest memory and host at a time.
const BLOCK: usize = 4 << 10;
/// The most that a guest may write in one buffer, a bound for how long it keeps the thread.
const MAX_WRITE: usize = 1 << 20;
/// Buffers in one direction before the other gets its turn.
const BATCH: usize = 64;

const RECEIVE_TOKEN: u64 = 0;
const TRANSMIT_TOKEN: u64 = 1;
const INPUT_TOKEN: u64 = 2;
const RESIZE_TOKEN: u64 = 3;
const STOP_TOKEN: u64 = 4;

/// The console.
pub struct Console {
    output: Sink,
    input: Option<File>,
    /// Nothing more will come of the input. It is kept, since the poller may still know it.
    ended: bool,
    resizer: Arc<Resizer>,
    config: [u8; CONFIG_SIZE],
    block: Box<[u8]>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("input", &self.input).finish_non_exhaustive()
    }
}

/// Tells a console's guest the size of the terminal that it is shown on.
#[derive(Debug)]
pub struct Resizer {
    /// Columns in the low half, rows in the high: as they lie in the configuration space.
    size: AtomicU32,
    changed: EventFd,
}

impl Resizer {
    /// The terminal has `columns` and `rows` of characters from now on; 0 and 0 is unknown.
    ///
    /// # Errors
    /// When the device can't be told.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = u32::from(columns) | u32::from(rows) << 16;
        self.size.store(size, Ordering::SeqCst);
        self.changed.write(1)
    }

    fn bytes(&self) -> [u8; 4] {
        self.size.load(Ordering::SeqCst).to_le_bytes()
    }
}

impl Console {
    /// A console that writes to `output`, which must not block for long, and reads `input`.
    ///
    /// # Errors
    /// When the host gives no event descriptor.
    pub fn new(output: Sink, input: Option<OwnedFd>) -> io::Result<Self> {
        let resizer = Resizer { size: AtomicU32::new(0), changed: EventFd::new(EFD_NONBLOCK)? };
        Ok(Self {
            output,
            ended: input.is_none(),
            input: input.map(File::from),
            resizer: Arc::new(resizer),
            config: [0; CONFIG_SIZE],
            block: vec![0; BLOCK].into_boxed_slice(),
        })
    }

    /// What tells the guest another size.
    #[must_use]
    pub fn resizer(&self) -> Arc<Resizer> {
        Arc::clone(&self.resizer)
    }

    /// Writes out what the guest wrote. A sink that fails ends nothing: the guest must not stop
    /// because its console is full or gone.
    fn transmit(&mut self, ring: &mut Ring) -> Result<(), Broken> {
        let Self { output, block, .. } = self;
        ring.serve(BATCH, |memory, chain| {
            let mut reader: Reader<'_> = chain.reader(memory)?;
            if reader.available_bytes() > MAX_WRITE {
                return Err(broken("more than 1 MiB for the console"));
            }
            loop {
                let length = reader.read(block).map_err(|_| broken("not in memory"))?;
                match block.get(..length) {
                    Some(text @ [_, ..]) => drop(output.write_all(text)),
                    _ => break,
                }
            }
            Ok(0)
        })?;
        drop(self.output.flush());
        Ok(())
    }

    /// Gives the guest what there is to read. True if it lacks buffers.
    fn receive(&mut self, ring: &mut Ring) -> Result<bool, Broken> {
        ring.clear_kick();
        let (mut given, mut starved, mut left) = (false, false, BATCH);
        while left > 0 && !self.ended {
            left -= 1;
            let Some(input) = self.input.as_mut().filter(|input| is_ready(input)) else { break };
            let Some(chain) = ring.take()? else {
                starved = !ring.unmute()?;
                if starved {
                    break;
                }
                continue;
            };
            let head = chain.head_index();
            match read(input, &mut self.block, ring.memory(), chain)? {
                Got::Bytes(written) => ring.give_back(head, written)?,
                nothing => {
                    self.ended = matches!(nothing, Got::End);
                    ring.put_back();
                    break;
                }
            }
            given = true;
        }
        if given {
            ring.notify()?;
        }
        if left == 0 {
            ring.kick_again()?;
        }
        Ok(starved)
    }
}

fn broken(reason: &str) -> Broken {
    Broken::Buffer { reason: reason.to_owned() }
}

/// Whether a read would not wait.
fn is_ready(input: &File) -> bool {
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// What a read of the input gave.
enum Got {
    Bytes(u32),
    Nothing,
    End,
}

/// Fills one buffer.
fn read(
    input: &mut File,
    block: &mut [u8],
    memory: &GuestMemoryMmap,
    chain: Chain,
) -> Result<Got, Broken> {
    let mut writer: Writer<'_> = chain.writer(memory)?;
    let room = writer.available_bytes().min(block.len());
    let Some(room @ [_, ..]) = block.get_mut(..room) else { return Ok(Got::Bytes(0)) };
    let length = match input.read(room) {
        Ok(length @ 1..) => length,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            return Ok(Got::Nothing);
        }
        // A terminal that hung up is as good as one that ended.
        Ok(_) | Err(_) => return Ok(Got::End),
    };
    let bytes = room.get(..length).unwrap_or_default();
    writer.write_all(bytes).map_err(|_| broken("not in memory"))?;
    Ok(Got::Bytes(u32::try_from(length).unwrap_or(0)))
}

impl Device for Console {
    fn name(&self) -> &'static str {
        "virtio-console"
    }

    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn features(&self) -> u64 {
        SIZE
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn run(&mut self, mut active: Active) -> Result<(), Broken> {
        let [receive, transmit] = active.rings.as_mut_slice() else {
            return Err(virtio_queue::Error::QueueNotReady.into());
        };
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, STOP_TOKEN)?;
        poller.add(receive.kick_fd(), EventSet::IN, RECEIVE_TOKEN)?;
        poller.add(transmit.kick_fd(), EventSet::IN, TRANSMIT_TOKEN)?;
        poller.add(self.resizer.changed.as_raw_fd(), EventSet::IN, RESIZE_TOKEN)?;
        let mut watch = Watch { poller, watched: false };
        let mut events = [EpollEvent::default(); 5];
        // What the guest wrote before we looked, and a size that came before the driver.
        self.transmit(transmit)?;
        active.config.change(0, &self.resizer.bytes())?;
        loop {
            let starved = self.receive(receive)?;
            watch.input(self.input.as_ref(), !starved && !self.ended)?;
            let ready = watch.poller.wait(&mut events)?;
            let ready = events.get(..ready).unwrap_or_default();
            let is_ready = |token| ready.iter().any(|event| event.data() == token);
            if is_ready(RESIZE_TOKEN) {
                // Fails only when there was none.
                let _ = self.resizer.changed.read();
                active.config.change(0, &self.resizer.bytes())?;
            }
            let stop = is_ready(STOP_TOKEN);
            // A guest's last words count, too.
            if stop || is_ready(TRANSMIT_TOKEN) {
                self.transmit(transmit)?;
            }
            if stop {
                return Ok(());
            }
        }
    }
}

/// The poller, and whether it watches the input.
struct Watch {
    poller: Poller,
    watched: bool,
}

impl Watch {
    /// Watches `input`, if it is wanted, and else not.
    fn input(&mut self, input: Option<&File>, wanted: bool) -> io::Result<()> {
        let Some(input) = input.filter(|_| wanted != self.watched) else { return Ok(()) };
        if !wanted {
            self.poller.remove(input.as_raw_fd())?;
        } else if let Err(error) = self.poller.add(input.as_raw_fd(), EventSet::IN, INPUT_TOKEN) {
            // It never waits (epoll_ctl(2)), and so has been read as far as there was room.
            return if error.raw_os_error() == Some(libc::EPERM) { Ok(()) } else { Err(error) };
        }
        self.watched = wanted;
        Ok(())
    }
}
