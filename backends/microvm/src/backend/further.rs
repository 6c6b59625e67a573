//! Further processes in the guest, as the host keeps them: their streams are other moats', which are
//! never waited for, and what the guest says of them is held against what it may say.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::{ExitStatus, StartError};
use moat_core::spec::Signal;
use moat_core::wire::{Credit, FromGuest, Message, Session, Stream, ToGuest, WireError};
use moat_core::workload::{MAX_SESSIONS, SessionEvent, SessionId, too_many_sessions};
use moat_init::session::has_ended;
use moat_init::watch::{Place, Watch};
use nix::poll::PollFlags;

use super::channel::Channel;
use super::client::Input;
use super::output::{Output, Pumped};

/// All of them, and what was not told of them yet.
#[derive(Debug, Default)]
pub(super) struct Furthers {
    last: u32,
    living: BTreeMap<Session, Further>,
    news: VecDeque<(SessionId, SessionEvent)>,
}

#[derive(Debug)]
struct Further {
    stage: Stage,
    /// Until its end.
    input: Option<Input>,
    credit: Credit,
    /// A terminal has the first alone.
    outputs: Vec<(Stream, Output)>,
    on_terminal: bool,
    /// The client's end of what leads to the terminal, until it is told that the command runs.
    terminal: Option<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its process is not the command yet.
    Entering,
    Running,
    /// It has ended; the client has yet to take what it had written.
    Ended(ExitStatus),
}

/// Where their descriptors are among those that are watched.
pub(super) struct Watched(Vec<(Session, Place, Vec<Place>)>);

/// Which can be moved.
pub(super) struct Ready(Vec<(Session, bool, Vec<bool>)>);

impl Watched {
    pub(super) fn ready(&self, watch: &Watch<'_>) -> Ready {
        let ready = self.0.iter().map(|(session, input, outputs)| {
            let outputs = outputs.iter().map(|output| watch.is_ready(*output)).collect();
            (*session, watch.is_ready(*input), outputs)
        });
        Ready(ready.collect())
    }
}

impl Furthers {
    /// One more, with these streams, or on a terminal; not yet said to the guest.
    pub(super) fn begin(&mut self, stdio: Option<[OwnedFd; 3]>) -> Result<Session, Fault> {
        if self.living.len() >= MAX_SESSIONS {
            return Err(too_many_sessions());
        }
        let session = self.last.checked_add(1).map(Session);
        let session = session.ok_or_else(too_many_sessions)?;
        let further = Further::new(session, stdio).map_err(|error| {
            Fault::new(Code::Microvm, "can't make the process's streams").because(error)
        })?;
        self.last = session.0;
        self.living.insert(session, further);
        Ok(session)
    }

    /// Whether its stdout and stderr go to the same place.
    pub(super) fn merges_output(&self, session: Session) -> bool {
        self.living.get(&session).is_some_and(Further::outputs_are_one)
    }

    /// One that could not be said to the guest.
    pub(super) fn forget(&mut self, session: Session) {
        self.living.remove(&session);
    }

    /// Whether the guest knows it and has not said that it is over.
    pub(super) fn is_living(&self, session: Session) -> bool {
        let further = self.living.get(&session);
        further.is_some_and(|further| !matches!(further.stage, Stage::Ended(_)))
    }

    /// Something was not told yet.
    pub(super) fn have_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What was not told yet.
    pub(super) fn next(&mut self) -> Option<(SessionId, SessionEvent)> {
        self.news.pop_front()
    }

    /// Whether clients have yet to take something.
    pub(super) fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// Adds what they wait for. Nothing is read that could not be sent.
    pub(super) fn watch<'w>(&'w self, watch: &mut Watch<'w>, may_read: bool) -> Watched {
        let places = self.living.iter().map(|(session, further)| {
            let reads =
                may_read && further.stage == Stage::Running && further.credit.available() > 0;
            let input = further.input.as_ref().filter(|_| reads).map(AsFd::as_fd);
            let input = watch.add(input, PollFlags::POLLIN);
            let outputs = further.outputs.iter();
            let outputs =
                outputs.map(|(_, output)| watch.add(output.wants_write(), PollFlags::POLLOUT));
            (*session, input, outputs.collect())
        });
        Watched(places.collect())
    }

    /// Passes on what can be.
    pub(super) fn pass(
        &mut self,
        ready: &Ready,
        channel: &mut Channel,
        buffer: &mut [u8],
    ) -> Result<(), WireError> {
        for (session, input, outputs) in &ready.0 {
            let Some(further) = self.living.get_mut(session) else { continue };
            further.write(*session, outputs, channel)?;
            if *input {
                further.read(*session, channel, buffer)?;
            }
        }
        self.settle();
        Ok(())
    }

    /// Tells the end of those of which all was taken.
    fn settle(&mut self) {
        let Self { living, news, .. } = self;
        living.retain(|session, further| match further.stage {
            Stage::Ended(status) if further.is_flushed() => {
                news.push_back((id(*session), SessionEvent::Ended(status)));
                false
            }
            _ => true,
        });
    }

    /// Takes what the guest says of one.
    pub(super) fn take(&mut self, session: Session, message: FromGuest) -> Result<(), WireError> {
        let unexpected = WireError::Session { message: message.name(), session: session.0 };
        let Some(further) = self.living.get_mut(&session) else { return Err(unexpected) };
        let id = id(session);
        match (further.stage, message) {
            (Stage::Entering, FromGuest::Started(_)) => {
                further.stage = Stage::Running;
                let terminal = further.terminal.take();
                self.news.push_back((id, SessionEvent::Started { terminal }));
            }
            (Stage::Entering, FromGuest::Failed(_, error)) => {
                self.living.remove(&session);
                self.news.push_back((id, SessionEvent::Failed(failure(error))));
            }
            (Stage::Running, FromGuest::Stdout(_, bytes)) => {
                further.output(Stream::Stdout).ok_or(unexpected)?.receive(&bytes)?;
            }
            (Stage::Running, FromGuest::Stderr(_, bytes)) => {
                further.output(Stream::Stderr).ok_or(unexpected)?.receive(&bytes)?;
            }
            (Stage::Running, FromGuest::Credit(_, bytes)) => further.credit.grant(bytes)?,
            (Stage::Running, FromGuest::Ended(_, status)) => {
                further.end(status);
                self.settle();
            }
            _ => return Err(unexpected),
        }
        Ok(())
    }

    /// Nobody waits for it any more. Whether the guest has to be told.
    pub(super) fn is_to_hang_up(&self, session: Session) -> bool {
        self.living.get(&session).is_some_and(|further| match further.stage {
            Stage::Entering => true,
            Stage::Running => further.on_terminal,
            Stage::Ended(_) => false,
        })
    }

    /// The workload has ended, and all of them with it.
    pub(super) fn end(&mut self) {
        let Self { living, news, .. } = self;
        living.retain(|session, further| match further.stage {
            Stage::Entering => {
                news.push_back((id(*session), SessionEvent::Failed(just_ended())));
                false
            }
            Stage::Running => {
                further.end(ExitStatus::Signal(Signal::KILL));
                true
            }
            Stage::Ended(_) => true,
        });
        self.settle();
    }

    /// Waits no longer for clients that do not take what there is for them.
    pub(super) fn give_up(&mut self) {
        for (session, further) in std::mem::take(&mut self.living) {
            if let Stage::Ended(status) = further.stage {
                self.news.push_back((id(session), SessionEvent::Ended(status)));
            }
        }
    }
}

