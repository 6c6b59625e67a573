//! Further processes of the workload: entered by moat-init as in a container, their streams passed
//! on, their ends told.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use moat_core::sandbox::{ExitStatus, StartError};
use moat_core::wire::{self, FromGuest, Session as Number, ToGuest};
use moat_core::workload::MAX_SESSIONS;
use moat_init::session::{self, Heard, Session};
use moat_init::watch::Watch;

use crate::channel::Channel;
use crate::session::{SessionError, local, name_of};
use crate::stdio::{self, Moved, StreamPlaces, Streams, StreamsReady};
use crate::workload::{Workload, failed};

/// The most that is taken of what a process has written before its end: what a pipe holds at most,
/// unless root raises it (pipe(7), /proc/sys/fs/pipe-max-size). What it leaves running may write on
/// for ever.
const HOLDS_AT_MOST: usize = 1 << 20;

/// All of them that the host has not been told the end of.
#[derive(Debug, Default)]
pub(crate) struct Furthers {
    last: u32,
    living: BTreeMap<Number, Further>,
}

#[derive(Debug)]
struct Further {
    state: State,
    streams: Streams,
}

#[derive(Debug)]
enum State {
    Living(Session),
    /// It has ended; so many bytes are still taken of what it has written.
    Draining(ExitStatus, usize),
}

/// Where their descriptors are among those that are watched.
#[derive(Debug)]
pub(crate) struct Watched(Vec<(Number, Option<session::Places>, Option<StreamPlaces>)>);

/// Of what something can be heard or moved.
#[derive(Debug, Default)]
pub(crate) struct Ready(Vec<(Number, session::Ready, StreamsReady)>);

impl Watched {
    pub(crate) fn ready(&self, watch: &Watch<'_>) -> Ready {
        let ready = self.0.iter().map(|(number, session, streams)| {
            let session = session.as_ref().map(|places| places.ready(watch));
            let streams = streams.as_ref().map(|places| places.ready(watch));
            (*number, session.unwrap_or_default(), streams.unwrap_or_default())
        });
        Ready(ready.collect())
    }
}

impl Furthers {
    pub(crate) fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// Begins one; what comes of it is told later.
    pub(crate) fn begin(
        &mut self,
        number: Number,
        further: &wire::Further,
        workload: Option<&Workload>,
        channel: &mut Channel,
    ) -> Result<(), SessionError> {
        if number.0 <= self.last || self.living.len() >= MAX_SESSIONS {
            return Err(SessionError::Unexpected { message: "Exec" });
        }
        self.last = number.0;
        // One that is over: the host reads of that next.
        let Some(workload) = workload else { return Ok(()) };
        match start(number, further, workload) {
            Ok(further) => {
                self.living.insert(number, further);
                Ok(())
            }
            Err(error) => Ok(channel.send(&FromGuest::Failed(number, error))?),
        }
    }

    /// Takes a message about one of them. What the host says of one that has just ended, it says
    /// before it has read that.
    pub(crate) fn take(&mut self, number: Number, message: ToGuest) -> Result<(), SessionError> {
        let Some(further) = self.living.get_mut(&number) else {
            let message = name_of(&message);
            return if number.0 <= self.last {
                Ok(())
            } else {
                Err(SessionError::Unexpected { message })
            };
        };
        match (&mut further.state, message) {
            (State::Living(session), ToGuest::Signal(_, signal)) => {
                // Fails only for one that has just ended.
                let _ = session.signal(signal);
            }
            (state, ToGuest::HangUp(_)) => {
                if let State::Living(session) = state {
                    session.abandon().map_err(|errno| local("end what enters", errno))?;
                }
                further.streams.hang_up();
            }
            (State::Draining(..), ToGuest::Signal(..)) => {}
            (_, message) => further.streams.take(message)?,
        }
        Ok(())
    }

    /// Adds what they wait for. What a command has written before it was heard that it runs stays
    /// where it is until the host has been told that.
    pub(crate) fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Watched {
        let places = self.living.iter().map(|(number, further)| {
            let (session, runs) = match &further.state {
                State::Living(session) => (Some(session.watch(watch)), session.is_running()),
                State::Draining(..) => (None, true),
            };
            (*number, session, runs.then(|| further.streams.watch(watch)))
        });
        Watched(places.collect())
    }

