//! The workload's processes: their cgroup, their namespaces, and the way to moat-init in them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::sandbox::{Exit, ExitStatus, Process, Sandbox, StartError};
use moat_core::spec::Signal;
use moat_core::workload::Figures;
use moat_init::cgroup::{Cgroup, JoinFiles};
use moat_init::control::{self, Monitor, Report};
use moat_init::enter::{self, Door, Way};
use moat_init::first::{self, Ids};
use moat_init::rootfs::UserNamespace;
use moat_init::session::Session;
use moat_init::sys::clone::{self, Child, Namespaces};

use crate::session::Surroundings;

/// The cgroup's name below the guest's root cgroup.
const CGROUP: &str = "workload";

/// A workload whose first process lives, or has lived.
#[derive(Debug)]
pub(crate) struct Workload {
    child: Child,
    /// None once the first process has closed its end. Dropping it ends the workload.
    monitor: Option<Monitor>,
    cgroup: Option<Cgroup>,
    /// What the reaper said of the workload's own process.
    reported: Option<ExitStatus>,
    has_reaper: bool,
    ordered: bool,
}

impl Workload {
    /// Clones the first process, which begins to set itself up.
    pub(crate) fn spawn(
        sandbox: &Sandbox,
        surroundings: &Surroundings,
        stdio: [OwnedFd; 3],
    ) -> Result<Self, StartError> {
        let cgroup = match &surroundings.cgroups {
            Some(hierarchy) => Some(
                Cgroup::create(hierarchy, CGROUP, &sandbox.limits)
                    .map_err(|error| failed("make the workload's cgroup", &error))?,
            ),
            None => None,
        };
        let (monitor, control) =
            control::pair().map_err(|error| failed("make the control socket", &error))?;
        let inner = first::Surroundings {
            staging: surroundings.staging.clone(),
            user_namespace: UserNamespace::Initial,
            root: first::RootIs::ToBuild,
            // The wall is the machine's: what is in it is the workload's to spoil.
            exposed: false,
            gives_namespaces: false,
            later: Namespaces::NONE,
            tree: None,
            cgroup: match cgroup {
                // All limits of a guest are of cgroup v2.
                Some(_) => first::Cgroup::Early { unified: true },
                None => first::Cgroup::None,
            },
        };
        let options = clone::Options {
            namespaces: Namespaces::PID
                | Namespaces::MOUNT
                | Namespaces::UTS
                | Namespaces::IPC
                | Namespaces::NETWORK,
            cgroup: cgroup.as_ref().and_then(Cgroup::dir),
        };
        let wiring = first::Wiring { control, stdio };
        let child = clone::spawn(options, || first::run(sandbox, &inner, wiring))
            .map_err(|error| failed("clone the workload's first process", &error))?;
        Ok(Self {
            child,
            monitor: Some(monitor),
            cgroup,
            reported: None,
            has_reaper: sandbox.reaper,
            ordered: false,
        })
    }

    /// Readable when the first process has something to say.
    pub(crate) fn control_fd(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(|monitor| monitor.as_fd())
    }

    /// Readable when the first process and all others of the workload have ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// What the first process says, which there must be something of; None when it has closed its
    /// end.
    pub(crate) fn report(&mut self) -> Option<Report> {
        let report = self.monitor.as_ref()?.receive().ok().flatten();
        match &report {
            Some(Report::Exited(status)) => self.reported = Some(*status),
            Some(_) => {}
            None => self.monitor = None,
        }
        report
    }

    /// Whether the first process, which has closed its end, has become the user's command: without
    /// a reaper that is how a start that went well shows. One that was killed shows by its end.
    pub(crate) fn is_the_command(&self) -> bool {
        self.ordered && !self.has_reaper
    }

    /// Lets the user's command run.
    pub(crate) fn start(&mut self) -> Result<(), StartError> {
        self.ordered = true;
        match self.monitor.as_ref() {
            Some(monitor) => monitor
                .start(&JoinFiles::default())
                .map_err(|error| failed("start the command", &error)),
            None => Err(killed()),
        }
    }

    /// Sends the workload's process a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // Either fails only when the first process has just ended, and then there is nobody to get
        // it.
        let _ = match &self.monitor {
            Some(monitor) if self.has_reaper => monitor.signal(signal),
            _ => self.child.signal(signal),
        };
    }

    /// Begins one more process in it.
    pub(crate) fn enter(
        &self,
        process: &Process,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<Session, StartError> {
        let kinds = enter::kinds(UserNamespace::Initial, self.cgroup.is_some());
        let door = Door {
            way: Way::Through(self.child.as_fd(), kinds),
            ids: Ids::ALL,
            exposed: false,
            cgroup: JoinFiles::default(),
        };
        let cgroup = self.cgroup.as_ref().and_then(Cgroup::dir);
        Session::begin(process, &door, cgroup, stdio).map_err(|errno| StartError::Setup {
            step: enter::ENTER.to_owned(),
            reason: errno.desc().to_lowercase(),
        })
    }

    /// What it uses.
    pub(crate) fn figures(&self) -> Result<Figures, String> {
        let Some(cgroup) = &self.cgroup else { return Err("it has no cgroup".to_owned()) };
        cgroup.figures().map_err(|error| chain(&error))
    }

    /// Reaps the first process once [`pidfd`](Self::pidfd) is readable; how the workload ended.
    pub(crate) fn wait(&mut self) -> std::io::Result<Exit> {
        // A workload without a reaper is the first process; one whose reaper was killed ended by that.
        let own = self.child.wait()?;
        let kills = self.cgroup.as_ref().map(Cgroup::oom_kills).transpose();
        let oom = kills.map_err(std::io::Error::other)?.is_some_and(|kills| kills > 0);
        Ok(Exit { status: self.reported.unwrap_or(own), oom })
    }
}

/// The first process ended in the middle of its set-up.
pub(crate) fn killed() -> StartError {
    StartError::Setup {
        step: "set the workload up".to_owned(),
        reason: "its first process was killed".to_owned(),
    }
}

pub(crate) fn failed(step: &str, error: &dyn std::error::Error) -> StartError {
    StartError::Setup { step: step.to_owned(), reason: chain(error) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    reason
}
