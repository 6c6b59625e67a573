//! Further processes in a container that runs.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use moat_core::diagnose::{Code, Fault};
use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{Process, StartError, TerminalSize};
use moat_core::spec::Signal;
use moat_core::workload::{self, Exec, SessionEvent, SessionId};
use moat_init::cgroup::{Cgroup, JoinFiles};
use moat_init::enter::{self, Door, Way};
use moat_init::rootfs::UserNamespace;
use moat_init::session::{self, Heard, Places, Ready, Session};
use moat_init::watch::Watch;
use nix::errno::Errno;

use crate::create::{own_pipes, unjoinable};
use crate::fault::{self, fault};
use crate::mapping::{self, Mapping};
use crate::running::Running;

/// The sessions of a container.
pub(crate) struct Sessions {
    /// The workload's own process.
    own: Process,
    mapping: Mapping,
    /// Where this process has no rights over the container's.
    namespaces: Option<enter::Namespaces>,
    next: u64,
    living: Vec<(SessionId, Session)>,
    news: VecDeque<(SessionId, SessionEvent)>,
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
        self.living.iter().map(|(_, session)| session.watch(watch)).collect()
    }

    /// Moves those on of which something can be heard.
    pub(crate) fn pass(&mut self, ready: &[Ready]) -> nix::Result<()> {
        let mut ready = ready.iter().copied();
        let mut passed = Ok(());
        for (id, session) in std::mem::take(&mut self.living) {
            let (session, event) = match session.hear(ready.next().unwrap_or_default()) {
                Ok(Heard::Nothing(session)) => (Some(session), None),
                Ok(Heard::Started(session, terminal)) => {
                    (Some(session), Some(SessionEvent::Started { terminal }))
                }
                Ok(Heard::Failed(error)) => (None, Some(SessionEvent::Failed(failure(error)))),
                Ok(Heard::Ended(status)) => (None, Some(SessionEvent::Ended(status))),
                // The others must be reaped all the same.
                Err(errno) => {
                    passed = Err(errno);
                    (None, None)
                }
            };
            self.living.extend(session.map(|session| (id, session)));
            self.news.extend(event.map(|event| (id, event)));
        }
        passed
    }

    /// Waits for all of them, after the container's processes were killed.
    pub(crate) fn end(&mut self) -> nix::Result<()> {
        std::mem::take(&mut self.living).into_iter().try_for_each(|(_, session)| session.end())
    }
}

fn failure(error: StartError) -> Fault {
    if session::has_ended(&error) {
        return Fault::new(Code::NotRunning, "the workload has just ended").hint("run it again");
    }
    fault::start(error)
}

impl Running {
    fn door(&self) -> Result<Door<'_>, Fault> {
        let join = self.cgroup.as_ref().map(Cgroup::join_files).transpose();
        let way = match &self.sessions.namespaces {
            Some(namespaces) => Way::By(namespaces),
            None => {
                Way::Through(self.first(), enter::kinds(UserNamespace::Own, self.cgroup.is_some()))
            }
        };
        let cgroup: JoinFiles = join.map_err(unjoinable)?.unwrap_or_default();
        let mapping = &self.sessions.mapping;
        Ok(Door { way, ids: mapping::ids(mapping), exposed: mapping.exposes_executable(), cgroup })
    }
}

impl Exec for Running {
    fn own(&self) -> &Process {
        &self.sessions.own
    }

    fn exec(&mut self, process: &Process, stdio: Option<[OwnedFd; 3]>) -> Result<SessionId, Fault> {
        if self.paused {
            return Err(workload::paused());
        }
        if self.sessions.living.len() >= workload::MAX_SESSIONS {
            return Err(workload::too_many_sessions());
        }
        if let Some(stdio) = stdio.as_ref().filter(|_| !self.sessions.mapping.is_plain_user()) {
            own_pipes(stdio, mapping::owner(&self.sessions.mapping));
        }
        let door = self.door()?;
        let cgroup = self.cgroup.as_ref().and_then(Cgroup::dir);
        let session = Session::begin(process, &door, cgroup, stdio).map_err(no_more)?;
        FaultPoint::SessionMade.reached();
        let id = SessionId(self.sessions.next);
        self.sessions.next += 1;
        self.sessions.living.push((id, session));
        Ok(id)
    }

    fn signal(&mut self, session: SessionId, signal: Signal) -> Result<(), Fault> {
        let found = self.sessions.living.iter().find(|(id, _)| *id == session);
        let Some((_, session)) = found else { return Ok(()) };
        let what = || format!("can't send signal {}", signal.number());
        session.signal(signal).map_err(|errno| fault(what(), errno))
    }

    /// Whoever was given the terminal's master has done it.
    fn resize(&mut self, _: SessionId, _: TerminalSize) -> Result<(), Fault> {
        Ok(())
    }

    fn abandon(&mut self, session: SessionId) -> Result<(), Fault> {
        let found = self.sessions.living.iter_mut().find(|(id, _)| *id == session);
        let Some((_, session)) = found else { return Ok(()) };
        session.abandon().map_err(|errno| fault("can't end a process that enters", errno))
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