    /// Moves on all of which something can be heard or moved.
    pub(crate) fn pass(
        &mut self,
        ready: &Ready,
        channel: &mut Channel,
        buffer: &mut [u8],
    ) -> Result<(), SessionError> {
        for (number, heard, streams) in &ready.0 {
            let Some(mut further) = self.living.remove(number) else { continue };
            let moved = further.streams.pass(*number, streams, channel, buffer)?;
            let further = match further.state {
                State::Living(session) => {
                    hear(*number, session.hear(*heard), further.streams, channel)?
                }
                State::Draining(status, left) => {
                    let left = left.saturating_sub(moved.bytes);
                    further.state = State::Draining(status, left);
                    Some(further)
                }
            };
            self.living.extend(further.map(|further| (*number, further)));
        }
        self.settle(channel, buffer)
    }

    /// Tells the end of those that have ended and have nothing more to be taken.
    fn settle(&mut self, channel: &mut Channel, buffer: &mut [u8]) -> Result<(), SessionError> {
        let mut ended = Vec::new();
        for (number, further) in &mut self.living {
            let State::Draining(status, left) = &mut further.state else { continue };
            let Moved { bytes, is_dry } = further.streams.drain(*number, channel, buffer)?;
            *left = left.saturating_sub(bytes);
            if is_dry || *left == 0 {
                ended.push((*number, *status));
            }
        }
        ended.into_iter().try_for_each(|(number, status)| {
            self.living.remove(&number);
            Ok(channel.send(&FromGuest::Ended(number, status))?)
        })
    }

    /// The workload has ended: those that were about to enter it never will.
    pub(crate) fn abandon(&mut self) -> Result<(), SessionError> {
        self.living.values_mut().try_for_each(|further| match &mut further.state {
            State::Living(session) => {
                session.abandon().map_err(|errno| local("end what enters", errno))
            }
            State::Draining(..) => Ok(()),
        })
    }

    /// Nobody takes what they have written: tells their ends all the same.
    pub(crate) fn end(&mut self, channel: &mut Channel) -> Result<(), SessionError> {
        for (number, further) in std::mem::take(&mut self.living) {
            let status = match further.state {
                State::Living(session) => {
                    session.end().map_err(|errno| local("end a process", errno))?;
                    ExitStatus::Signal(moat_core::spec::Signal::KILL)
                }
                State::Draining(status, _) => status,
            };
            channel.send(&FromGuest::Ended(number, status))?;
        }
        Ok(())
    }
}

fn start(
    number: Number,
    further: &wire::Further,
    workload: &Workload,
) -> Result<Further, StartError> {
    let with_terminal = further.process.terminal.is_some();
    let (streams, theirs) = stdio::make(number.credit(), with_terminal, further.merge_output)
        .map_err(|error| failed("make the process's pipes", &error))?;
    let stdio = if with_terminal { None } else { Some(theirs) };
    let session = workload.enter(&further.process, stdio)?;
    Ok(Further { state: State::Living(session), streams })
}

/// What becomes of one after something was heard.
fn hear(
    number: Number,
    heard: nix::Result<Heard>,
    mut streams: Streams,
    channel: &mut Channel,
) -> Result<Option<Further>, SessionError> {
    let state = match heard.map_err(|errno| local("hear a process", errno))? {
        Heard::Nothing(session) => State::Living(session),
        Heard::Started(session, terminal) => {
            attach(&mut streams, terminal)?;
            channel.send(&FromGuest::Started(number))?;
            State::Living(session)
        }
        Heard::Failed(error) => {
            channel.send(&FromGuest::Failed(number, error))?;
            return Ok(None);
        }
        Heard::Ended(status) => State::Draining(status, HOLDS_AT_MOST),
    };
    Ok(Some(Further { state, streams }))
}

fn attach(streams: &mut Streams, terminal: Option<OwnedFd>) -> Result<(), SessionError> {
    let Some(master) = terminal else { return Ok(()) };
    streams.attach_terminal(master).map_err(|error| local("take a process's terminal", error))
}