impl Further {
    fn new(session: Session, stdio: Option<[OwnedFd; 3]>) -> io::Result<Self> {
        let credit = session.credit();
        let of_client = |stream, fd| (stream, Output::of_client(fd, credit));
        let on_terminal = stdio.is_none();
        let (input, outputs, terminal) = match stdio {
            Some([stdin, stdout, stderr]) => (
                Input::new(stdin),
                vec![of_client(Stream::Stdout, stdout), of_client(Stream::Stderr, stderr)],
                None,
            ),
            None => {
                let (ours, theirs) = UnixStream::pair()?;
                let output = of_client(Stream::Stdout, ours.try_clone()?.into());
                (Input::new(ours.into()), vec![output], Some(theirs.into()))
            }
        };
        let (input, credit) = (Some(input), Credit::new(credit));
        Ok(Self { stage: Stage::Entering, input, credit, outputs, on_terminal, terminal })
    }

    /// Whether stdout and stderr end in the same file, so that the order between them matters.
    fn outputs_are_one(&self) -> bool {
        match self.outputs.as_slice() {
            [(_, stdout), (_, stderr)] => stdout.is_same(stderr).unwrap_or(false),
            _ => false,
        }
    }

    fn output(&mut self, stream: Stream) -> Option<&mut Output> {
        self.outputs.iter_mut().find(|(of, _)| *of == stream).map(|(_, output)| output)
    }

    fn is_flushed(&self) -> bool {
        self.outputs.iter().all(|(_, output)| output.wants_write().is_none())
    }

    fn end(&mut self, status: ExitStatus) {
        self.stage = Stage::Ended(status);
        self.input = None;
    }

    fn read(
        &mut self,
        session: Session,
        channel: &mut Channel,
        buffer: &mut [u8],
    ) -> Result<(), WireError> {
        let room = self.credit.available().min(buffer.len());
        let (Some(input), Some(buffer)) = (&self.input, buffer.get_mut(..room)) else {
            return Ok(());
        };
        match input.read(buffer) {
            Ok(count @ 1..) => {
                self.credit.take(count)?;
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                channel.send(&ToGuest::Stdin(session, bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // Whatever it is: nothing more of it.
            Ok(_) | Err(_) => {
                self.input = None;
                // The end of input on a terminal is a key, and this is that nobody is there.
                channel.send(&match self.on_terminal {
                    true => ToGuest::HangUp(session),
                    false => ToGuest::StdinEnd(session),
                })
            }
        }
    }

    fn write(
        &mut self,
        session: Session,
        ready: &[bool],
        channel: &mut Channel,
    ) -> Result<(), WireError> {
        let is_over = matches!(self.stage, Stage::Ended(_));
        for ((stream, output), ready) in self.outputs.iter_mut().zip(ready) {
            if !ready {
                continue;
            }
            let message = match output.pump() {
                Ok(Pumped::Went(None)) => continue,
                Ok(Pumped::Went(Some(credit))) => ToGuest::Credit(session, *stream, credit),
                // A stream of the client's that fails is the client's to see.
                Ok(Pumped::Closed) | Err(_) => ToGuest::CloseStream(session, *stream),
            };
            if !is_over {
                channel.send(&message)?;
            }
        }
        Ok(())
    }
}

/// The session that a name is of.
pub(super) fn session(id: SessionId) -> Session {
    Session(u32::try_from(id.0).unwrap_or(u32::MAX))
}

/// The name of a session.
pub(super) fn id(session: Session) -> SessionId {
    SessionId(session.0.into())
}

fn failure(error: StartError) -> Fault {
    if has_ended(&error) { just_ended() } else { error.into_fault(Code::Microvm) }
}

/// The workload can't be entered any more.
pub(super) fn just_ended() -> Fault {
    Fault::new(Code::NotRunning, "the workload has just ended").hint("run it again")
}
