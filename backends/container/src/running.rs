//! A container that this process made: its start, signals, end and removal.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use moat_core::diagnose::{Code, Fault};
use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{Exit, ExitStatus, TerminalSize};
use moat_core::spec::Signal;
use moat_core::workload::{Exec, Figures, Pause, Stats, Terminal, Workload};
use moat_init::cgroup::{Cgroup, JoinFiles};
use moat_init::control::{Monitor, Report};
use moat_init::sys::clone::Child;
use moat_init::sys::tty;
use moat_init::watch::Watch;
use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::exec::Sessions;
use crate::fault::{self, fault};
use crate::relay::Relay;
use crate::remains::{PATIENCE, wait_for_end};

/// The container.
pub(crate) struct Running {
    child: Child,
    /// Until the first process has closed its end.
    monitor: Option<Monitor>,
    relay: Relay,
    pub(crate) cgroup: Option<Cgroup>,
    /// By which the first process joins that when it is told to start.
    join: JoinFiles,
    /// Whether all its processes are stopped.
    pub(crate) paused: bool,
    /// Whether the first process is moat's reaper, else it is the workload itself.
    reaper: bool,
    /// Further processes that were started in it.
    pub(crate) sessions: Sessions,
    /// What it uses, until that is told.
    pub(crate) answer: Option<Result<Figures, Fault>>,
    /// What the reaper has said of the workload.
    reported: Option<ExitStatus>,
    /// How the first process ended; after that it is reaped.
    ended: Option<ExitStatus>,
    exit: Option<Exit>,
    /// What showed while it was made.
    warnings: Vec<String>,
}

