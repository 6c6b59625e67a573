//! One more process in a workload that runs, from its owner's side: begun, heard, ended.
//!
//! ```text
//! entering ──the line ends──▶ running ──it ends──▶ Ended
//!     └──Failed, or the line ends too early──▶ Failed
//! ```
//! Its processes are its owner's children, and the workload's first process can't end before they
//! were reaped (`zap_pid_ns_processes` in the kernel): whoever begins one has to go on hearing it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{ExitStatus, Process, StartError};
use moat_core::spec::Signal;
use nix::poll::PollFlags;

use crate::enter::{self, Door, Owner, Report, Wiring};
use crate::sys::clone::{self, Child, Namespaces, reap_group};
use crate::sys::process::kill_group;
use crate::watch::{Place, Watch};

/// A further process, in the hands of its owner.
#[derive(Debug)]
pub struct Session(State);

/// What was heard of a session.
#[derive(Debug)]
pub enum Heard {
    /// Nothing that anybody need be told.
    Nothing(Session),
    /// Its command runs, on this terminal if it has one, of which this is the master.
    Started(Session, Option<OwnedFd>),
    /// Its command did not come to run. It is over.
    Failed(StartError),
    /// Its command has ended. It is over.
    Ended(ExitStatus),
}

#[derive(Debug)]
enum State {
    /// Its process is not the command yet.
    Entering(Entering),
    /// Its process is the command.
    Running(Child),
}

/// What has been heard of a process that is not the command yet.
#[derive(Debug)]
struct Entering {
    line: Owner,
    enterer: Child,
    process: Option<Child>,
    terminal: Option<OwnedFd>,
    failed: Option<StartError>,
}

/// Where a session's descriptors are among those that are watched.
#[derive(Debug)]
pub struct Places {
    line: Place,
    process: Place,
}

/// Of what something can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    line: bool,
    process: bool,
}

impl Places {
    /// After the wait.
    pub fn ready(&self, watch: &Watch<'_>) -> Ready {
        Ready { line: watch.is_ready(self.line), process: watch.is_ready(self.process) }
    }
}

impl Ready {
    /// Whether there is anything.
    pub fn is_any(self) -> bool {
        self.line || self.process
    }
}

impl Session {
    /// Begins to enter through `door` and to start the process. `cgroup` is the group (v2) that it
    /// is born in; `stdio` is its stdin, stdout and stderr, unless it has a terminal.
    ///
    /// The calling process must have no other thread.
    ///
    /// # Errors
    /// clone(2)'s and socketpair(2)'s; all that fails later is told by [`hear`](Self::hear).
    pub fn begin(
        process: &Process,
        door: &Door<'_>,
        cgroup: Option<BorrowedFd<'_>>,
        stdio: Option<[OwnedFd; 3]>,
    ) -> nix::Result<Self> {
        let (line, theirs) = enter::line()?;
        let wiring = Wiring { line: theirs, stdio };
        let options = clone::Options { namespaces: Namespaces::NONE, cgroup };
        let enterer = clone::spawn(options, || enter::run(process, door, wiring))?;
        let (process, terminal, failed) = (None, None, None);
        Ok(Self(State::Entering(Entering { line, enterer, process, terminal, failed })))
    }

    /// Whether its process is the command already.
    pub fn is_running(&self) -> bool {
        matches!(self.0, State::Running(_))
    }

    /// Adds what it waits for.
    pub fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Places {
        match &self.0 {
            State::Entering(entering) => entering.watch(watch),
            State::Running(process) => Places {
                line: watch.add(None, PollFlags::POLLIN),
                process: watch.add(Some(process.as_fd()), PollFlags::POLLIN),
            },
        }
    }

    /// What becomes of it after a wait.
    ///
    /// # Errors
    /// waitid(2)'s.
    pub fn hear(self, ready: Ready) -> nix::Result<Heard> {
        let entering = match self.0 {
            state if !ready.is_any() => return Ok(Heard::Nothing(Self(state))),
            State::Running(process) => {
                return Ok(match process.try_wait()? {
                    None => Heard::Nothing(Self(State::Running(process))),
                    Some(status) => Heard::Ended(status),
                });
            }
            State::Entering(entering) => entering,
        };
        let end = match entering.hear(ready) {
            Word::More(entering) => return Ok(Heard::Nothing(Self(State::Entering(entering)))),
            Word::Last(end) => end,
        };
        Ok(match end.settle()? {
            Ok((process, terminal)) => Heard::Started(Self(State::Running(process)), terminal),
            Err(error) => Heard::Failed(error),
        })
    }

