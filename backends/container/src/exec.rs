//! Further processes in a container that runs.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use moat_core::diagnose::{Code, Fault};
use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{Process, StartError};
use moat_core::spec::Signal;
use moat_core::workload::{Exec, SessionEvent, SessionId};
use moat_init::cgroup::{Cgroup, JoinFiles};
use moat_init::enter::{self, Door, Owner, Report, Way, Wiring};
use moat_init::sys::clone::{self, Child, Namespaces, reap_group};
use moat_init::sys::process::kill_group;
use moat_init::watch::{Place, Watch};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sched::CloneFlags;

use crate::create::{own_pipes, unjoinable};
use crate::fault::{self, fault};
use crate::mapping::Mapping;
use crate::running::Running;

/// The sessions of a container. Their processes are this process's children: the container's
/// first process can't end before they were reaped (`zap_pid_ns_processes` in the kernel).
pub(crate) struct Sessions {
    /// The workload's own process.
    own: Process,
    mapping: Mapping,
    /// Where this process has no rights over the container's.
    namespaces: Option<enter::Namespaces>,
    next: u64,
    living: Vec<(SessionId, State)>,
    news: VecDeque<(SessionId, SessionEvent)>,
}

/// Where a session is in its life.
enum State {
    /// Its process is not the command yet.
    Entering(Entering),
    /// Its process is the command.
    Running(Child),
}

/// What has been heard of a process that is not the command yet.
struct Entering {
    line: Owner,
    enterer: Child,
    process: Option<Child>,
    terminal: Option<OwnedFd>,
    failed: Option<StartError>,
}

impl Sessions {
    pub(crate) fn new(
        own: Process,
        mapping: Mapping,
        namespaces: Option<enter::Namespaces>,
    ) -> Self {
        Self { own, mapping, namespaces, next: 0, living: Vec::new(), news: VecDeque::new() }
    }

    /// Whether something was not told yet.
    pub(crate) fn have_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Adds what they wait for.
    pub(crate) fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Vec<Places> {
        self.living.iter().map(|(_, state)| state.watch(watch)).collect()
    }

    /// Moves those on of which something can be heard.
    pub(crate) fn pass(&mut self, ready: &[Ready]) -> nix::Result<()> {
        let mut ready = ready.iter().copied();
        let mut passed = Ok(());
        for (id, state) in std::mem::take(&mut self.living) {
            let state = match ready.next() {
                Some(ready) if ready != Ready::default() => self.hear(id, state, ready),
                _ => Ok(Some(state)),
            };
            match state {
                Ok(state) => self.living.extend(state.map(|state| (id, state))),
                // The others must be reaped all the same.
                Err(errno) => passed = Err(errno),
            }
        }
        passed
    }

    /// What becomes of a session after one thing was heard; `None` when it is over.
    fn hear(&mut self, id: SessionId, state: State, ready: Ready) -> nix::Result<Option<State>> {
        let entering = match state {
            State::Running(process) => {
                return match process.try_wait()? {
                    None => Ok(Some(State::Running(process))),
                    Some(status) => {
                        self.news.push_back((id, SessionEvent::Ended(status)));
                        Ok(None)
                    }
                };
            }
            State::Entering(entering) => entering,
        };
        let entering = match entering.hear(ready) {
            Heard::More(entering) => return Ok(Some(State::Entering(entering))),
            Heard::End(entering) => entering,
        };
        let (event, state) = match entering.settle()? {
            Ok((process, terminal)) => {
                (SessionEvent::Started { terminal }, Some(State::Running(process)))
            }
            Err(error) => (SessionEvent::Failed(failure(error)), None),
        };
        self.news.push_back((id, event));
        Ok(state)
    }

    /// Waits for all of them, after the container's processes were killed.
    pub(crate) fn end(&mut self) -> nix::Result<()> {
        for (_, state) in std::mem::take(&mut self.living) {
            let process = match state {
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
                            Heard::More(more) => entering = more,
                            Heard::End(end) => break end,
                        }
                    };
                    match end.settle()? {
                        Ok((process, _)) => process,
                        Err(_) => continue,
                    }
                }
            };
            process.signal(Signal::KILL)?;
            process.wait()?;
        }
        Ok(())
    }
}

/// Where a session's descriptors are among those that are watched.
pub(crate) struct Places {
    line: Place,
    process: Place,
}

/// Of what something can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ready {
    line: bool,
    process: bool,
}

impl Places {
    pub(crate) fn ready(&self, watch: &Watch<'_>) -> Ready {
        Ready { line: watch.is_ready(self.line), process: watch.is_ready(self.process) }
    }
}

/// What a line has said.
enum Heard {
    /// Something, perhaps not the last.
    More(Entering),
    /// There is nothing more.
    End(Entering),
}

impl State {
    fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Places {
        match self {
            Self::Entering(entering) => entering.watch(watch),
            Self::Running(process) => Places {
                line: watch.add(None, PollFlags::POLLIN),
                process: watch.add(Some(process.as_fd()), PollFlags::POLLIN),
            },
        }
    }
}