impl Running {
    pub(crate) fn new(
        child: Child,
        monitor: Monitor,
        relay: Relay,
        cgroup: Option<Cgroup>,
        reaper: bool,
        sessions: Sessions,
    ) -> Self {
        Self {
            child,
            monitor: Some(monitor),
            relay,
            cgroup,
            join: JoinFiles::default(),
            paused: false,
            reaper,
            sessions,
            answer: None,
            reported: None,
            ended: None,
            exit: None,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn with_join(mut self, join: JoinFiles) -> Self {
        self.join = join;
        self
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// The first process.
    pub(crate) fn first(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// One turn of waiting; false when `until` has passed or `wake` can be read.
    fn turn(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<bool, Fault> {
        let failed = |errno| fault("can't wait for the container", errno);
        let mut watch = Watch::default();
        let woken = watch.add(wake, PollFlags::POLLIN);
        let ended = watch.add(Some(self.child.as_fd()), PollFlags::POLLIN);
        let line = self.monitor.as_ref().map(AsFd::as_fd);
        let reported = watch.add(line, PollFlags::POLLIN);
        let streams = self.relay.watch(&mut watch);
        let sessions = self.sessions.watch(&mut watch);
        if !watch.wait(until).map_err(failed)? {
            return Ok(false);
        }
        let [woken, ended, reported] = [woken, ended, reported].map(|place| watch.is_ready(place));
        let ready = streams.ready(&watch);
        let heard: Vec<_> = sessions.iter().map(|places| places.ready(&watch)).collect();
        drop(watch);
        self.relay.pass(&ready);
        self.sessions.pass(&heard).map_err(failed)?;
        if reported {
            self.listen().map_err(failed)?;
        }
        if ended {
            self.ended = self.child.try_wait().map_err(failed)?;
            FaultPoint::FirstReaped.reached();
        }
        Ok(!woken)
    }

    fn listen(&mut self) -> nix::Result<()> {
        let Some(monitor) = &self.monitor else { return Ok(()) };
        match monitor.receive()? {
            Some(Report::Exited(status)) => self.reported = Some(status),
            Some(Report::Ready { .. } | Report::Started | Report::Failed(_)) => {}
            None => self.monitor = None,
        }
        Ok(())
    }

    /// The exit, once the first process has ended.
    fn finish(&mut self, ended: ExitStatus) -> Result<Exit, Fault> {
        // What was said last may not have been heard yet.
        while self.reaper && self.reported.is_none() && self.monitor.is_some() {
            self.listen().map_err(|errno| fault("can't hear the container's end", errno))?;
        }
        self.relay.drain();
        if let Some(fault) = self.relay.loss() {
            return Err(fault);
        }
        let oom = match &self.cgroup {
            Some(cgroup) => cgroup.oom_kills().unwrap_or_else(|error| {
                tracing::warn!("can't tell whether memory ran out: {error}");
                0
            }),
            None => 0,
        };
        let status = match (self.reported, ended) {
            (Some(status), _) => status,
            (None, status) if !self.reaper => status,
            // Killed from outside, and the workload with it.
            (None, ExitStatus::Signal(signal)) => ExitStatus::Signal(signal),
            (None, ExitStatus::Code(code)) => {
                let what = format!("the container's first process ended with {code}, unasked");
                return Err(Fault::new(Code::Container, what));
            }
        };
        Ok(Exit { status, oom: oom > 0 })
    }
}

impl Workload for Running {
    fn start(&mut self) -> Result<u32, Fault> {
        let gone = || Fault::new(Code::Container, "the container's first process was killed");
        let monitor = self.monitor.as_ref().ok_or_else(gone)?;
        monitor.start(&std::mem::take(&mut self.join)).map_err(|_| gone())?;
        FaultPoint::StartSent.reached();
        let report = monitor.receive();
        match report.map_err(|errno| fault("can't hear from the container", errno))? {
            Some(Report::Started) => {}
            Some(Report::Failed(error)) => return Err(fault::start(error)),
            // It has become the workload, which has no such line.
            None if !self.reaper => self.monitor = None,
            _ => return Err(gone()),
        }
        FaultPoint::HeardStarted.reached();
        self.relay.begin();
        u32::try_from(self.child.pid().as_raw()).map_err(|_| gone())
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        let sent = match &self.monitor {
            _ if self.ended.is_some() => return Ok(()),
            Some(monitor) if self.reaper => monitor.signal(signal),
            _ => self.child.signal(signal),
        };
        match sent {
            // It has just ended.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(fault(format!("can't send signal {}", signal.number()), errno)),
        }
    }

    fn wait(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> Result<Option<Exit>, Fault> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            if self.exit.is_some() {
                return Ok(self.exit);
            }
            if self.sessions.have_news() || self.answer.is_some() {
                return Ok(None);
            }
            if let Some(ended) = self.ended {
                self.exit = Some(self.finish(ended)?);
            } else if !self.turn(wake, until)? && self.ended.is_none() {
                return Ok(None);
            }
        }
    }

    fn destroy(mut self: Box<Self>) -> Result<(), Fault> {
        self.relay = Relay::default();
        let failed = |errno| fault("can't end the container's processes", errno);
        if self.ended.is_none() {
            self.child.signal(Signal::KILL).map_err(failed)?;
            // What is stopped ends only when it goes on, and then does nothing else.
            if self.paused {
                self.resume()?;
            }
        }
        self.sessions.end().map_err(failed)?;
        if self.ended.is_none() {
            wait_for_end(self.child.as_fd(), PATIENCE)?;
            self.child.wait().map_err(failed)?;
        }
        FaultPoint::ProcessesEnded.reached();
        let removed = self.cgroup.take().map_or(Ok(()), Cgroup::remove);
        FaultPoint::CgroupRemoved.reached();
        removed.map_err(|error| {
            Fault::new(Code::Container, "can't remove the cgroup")
                .because(error)
                .hint("`moat run` of anything removes what is left over")
        })
    }

    fn warnings(&self) -> Vec<String> {
        let text = |refusal: &String| {
            format!("the workload has fewer users and groups than there could be: {refusal}")
        };
        self.warnings.iter().map(text).collect()
    }

    fn terminal(&mut self) -> Option<&mut dyn Terminal> {
        self.relay.terminal().is_some().then_some(&mut self.relay as &mut dyn Terminal)
    }

    fn exec(&mut self) -> Option<&mut dyn Exec> {
        Some(self)
    }

    fn pause(&mut self) -> Option<&mut dyn Pause> {
        Some(self)
    }

    fn stats(&mut self) -> Option<&mut dyn Stats> {
        Some(self)
    }
}

impl Terminal for Relay {
    fn resize(&mut self, size: TerminalSize) -> Result<(), Fault> {
        let Some(master) = self.terminal() else { return Ok(()) };
        tty::resize(master, size).map_err(|errno| fault("can't resize the terminal", errno))
    }

    fn resume(&mut self) {
        self.enter_again();
    }
}
