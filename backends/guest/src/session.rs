//! One session with the host: Ready, Start, the workload and its streams, Exited.
//!
//! ```text
//! waiting --Start--> setting up --Started--> running --first process gone--> draining --+
//!                        |                                                               |
//!                        +--Failed--> over <----------Exited, all output sent------------+
//! ```
//! The host hangs up in `over`, and anywhere else when it was itself ended. While the workload runs,
//! the host has further processes started in it, and asks what it uses.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use moat_core::cgroup::Hierarchy;
use moat_core::sandbox::{Exit, StartError};
use moat_core::wire::{
    FromGuest, Message, STREAM_LIMIT, Session as Number, Start, ToGuest, VERSION, WireError,
};
use moat_init::control::Report;
use moat_init::watch::Watch;
use nix::poll::PollFlags;

use crate::channel::{Channel, ChannelError};
use crate::further::{self, Furthers};
use crate::seed;
use crate::stdio::{self, Streams, StreamsReady};
use crate::workload::{self, Workload};

/// How long an output stream of a workload that has ended may stay open and silent. Its processes
/// are gone, so that nothing but a kernel queue can hold it.
const DRAIN_SILENCE: Duration = Duration::from_secs(1);

/// What a session works with.
#[derive(Debug)]
pub struct Surroundings {
    /// An empty directory in which moat-init builds the workload's root.
    pub staging: PathBuf,
    /// Where the workload's limits are held; None for no limits.
    pub cgroups: Option<Hierarchy>,
    /// Whether the clock and the random generator are the session's to set.
    pub own_machine: bool,
}