impl Entering {
    fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Places {
        Places {
            line: watch.add(Some(self.line.as_fd()), PollFlags::POLLIN),
            process: watch.add(self.process.as_ref().map(Child::as_fd), PollFlags::POLLIN),
        }
    }

    fn hear(mut self, ready: Ready) -> Heard {
        if !ready.line {
            // It has ended. Another of the workload's processes may have taken its line from it.
            return Heard::End(self);
        }
        match self.line.receive() {
            // The first counts: on its last steps the process is within reach of the workload's.
            Ok(Some(Report::Entered(process))) => {
                FaultPoint::SessionHeard.reached();
                self.process = self.process.or(Some(process));
            }
            Ok(Some(Report::Terminal(master))) => self.terminal = self.terminal.or(Some(master)),
            Ok(Some(Report::Failed(error))) => self.failed = Some(error),
            Ok(None) | Err(_) => return Heard::End(self),
        }
        Heard::More(self)
    }

    /// After the last word: its process, which has become the command, or why it did not.
    fn settle(self) -> nix::Result<Result<(Child, Option<OwnedFd>), StartError>> {
        let reaped = match self.process {
            Some(process) if self.failed.is_none() => {
                self.enterer.wait()?;
                return Ok(Ok((process, self.terminal)));
            }
            // What was said of it may be a lie of the workload's: it must not keep the monitor.
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
        Ok(Err(self.failed.unwrap_or_else(|| StartError::Setup {
            step: enter::ENTER.to_owned(),
            reason: enter::ENDED.to_owned(),
        })))
    }
}

fn failure(error: StartError) -> Fault {
    match &error {
        StartError::Setup { step, reason } if step == enter::ENTER && reason == enter::ENDED => {
            Fault::new(Code::NotRunning, "the workload has just ended").hint("run it again")
        }
        _ => fault::start(error),
    }
}

impl Running {
    fn door(&self) -> Result<Door<'_>, Fault> {
        let join = self.cgroup.as_ref().map(Cgroup::join_files).transpose();
        let way = match &self.sessions.namespaces {
            Some(namespaces) => Way::By(namespaces),
            None => Way::Through(self.first(), kinds(self.cgroup.is_some())),
        };
        let cgroup: JoinFiles = join.map_err(unjoinable)?.unwrap_or_default();
        let mapping = &self.sessions.mapping;
        Ok(Door { way, ids: mapping.ids(), exposed: mapping.exposes_executable(), cgroup })
    }
}

/// The namespaces that a container made by root has of its own.
fn kinds(cgroup: bool) -> CloneFlags {
    let kinds = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET;
    // A kernel may have none of cgroups.
    if cgroup && Path::new("/proc/self/ns/cgroup").exists() {
        kinds | CloneFlags::CLONE_NEWCGROUP
    } else {
        kinds
    }
}

impl Exec for Running {
    fn own(&self) -> &Process {
        &self.sessions.own
    }

    fn exec(&mut self, process: &Process, stdio: Option<[OwnedFd; 3]>) -> Result<SessionId, Fault> {
        if self.paused {
            return Err(Fault::new(Code::NotRunning, "the workload is paused")
                .hint("let it go on first: `moat resume`"));
        }
        if let Some(stdio) = stdio.as_ref().filter(|_| !self.sessions.mapping.is_plain_user()) {
            own_pipes(stdio, self.sessions.mapping.owner());
        }
        let (line, theirs) = enter::line().map_err(|errno| fault("can't make a socket", errno))?;
        let wiring = Wiring { line: theirs, stdio };
        let door = self.door()?;
        let cgroup = self.cgroup.as_ref().and_then(Cgroup::dir);
        let options = clone::Options { namespaces: Namespaces::NONE, cgroup };
        let enterer = clone::spawn(options, || enter::run(process, &door, wiring));
        let enterer = enterer.map_err(no_more)?;
        FaultPoint::SessionMade.reached();
        let id = SessionId(self.sessions.next);
        self.sessions.next += 1;
        let (process, terminal, failed) = (None, None, None);
        let state = State::Entering(Entering { line, enterer, process, terminal, failed });
        self.sessions.living.push((id, state));
        Ok(id)
    }

    fn signal(&mut self, session: SessionId, signal: Signal) -> Result<(), Fault> {
        let found = self.sessions.living.iter().find(|(id, _)| *id == session);
        let Some((_, State::Running(process))) = found else { return Ok(()) };
        let what = || format!("can't send signal {}", signal.number());
        process.signal_as_keys(signal).map_err(|errno| fault(what(), errno))
    }

    fn next(&mut self) -> Option<(SessionId, SessionEvent)> {
        self.sessions.news.pop_front()
    }
}

fn no_more(errno: Errno) -> Fault {
    let fault = fault("can't start one more process in the workload", errno);
    match errno {
        Errno::EAGAIN => fault.hint("it may have as many as `resources.pids` allows: raise it"),
        _ => fault,
    }
}