    /// Sends its process a signal, as keys would where it is one of theirs. To one that is not the
    /// command yet it does nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        match &self.0 {
            State::Running(process) => process.signal_as_keys(signal),
            State::Entering(_) => Ok(()),
        }
    }

    /// Nobody waits for its start any more: one whose process is not the command yet never becomes
    /// it. It still has to be heard.
    ///
    /// # Errors
    /// The kernel's.
    pub fn abandon(&mut self) -> nix::Result<()> {
        let State::Entering(entering) = &mut self.0 else { return Ok(()) };
        entering.failed.get_or_insert_with(ended);
        entering.enterer.signal(Signal::KILL)?;
        match &entering.process {
            Some(process) => process.signal(Signal::KILL),
            // It may be there all the same, and then is in that group, or there is none yet.
            None => {
                let _ = kill_group(entering.enterer.pid(), Signal::KILL);
                Ok(())
            }
        }
    }

    /// Kills it, wherever it has come to, and waits for it.
    ///
    /// # Errors
    /// waitid(2)'s.
    pub fn end(self) -> nix::Result<()> {
        let process = match self.0 {
            State::Running(process) => process,
            State::Entering(mut entering) => {
                entering.enterer.signal(Signal::KILL)?;
                let end = loop {
                    let mut watch = Watch::default();
                    let places = entering.watch(&mut watch);
                    watch.wait(None)?;
                    let ready = places.ready(&watch);
                    drop(watch);
                    match entering.hear(ready) {
                        Word::More(more) => entering = more,
                        Word::Last(end) => break end,
                    }
                };
                match end.settle()? {
                    Ok((process, _)) => process,
                    Err(_) => return Ok(()),
                }
            }
        };
        process.signal(Signal::KILL)?;
        process.wait().map(drop)
    }
}

/// What a line has said.
enum Word {
    /// Something, perhaps not the last.
    More(Entering),
    /// There is nothing more.
    Last(Entering),
}

impl Entering {
    fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Places {
        Places {
            line: watch.add(Some(self.line.as_fd()), PollFlags::POLLIN),
            process: watch.add(self.process.as_ref().map(Child::as_fd), PollFlags::POLLIN),
        }
    }

    fn hear(mut self, ready: Ready) -> Word {
        if !ready.line {
            // It has ended. Another of the workload's processes may have taken its line from it.
            return Word::Last(self);
        }
        match self.line.receive() {
            // The first counts: on its last steps the process is within reach of the workload's.
            Ok(Some(Report::Entered(process))) => {
                FaultPoint::SessionHeard.reached();
                self.process = self.process.or(Some(process));
            }
            Ok(Some(Report::Terminal(master))) => self.terminal = self.terminal.or(Some(master)),
            Ok(Some(Report::Failed(error))) => {
                self.failed.get_or_insert(error);
            }
            Ok(None) | Err(_) => return Word::Last(self),
        }
        Word::More(self)
    }

    /// After the last word: its process, which has become the command, or why it did not.
    fn settle(self) -> nix::Result<Result<(Child, Option<OwnedFd>), StartError>> {
        let reaped = match self.process {
            Some(process) if self.failed.is_none() => {
                self.enterer.wait()?;
                return Ok(Ok((process, self.terminal)));
            }
            // What was said of it may be a lie of the workload's: it must not keep its owner.
            Some(process) => process.signal(Signal::KILL).and_then(|()| process.wait().map(drop)),
            // It may be there all the same, when who made it was killed before it could say so.
            None => {
                let _ = kill_group(self.enterer.pid(), Signal::KILL);
                reap_group(self.enterer.pid())
            }
        };
        // Either way it is gone now, or has nothing more to do.
        let _ = self.enterer.signal(Signal::KILL);
        let _ = self.enterer.wait();
        reaped?;
        Ok(Err(self.failed.unwrap_or_else(ended)))
    }
}

fn ended() -> StartError {
    StartError::Setup { step: enter::ENTER.to_owned(), reason: enter::ENDED.to_owned() }
}

/// Whether this is the failure of a session whose workload ended meanwhile.
pub fn has_ended(error: &StartError) -> bool {
    *error == ended()
}