/// Why a session broke.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The channel to the host.
    #[error("the agent channel broke")]
    Channel(#[from] ChannelError),
    /// A message that makes no sense now.
    #[error("the host sent {message} at the wrong time")]
    Unexpected {
        /// The message's name.
        message: &'static str,
    },
    /// A step on the guest's own resources.
    #[error("can't {step}")]
    Local {
        /// What was being done.
        step: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

impl From<WireError> for SessionError {
    fn from(error: WireError) -> Self {
        Self::Channel(error.into())
    }
}

/// Serves the host over this connected stream socket until the host hangs up.
///
/// # Errors
/// When the host breaks the protocol or the kernel refuses what the session itself needs; a
/// workload that can't be started is none, the host is told.
pub fn serve(channel: OwnedFd, surroundings: &Surroundings) -> Result<(), SessionError> {
    let mut session = Session {
        channel: Channel::new(channel)?,
        surroundings,
        phase: Phase::Waiting,
        furthers: Furthers::default(),
        buffer: vec![0; STREAM_LIMIT].into_boxed_slice(),
    };
    session.channel.send(&FromGuest::Ready { version: VERSION, kernel: kernel_release() })?;
    while session.turn()? {}
    Ok(())
}

#[derive(Debug)]
enum Phase {
    Waiting,
    SettingUp(Workload, Streams),
    Running(Workload, Streams),
    Draining(Exit, Streams),
    Over,
}

#[derive(Debug)]
struct Session<'a> {
    channel: Channel,
    surroundings: &'a Surroundings,
    phase: Phase,
    furthers: Furthers,
    buffer: Box<[u8]>,
}

/// What poll(2) found ready.
#[derive(Debug, Default)]
struct Events {
    channel_in: bool,
    channel_out: bool,
    control: bool,
    ended: bool,
    streams: StreamsReady,
    furthers: further::Ready,
    silence: bool,
}

impl Session<'_> {
    /// Waits for something to happen and deals with it; false when the host has hung up.
    fn turn(&mut self) -> Result<bool, SessionError> {
        let events = self.poll()?;
        if events.channel_out {
            self.channel.flush()?;
        }
        if events.channel_in {
            if !self.channel.receive()? {
                return Ok(false);
            }
            while let Some(message) = self.channel.next_message()? {
                self.on_message(message)?;
            }
        }
        if let Some(streams) = self.phase.streams_mut() {
            let buffer = &mut self.buffer;
            streams.pass(Number::WORKLOAD, &events.streams, &mut self.channel, buffer)?;
        }
        self.furthers.pass(&events.furthers, &mut self.channel, &mut self.buffer)?;
        if events.control {
            self.on_report()?;
        } else if events.ended {
            // Only once nothing is left to be read from the control socket.
            self.on_end()?;
        }
        self.finish_draining(events.silence)?;
        Ok(true)
    }

    fn poll(&self) -> Result<Events, SessionError> {
        let mut watch = Watch::default();
        let out = if self.channel.wants_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let channel = watch.add(Some(self.channel.as_fd()), PollFlags::POLLIN | out);
        let workload = self.phase.workload();
        let control = watch.add(workload.and_then(Workload::control_fd), PollFlags::POLLIN);
        let pidfd = watch.add(workload.map(Workload::pidfd), PollFlags::POLLIN);
        let streams = self.phase.streams().map(|streams| streams.watch(&mut watch));
        let furthers = self.furthers.watch(&mut watch);
        let until = self.may_fall_silent().then(|| Instant::now() + DRAIN_SILENCE);
        let ready = watch.wait(until).map_err(|errno| local("wait for events", errno))?;
        Ok(Events {
            channel_in: watch.has(channel, !PollFlags::POLLOUT),
            channel_out: watch.has(channel, PollFlags::POLLOUT),
            control: watch.is_ready(control),
            ended: watch.is_ready(pidfd),
            streams: streams.map(|places| places.ready(&watch)).unwrap_or_default(),
            furthers: furthers.ready(&watch),
            silence: !ready,
        })
    }

    /// Whether output of what has ended is waited for that may never come. The host may take as long
    /// as it likes over the workload's own, but not over that of further processes.
    fn may_fall_silent(&self) -> bool {
        match &self.phase {
            Phase::Draining(_, streams) => streams.may_be_read() || !self.furthers.is_empty(),
            _ => false,
        }
    }

    fn on_message(&mut self, message: ToGuest) -> Result<(), SessionError> {
        match (&mut self.phase, message) {
            (Phase::Waiting, ToGuest::Start(start)) => self.on_start(&start),
            (Phase::Running(..) | Phase::Draining(..), message) => self.on_order(message),
            // What the host sent before it had read that all is over.
            (Phase::Over, message) if !matches!(message, ToGuest::Start(_)) => Ok(()),
            (_, message) => Err(SessionError::Unexpected { message: name_of(&message) }),
        }
    }

    /// A message to a workload that runs, or has ended without the host having read that.
    fn on_order(&mut self, message: ToGuest) -> Result<(), SessionError> {
        match message {
            ToGuest::Exec(number, further) => {
                let workload = self.phase.workload();
                self.furthers.begin(number, &further, workload, &mut self.channel)
            }
            ToGuest::Stats => {
                let figures = match self.phase.workload() {
                    Some(workload) => workload.figures(),
                    None => Err("it has just ended".to_owned()),
                };
                Ok(self.channel.send(&FromGuest::Figures(figures))?)
            }
            ToGuest::Clock(nanos) if self.surroundings.own_machine => {
                seed::correct_clock(nanos).map_err(|errno| local("set the clock", errno))
            }
            ToGuest::Clock(_) => Ok(()),
            message => match session_of(&message) {
                Some(Number::WORKLOAD) => self.on_workload(message),
                Some(number) => self.furthers.take(number, message),
                None => Err(SessionError::Unexpected { message: name_of(&message) }),
            },
        }
    }

    fn on_workload(&mut self, message: ToGuest) -> Result<(), SessionError> {
        match (&mut self.phase, message) {
            (Phase::Running(workload, _), ToGuest::Signal(_, signal)) => workload.signal(signal),
            // It has ended.
            (_, ToGuest::Signal(..)) => {}
            (phase, message) => {
                if let Some(streams) = phase.streams_mut() {
                    streams.take(message)?;
                }
            }
        }
        Ok(())
    }

    fn on_start(&mut self, start: &Start) -> Result<(), SessionError> {
        if self.surroundings.own_machine {
            seed::set_clock(start.clock_nanos).map_err(|errno| local("set the clock", errno))?;
            seed::add_entropy(start.entropy).map_err(|error| local("add entropy", error))?;
        }
        let has_terminal = start.sandbox.process.terminal.is_some();
        let (streams, theirs) =
            stdio::make(Number::WORKLOAD.credit(), has_terminal, start.merge_output)
                .map_err(|error| local("make the workload's pipes", error))?;
        match Workload::spawn(&start.sandbox, self.surroundings, theirs) {
            Ok(workload) => {
                self.phase = Phase::SettingUp(workload, streams);
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    /// The first process has something to say, or has closed its end.
    fn on_report(&mut self) -> Result<(), SessionError> {
        let Some(workload) = self.phase.workload_mut() else { return Ok(()) };
        let report = workload.report();
        let Phase::SettingUp(workload, streams) = &mut self.phase else { return Ok(()) };
        match report {
            Some(Report::Ready { terminal, .. }) => {
                if let Some(master) = terminal {
                    streams
                        .attach_terminal(master)
                        .map_err(|error| local("take the workload's terminal", error))?;
                }
                match workload.start() {
                    Ok(()) => Ok(()),
                    Err(error) => self.fail(error),
                }
            }
            Some(Report::Started) => self.run(),
            None if workload.is_the_command() => self.run(),
            Some(Report::Failed(error)) => self.fail(error),
            Some(Report::Exited(_)) | None => self.fail(workload::killed()),
        }
    }

    fn run(&mut self) -> Result<(), SessionError> {
        if let Phase::SettingUp(workload, streams) = self.phase.take() {
            self.phase = Phase::Running(workload, streams);
        }
        Ok(self.channel.send(&FromGuest::Started(Number::WORKLOAD))?)
    }

    /// All processes of the workload have ended, and nothing they said is left unread.
    fn on_end(&mut self) -> Result<(), SessionError> {
        match self.phase.take() {
            Phase::SettingUp(..) => self.fail(workload::killed()),
            Phase::Running(mut workload, streams) => {
                let exit = workload.wait().map_err(|error| local("reap the workload", error))?;
                self.phase = Phase::Draining(exit, streams);
                self.furthers.abandon()
            }
            other => {
                self.phase = other;
                Ok(())
            }
        }
    }

    fn fail(&mut self, error: StartError) -> Result<(), SessionError> {
        self.phase = Phase::Over;
        Ok(self.channel.send(&FromGuest::Failed(Number::WORKLOAD, error))?)
    }

    fn finish_draining(&mut self, silence: bool) -> Result<(), SessionError> {
        let Phase::Draining(exit, streams) = &self.phase else { return Ok(()) };
        let is_open = streams.has_output() && !(silence && streams.may_be_read());
        let exited = FromGuest::Exited(*exit);
        if silence {
            self.furthers.end(&mut self.channel)?;
        }
        if is_open || !self.furthers.is_empty() {
            return Ok(());
        }
        self.phase = Phase::Over;
        Ok(self.channel.send(&exited)?)
    }
}

/// The session that a message is about, if it is about one.
fn session_of(message: &ToGuest) -> Option<Number> {
    match message {
        ToGuest::Exec(number, _)
        | ToGuest::Stdin(number, _)
        | ToGuest::StdinEnd(number)
        | ToGuest::Credit(number, ..)
        | ToGuest::Signal(number, _)
        | ToGuest::Resize(number, _)
        | ToGuest::CloseStream(number, _)
        | ToGuest::HangUp(number) => Some(*number),
        ToGuest::Start(_) | ToGuest::Stats | ToGuest::Clock(_) => None,
    }
}

impl Phase {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Over)
    }

    fn workload(&self) -> Option<&Workload> {
        match self {
            Self::SettingUp(workload, _) | Self::Running(workload, _) => Some(workload),
            Self::Waiting | Self::Draining(..) | Self::Over => None,
        }
    }

    fn workload_mut(&mut self) -> Option<&mut Workload> {
        match self {
            Self::SettingUp(workload, _) | Self::Running(workload, _) => Some(workload),
            Self::Waiting | Self::Draining(..) | Self::Over => None,
        }
    }

    fn streams(&self) -> Option<&Streams> {
        match self {
            Self::Running(_, streams) | Self::Draining(_, streams) => Some(streams),
            Self::Waiting | Self::SettingUp(..) | Self::Over => None,
        }
    }

    fn streams_mut(&mut self) -> Option<&mut Streams> {
        match self {
            Self::Running(_, streams) | Self::Draining(_, streams) => Some(streams),
            Self::Waiting | Self::SettingUp(..) | Self::Over => None,
        }
    }
}

pub(crate) fn local(step: &'static str, source: impl Into<std::io::Error>) -> SessionError {
    SessionError::Local { step, source: source.into() }
}

/// A message's name, for errors.
pub(crate) fn name_of(message: &ToGuest) -> &'static str {
    message.name()
}

/// `uname -r`, at most 64 bytes as Linux itself limits it.
fn kernel_release() -> String {
    let names = nix::sys::utsname::uname();
    let release = names.map(|names| names.release().to_string_lossy().into_owned());
    release.unwrap_or_default().chars().take(64).collect()
}
