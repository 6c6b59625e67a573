//! A process of moat ended at each fault point: all that it had made ends with it, and what it
//! could not remove the next moat does, and says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moat_core::fault_point::FaultPoint::{self, *};
use moat_tests::host;
use moat_tests::moat::{Moat, executable};
use moat_tests::remains::{Watched, cgroups_named};
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;

use crate::kept;
use crate::odd::{is, until};

/// A user that nobody knows, and moat started by it.
const PLAIN: u32 = 54321;

/// The points that are reached in other processes than moat itself.
pub(crate) const ELSEWHERE: [FaultPoint; 19] = [
    FirstBegun,
    DescriptorsClosed,
    Joined,
    Named,
    ToldToProceed,
    BecameRoot,
    KernelFilesystemsMounted,
    Masked,
    RootChanged,
    ProgramPrepared,
    SaidReady,
    ToldToStart,
    WorkloadMade,
    WorkloadRestricted,
    SaidStarted,
    WorkloadReaped,
    SessionJoined,
    SessionEntered,
    SessionPrepared,
];

/// What is moat's own work, but not where a plain user started it.
const BUILDING: [FaultPoint; 4] = [Staged, OverlaysMounted, DevicesMade, VolumesMounted];

/// How long it may take to come to a point.
const REACHED: Duration = Duration::from_secs(30);

/// Only a reaper reaches these.
const OF_THE_REAPER: [FaultPoint; 3] = [WorkloadMade, SaidStarted, WorkloadReaped];

/// One way to be ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kill {
    point: FaultPoint,
    who: Who,
    with: With,
}

/// Who is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// moat, whichever process is at the point.
    Moat,
    /// The other process that is at the point.
    Itself,
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    /// A container as it is by default.
    Reaper,
    /// One whose first process becomes the workload.
    NoReaper,
    /// One of a plain user.
    PlainUser,
}

/// Every point, with everything that there differs.
pub(crate) fn all() -> Vec<Kill> {
    let mut kills = Vec::new();
    for &point in FaultPoint::ALL {
        if host::is_bed() && place(point) < place(CgroupBegun) || !is_here(point) {
            // What it has there is the same natively, in less time.
            continue;
        }
        if kept::OWN.contains(&point) {
            continue;
        }
        kills.push(Kill { point, who: Who::Moat, with: With::Reaper });
        if ELSEWHERE.contains(&point) {
            kills.push(Kill { point, who: Who::Itself, with: With::Reaper });
        }
        if BUILDING.contains(&point) && host::is_root() {
            kills.push(Kill { point, who: Who::Itself, with: With::PlainUser });
        }
        if is_start(point) && !host::is_bed() {
            if !OF_THE_REAPER.contains(&point) {
                kills.push(Kill { point, who: Who::Moat, with: With::NoReaper });
            }
            // It has no cgroup. Who may read an environment sees which processes are left.
            if host::is_root() && ![CgroupBegun, CgroupMade, RootBuilt].contains(&point) {
                kills.push(Kill { point, who: Who::Moat, with: With::PlainUser });
            }
        }
    }
    kills
}

/// Only cgroups of v1 have a group apart by which processes are stopped.
fn is_here(point: FaultPoint) -> bool {
    point != Gathered || Path::new("/sys/fs/cgroup/freezer/cgroup.procs").exists()
}

pub(crate) fn place(point: FaultPoint) -> usize {
    FaultPoint::ALL.iter().position(|other| *other == point).unwrap_or_default()
}

/// From the first thing made until the workload runs.
fn is_start(point: FaultPoint) -> bool {
    (place(CgroupBegun)..=place(MarkedRunning)).contains(&place(point))
}

impl Kill {
    pub(crate) fn name(self) -> String {
        let who = if self.who == Who::Itself { "::itself" } else { "" };
        format!("killed::{:?}::{:?}{who}", self.point, self.with)
    }

    pub(crate) fn run(self) -> Result<()> {
        let case = Case::new(self)?;
        let killed = case.killed()?;
        if self.who == Who::Itself {
            // moat lives, and clears up after it.
            ensure!(![0, 137].contains(&killed.status), "it was never there\n{}", killed.shown());
            return case.watched.nothing(&case.space, &[]);
        }
        killed.status(137).context("moat was never there, or was not killed")?;
        case.watched.no_process()?;
        let (ids, begun) = case.left();
        let next = case.moat(&["true"])?.run()?;
        next.status(0)?.stdout("")?;
        for id in &begun {
            next.stderr_has(&format!(
                "warning: cleaned up after case ({id}), whose moat was killed"
            ))?;
        }
        let said = next.err().matches("cleaned up").count();
        ensure!(said == begun.len(), "{begun:?} were left\n{}", next.shown());
        next.stderr_lacks("error")?;
        case.nothing(&ids)
    }
}

/// A workspace in which it happens.
struct Case {
    kill: Kill,
    space: Workspace,
    watched: Watched,
}

