//! Between moat's own stdin, stdout and stderr and the workload's in the guest: one poll(2) that
//! also watches the guest's console and whatever wakes the caller.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use moat_core::wire::{Credit, FromGuest, STREAM_LIMIT, Stream, ToGuest, WireError};
use moat_host::terminal::is_in_background;
use moat_init::watch::Watch;
use nix::poll::PollFlags;

use super::channel::Channel;
use super::console::Tail;
use super::output::{Output, Pumped};

/// Why the relay can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// The guest sent what it may not.
    #[error("the guest's agent broke the protocol")]
    Wire(#[from] WireError),
    /// The guest sent a message that makes no sense now.
    #[error("the guest's agent sent {message} at the wrong time")]
    Unexpected {
        /// The message's name.
        message: &'static str,
    },
    /// One of our own streams failed.
    #[error("can't {action}")]
    Stream {
        /// What was being done.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// What a turn of the relay ended with.
#[derive(Debug)]
pub(super) enum Turn {
    /// A message that is not about streams.
    Message(FromGuest),
    /// Nothing more will come from the guest, and all that came was passed on.
    Gone,
    /// The caller's descriptor can be read.
    Woken,
    /// It is late.
    TimedOut,
}

/// Ours and the guest's ends of everything.
#[derive(Debug)]
pub(super) struct Relay {
    channel: Channel,
    console: Option<File>,
    tail: Tail,
    stdin: Option<File>,
    /// Whether the workload runs and has streams.
    flowing: bool,
    credit: Credit,
    outputs: [Output; 2],
    buffer: Box<[u8]>,
}

/// What poll(2) found ready.
struct Events {
    channel_in: bool,
    channel_out: bool,
    console: bool,
    stdin: bool,
    outputs: [bool; 2],
    woken: bool,
}

impl Relay {
    /// Between this process's own streams and the guest behind `agent`, whose console can be read
    /// from `console`. Neither of these two may block.
    pub(super) fn new(agent: UnixStream, console: File) -> Result<Self, RelayError> {
        let failed = |action| move |source| RelayError::Stream { action, source };
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed("take stdin"))?;
        let output = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().and_then(Output::new);
        let stdout = output(io::stdout().as_fd()).map_err(failed("take stdout"))?;
        let stderr = output(io::stderr().as_fd()).map_err(failed("take stderr"))?;
        Ok(Self {
            channel: Channel::new(agent),
            console: Some(console),
            tail: Tail::default(),
            stdin: Some(File::from(stdin)),
            flowing: false,
            credit: Credit::new(),
            outputs: [stdout, stderr],
            buffer: vec![0; STREAM_LIMIT].into_boxed_slice(),
        })
    }

    /// Whether stdout and stderr end in the same file.
    pub(super) fn outputs_are_one(&self) -> Result<bool, RelayError> {
        let [stdout, stderr] = &self.outputs;
        stdout
            .is_same(stderr)
            .map_err(|source| RelayError::Stream { action: "look at stdout and stderr", source })
    }

    /// Queues a message for the guest.
    pub(super) fn send(&mut self, message: &ToGuest) -> Result<(), RelayError> {
        Ok(self.channel.send(message)?)
    }

    /// The workload runs: lets its streams flow.
    pub(super) fn open_streams(&mut self) {
        self.flowing = true;
    }

    /// The last of what the guest's console said.
    pub(super) fn console_tail(&self) -> Option<String> {
        self.tail.text()
    }

    /// Passes bytes on until something happens that is the caller's.
    pub(super) fn turn(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<Turn, RelayError> {
        loop {
            while let Some(message) = self.channel.next_message()? {
                if let Some(message) = self.on_message(message)? {
                    return Ok(Turn::Message(message));
                }
            }
            if !self.channel.is_open() && self.is_flushed() {
                self.read_console();
                return Ok(Turn::Gone);
            }
            let Some(events) = self.poll(wake, until)? else { return Ok(Turn::TimedOut) };
            if events.channel_out {
                self.channel.flush();
            }
            if events.channel_in {
                self.channel.receive();
            }
            if events.console {
                self.read_console();
            }
            self.write_outputs(events.outputs)?;
            if events.stdin {
                self.read_stdin()?;
            }
            if events.woken {
                return Ok(Turn::Woken);
            }
        }
    }

    /// Nothing more is to be had from the guest: what remains is to pass on what came.
    pub(super) fn finish(&mut self) {
        self.stdin = None;
        self.channel.close();
    }

    fn is_flushed(&self) -> bool {
        self.outputs.iter().all(|output| output.wants_write().is_none())
    }

    /// Waits for something to do; None when it is late.
    fn poll(
        &self,
        wake: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<Option<Events>, RelayError> {
        let mut watch = Watch::default();
        let out = if self.channel.wants_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let channel = self.channel.is_open().then(|| self.channel.as_fd());
        let channel = watch.add(channel, PollFlags::POLLIN | out);
        let console = watch.add(self.console.as_ref().map(AsFd::as_fd), PollFlags::POLLIN);
        let stdin = watch.add(self.wanted_stdin(), PollFlags::POLLIN);
        let outputs = self.outputs.each_ref();
        let outputs = outputs.map(|output| watch.add(output.wants_write(), PollFlags::POLLOUT));
        let wake = watch.add(wake, PollFlags::POLLIN);
        let ready = watch.wait(until).map_err(|errno| RelayError::Stream {
            action: "wait for events",
            source: errno.into(),
        })?;
        Ok(ready.then(|| Events {
            channel_in: watch.has(channel, !PollFlags::POLLOUT),
            channel_out: watch.has(channel, PollFlags::POLLOUT),
            console: watch.is_ready(console),
            stdin: watch.is_ready(stdin),
            outputs: outputs.map(|output| watch.is_ready(output)),
            woken: watch.is_ready(wake),
        }))
    }

    /// Stdin, while the guest has room for what would be read. Not a terminal that moat is in the
    /// background of: reading it would stop moat (termios(3), SIGTTIN).
    fn wanted_stdin(&self) -> Option<BorrowedFd<'_>> {
        let wanted = self.flowing && self.credit.available() > 0 && !self.channel.wants_write();
        self.stdin.as_ref().filter(|stdin| wanted && !is_in_background(stdin)).map(AsFd::as_fd)
    }

    fn read_stdin(&mut self) -> Result<(), RelayError> {
        let room = self.credit.available().min(self.buffer.len());
        let (Some(stdin), Some(buffer)) = (&mut self.stdin, self.buffer.get_mut(..room)) else {
            return Ok(());
        };
        match stdin.read(buffer) {
            Ok(count @ 1..) => {
                self.credit.take(count)?;
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                Ok(self.channel.send(&ToGuest::Stdin(bytes))?)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            // A terminal that hung up, or a stdin that is closed or a directory: no more of it.
            Ok(_) | Err(_) => {
                self.stdin = None;
                Ok(self.channel.send(&ToGuest::StdinEnd)?)
            }
        }
    }

    fn write_outputs(&mut self, ready: [bool; 2]) -> Result<(), RelayError> {
        let streams = [Stream::Stdout, Stream::Stderr];
        for ((output, stream), ready) in self.outputs.iter_mut().zip(streams).zip(ready) {
            if !ready {
                continue;
            }
            let action = match stream {
                Stream::Stderr => "write the workload's stderr",
                Stream::Stdin | Stream::Stdout => "write the workload's stdout",
            };
            match output.pump().map_err(|source| RelayError::Stream { action, source })? {
                Pumped::Went(None) => {}
                Pumped::Went(Some(credit)) => {
                    self.channel.send(&ToGuest::Credit(stream, credit))?;
                }
                Pumped::Closed => self.channel.send(&ToGuest::CloseStream(stream))?,
            }
        }
        Ok(())
    }

    /// Deals with messages about streams; gives back the others.
    fn on_message(&mut self, message: FromGuest) -> Result<Option<FromGuest>, RelayError> {
        let [stdout, stderr] = &mut self.outputs;
        match message {
            FromGuest::Stdout(_) | FromGuest::Stderr(_) | FromGuest::Credit(_) if !self.flowing => {
                Err(RelayError::Unexpected { message: "stream data" })
            }
            FromGuest::Stdout(bytes) => Ok(stdout.receive(&bytes).map(|()| None)?),
            FromGuest::Stderr(bytes) => Ok(stderr.receive(&bytes).map(|()| None)?),
            FromGuest::Credit(bytes) => Ok(self.credit.grant(bytes).map(|()| None)?),
            message => Ok(Some(message)),
        }
    }

    /// Reads what is there of the console, a bounded part of it at a time.
    pub(super) fn read_console(&mut self) {
        for _ in 0..4 {
            let Some(console) = &mut self.console else { return };
            match console.read(&mut self.buffer) {
                Ok(count @ 1..) => self.tail.push(self.buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.console = None,
            }
        }
    }
}
