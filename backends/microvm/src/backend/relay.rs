//! Between moat's own stdin, stdout and stderr and the workload's in the guest: one poll(2) that
//! also watches the guest's console and whatever wakes the caller.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::Process;
use moat_core::wire::{
    Credit, FromGuest, Further, INITIAL_CREDIT, Message, STREAM_LIMIT, Session, Stream, ToGuest,
    WireError,
};
use moat_host::terminal::is_in_background;
use moat_init::watch::Watch;
use nix::poll::PollFlags;

use super::channel::Channel;
use super::console::Tail;
use super::further::{self, Furthers};
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

/// How long the clients of further processes have, once the guest is gone, to take what there is for
/// them: they may be stopped.
const CLIENTS_LIMIT: Duration = Duration::from_secs(2);

/// What a turn of the relay ended with.
#[derive(Debug)]
pub(super) enum Turn {
    /// A message that is not about streams.
    Message(FromGuest),
    /// Nothing more will come from the guest, and all that came was passed on.
    Gone,
    /// There is something to be told of a further process.
    News,
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
    pub(super) furthers: Furthers,
    /// Until when their clients are waited for, once the guest is gone.
    clients_until: Option<Instant>,
    buffer: Box<[u8]>,
}

/// What poll(2) found ready.
struct Events {
    channel_in: bool,
    channel_out: bool,
    console: bool,
    stdin: bool,
    outputs: [bool; 2],
    furthers: further::Ready,
    woken: bool,
}

impl Relay {
    /// Between this process's own streams and the guest behind `agent`, whose console can be read
    /// from `console`. Neither of these two may block.
    pub(super) fn new(agent: UnixStream, console: File) -> Result<Self, RelayError> {
        let failed = |action| move |source| RelayError::Stream { action, source };
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed("take stdin"))?;
        let output = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().and_then(|fd| Output::new(fd, INITIAL_CREDIT))
        };
        let stdout = output(io::stdout().as_fd()).map_err(failed("take stdout"))?;
        let stderr = output(io::stderr().as_fd()).map_err(failed("take stderr"))?;
        Ok(Self {
            channel: Channel::new(agent),
            console: Some(console),
            tail: Tail::default(),
            stdin: Some(File::from(stdin)),
            flowing: false,
            credit: Credit::new(INITIAL_CREDIT),
            outputs: [stdout, stderr],
            furthers: Furthers::default(),
            clients_until: None,
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

    /// Has the guest start one more process.
    pub(super) fn exec(
        &mut self,
        process: &Process,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<Session, Fault> {
        let session = self.furthers.begin(stdio)?;
        let merge_output = self.furthers.merges_output(session);
        let further = Further { process: process.clone(), merge_output };
        let sent = self.order(&ToGuest::Exec(session, Box::new(further)));
        sent.map(|()| session).inspect_err(|_| self.furthers.forget(session))
    }

    /// Queues a message that a client asked for, unless the guest does not even take those before.
    pub(super) fn order(&mut self, message: &ToGuest) -> Result<(), Fault> {
        if self.channel.is_clogged() {
            return Err(Fault::new(Code::Microvm, "the guest takes no more orders")
                .hint("it may be too busy: try again, or end it with `kill` of its moat"));
        }
        self.channel.send(message).map_err(|error| {
            Fault::new(Code::Microvm, "the order can't be sent to the guest")
                .hint("pass long arguments in a file or over stdin")
                .because(error)
        })
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
            let is_late = !self.channel.is_open() && self.end_furthers();
            if self.furthers.have_news() {
                return Ok(Turn::News);
            }
            if !self.channel.is_open() && self.is_flushed() && self.furthers.is_empty() {
                self.read_console();
                return Ok(Turn::Gone);
            }
            let clients_until = self.clients_until.filter(|_| !is_late);
            let soonest = until.into_iter().chain(clients_until).min();
            let Some(events) = self.poll(wake, soonest)? else {
                if soonest == until {
                    return Ok(Turn::TimedOut);
                }
                continue;
            };
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
            self.furthers.pass(&events.furthers, &mut self.channel, &mut self.buffer)?;
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

    /// The guest is gone, and with it all further processes; whether their clients have had time
    /// enough to take what there was for them.
    fn end_furthers(&mut self) -> bool {
        self.furthers.end();
        let until = *self.clients_until.get_or_insert_with(|| Instant::now() + CLIENTS_LIMIT);
        let is_late = until <= Instant::now();
        if is_late {
            self.furthers.give_up();
        }
        is_late
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
        let furthers = self.furthers.watch(&mut watch, !self.channel.wants_write());
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
            furthers: furthers.ready(&watch),
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
                Ok(self.channel.send(&ToGuest::Stdin(Session::WORKLOAD, bytes))?)
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
                Ok(self.channel.send(&ToGuest::StdinEnd(Session::WORKLOAD))?)
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
                    self.channel.send(&ToGuest::Credit(Session::WORKLOAD, stream, credit))?;
                }
                Pumped::Closed => {
                    self.channel.send(&ToGuest::CloseStream(Session::WORKLOAD, stream))?;
                }
            }
        }
        Ok(())
    }

    /// Deals with messages about streams and further processes; gives back the others.
    fn on_message(&mut self, message: FromGuest) -> Result<Option<FromGuest>, RelayError> {
        let [stdout, stderr] = &mut self.outputs;
        match message {
            FromGuest::Stdout(Session::WORKLOAD, _)
            | FromGuest::Stderr(Session::WORKLOAD, _)
            | FromGuest::Credit(Session::WORKLOAD, _)
                if !self.flowing =>
            {
                return Err(RelayError::Unexpected { message: message.name() });
            }
            FromGuest::Stdout(Session::WORKLOAD, bytes) => stdout.receive(&bytes)?,
            FromGuest::Stderr(Session::WORKLOAD, bytes) => stderr.receive(&bytes)?,
            FromGuest::Credit(Session::WORKLOAD, bytes) => self.credit.grant(bytes)?,
            FromGuest::Started(Session::WORKLOAD)
            | FromGuest::Failed(Session::WORKLOAD, _)
            | FromGuest::Ready { .. }
            | FromGuest::Figures(_)
            | FromGuest::Exited(_) => return Ok(Some(message)),
            FromGuest::Stdout(session, _)
            | FromGuest::Stderr(session, _)
            | FromGuest::Credit(session, _)
            | FromGuest::Started(session)
            | FromGuest::Failed(session, _)
            | FromGuest::Ended(session, _) => self.furthers.take(session, message)?,
        }
        Ok(None)
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