impl Case {
    fn new(kill: Kill) -> Result<Self> {
        let space = Workspace::new(Some("container"))?;
        let watched = Watched::new(&space)?;
        fs::create_dir(space.path().join("data"))?;
        let init = if kill.with == With::NoReaper { "init = false" } else { "" };
        let volumes = r#"volumes = ["./data:/data"]"#;
        space.spec(&format!("{init}\n{volumes}\n{}", watched.spec_line()))?;
        if kill.with == With::PlainUser {
            // By another process: a file that is open for writing in some fork of this one, which has
            // many threads, can't be run.
            let copied = Command::new("cp").arg(executable()?).arg(space.path()).status()?;
            ensure!(copied.success(), "moat can't be copied");
            for path in ["", "moat", "runtime", "data"] {
                std::os::unix::fs::chown(space.path().join(path), Some(PLAIN), Some(PLAIN))?;
            }
        }
        let case = Self { kill, space, watched };
        if place(kill.point) > place(ProbeBegun) {
            // What the probes find out is kept: they are no part of the life that is looked at.
            case.moat(&["true"])?.run()?.status(0)?;
        }
        Ok(case)
    }

    fn moat(&self, command: &[&str]) -> Result<Moat> {
        let args = self.space.run_args(command);
        let moat = match self.kill.with {
            With::PlainUser => {
                let (copy, user) = (self.space.path().join("moat"), PLAIN.to_string());
                let mut words = vec!["--reuid", &user, "--regid", &user, "--clear-groups", "--"];
                let copy = copy.display().to_string();
                words.push(&copy);
                words.extend(args);
                Moat::program("setpriv", words).dir(self.space.path()).env("HOME", "/")
            }
            With::Reaper | With::NoReaper => self.space.verb(&args)?,
        };
        Ok(self.watched.watch(moat))
    }

    /// Runs to the point, and is ended there.
    fn killed(&self) -> Result<Seen> {
        let suffix = if self.kill.who == Who::Itself { ":self" } else { "" };
        let point = format!("{:?}{suffix}", self.kill.point);
        let armed = |moat: Moat| moat.env("MOAT_FAULT_POINT", &point).timeout(REACHED);
        // What runs on when it should not is found.
        let endless = ["sh", "-c", "echo runs; exec sleep 1000"];
        match self.kill.point {
            MarkedStopping => {
                let mut live = armed(self.moat(&endless)?).start()?;
                live.wait_for("runs\n")?;
                live.signal(Signal::SIGTERM)?;
                live.finish()
            }
            SessionMade | SessionJoined | SessionEntered | SessionPrepared | SessionHeard => {
                self.asked(armed(self.moat(&endless)?), &["exec", "case", "sleep", "1000"])
            }
            Gathered | Frozen => self.asked(armed(self.moat(&endless)?), &["pause", "case"]),
            point if place(point) >= place(OrphanLocked) => {
                let live = self.moat(&endless)?.env("MOAT_FAULT_POINT", "HeardStarted").start()?;
                live.finish()?.status(137)?;
                armed(self.moat(&["true"])?).run()
            }
            point if place(point) >= place(WorkloadReaped) => armed(self.moat(&["true"])?).run(),
            _ => armed(self.moat(&endless)?).run(),
        }
    }

    /// Comes to the point when the workload runs and something is asked of it.
    fn asked(&self, moat: Moat, verb: &[&str]) -> Result<Seen> {
        let mut live = moat.start()?;
        live.wait_for("runs\n")?;
        let asking = self.watched.watch(self.space.verb(verb)?).timeout(REACHED).start()?;
        if self.kill.who == Who::Itself {
            // Only the further process: whoever asked for it is told, and the workload runs on.
            let asking = asking.finish()?;
            ensure!(asking.status != 0, "it was never there\n{}", asking.shown());
            live.signal(Signal::SIGKILL)?;
            let mut killed = live.finish()?;
            ensure!(killed.status == 137, "it did not run on\n{}", killed.shown());
            self.moat(&["true"])?.run()?.status(0)?;
            killed.status = asking.status;
            return Ok(killed);
        }
        // What is paused may keep moat's output open: it is ended by the next moat.
        until("moat's end", || is(&live, 'Z'))?;
        if self.kill.point == Frozen {
            self.moat(&["true"])?.run()?.status(0)?.stderr_has("cleaned up after")?;
        }
        let asking = asking.finish()?;
        ensure!(asking.status != 0, "a dead moat has answered\n{}", asking.shown());
        live.finish()
    }

    /// The instances of which there is a directory, and those of them that had begun.
    fn left(&self) -> (Vec<String>, Vec<String>) {
        let ids = self.watched.instances();
        let begun = ids.iter().filter(|id| self.watched.has_begun(id));
        let begun = begun.cloned().collect();
        (ids, begun)
    }

    fn nothing(&self, ids: &[String]) -> Result<()> {
        self.watched.nothing(&self.space, ids)?;
        let probes = cgroups_named("probe-");
        let dead = probes.iter().filter(|group| !is_alive(group));
        let dead: Vec<&PathBuf> = dead.collect();
        ensure!(dead.is_empty(), "cgroups of probes are left: {dead:#?}");
        let kept = Command::new("find").arg(self.space.path().join("runtime")).output()?;
        let kept = String::from_utf8(kept.stdout)?;
        let unknown: Vec<&str> = kept
            .lines()
            .map(|path| path.rsplit('/').next().unwrap_or(path))
            .filter(|name| {
                ![
                    "runtime",
                    "moat",
                    "instances",
                    "living.lock",
                    "probe-container.json",
                    "probe-microvm.json",
                ]
                .contains(name)
            })
            .collect();
        ensure!(unknown.is_empty(), "files are left: {unknown:?}");
        Ok(())
    }
}

/// Whether the process after which a probe's group is named is there.
fn is_alive(group: &Path) -> bool {
    let name = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.strip_prefix("probe-").is_some_and(|pid| Path::new("/proc").join(pid).exists())
}
