//! Many runs, fifty at a time, that end in every way there is: each gives what it should, and
//! together they leave nothing.
//!
//! `MOAT_CROWD` is how many there are, if not the 1,000 that there are natively.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use moat_tests::host;
use moat_tests::moat::Moat;
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;

use crate::figures::Figures;

/// How many are under way at any time.
const WIDTH: usize = 50;

/// How many there are when nobody asks: half a minute natively, and no longer in the bed.
fn runs() -> usize {
    let asked = env::var("MOAT_CROWD").ok().and_then(|runs| runs.parse().ok());
    asked.unwrap_or(if host::is_bed() { 40 } else { 1000 })
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Well,
    NotFound,
    BySignal,
    /// It does not end when it is asked to.
    Stopped,
    OutOfMemory,
    /// moat itself is killed, after so many milliseconds.
    Killed(u64),
}

impl End {
    /// Of each twenty, twelve end well.
    fn of(run: usize) -> Self {
        match run % 20 {
            3 => Self::NotFound,
            7 => Self::BySignal,
            11 => Self::Stopped,
            13 => Self::OutOfMemory,
            // Spread over a life in a crowd, and beyond it.
            place @ (5 | 9 | 15 | 17) => Self::Killed((run * 37 + place) as u64 % 700),
            _ => Self::Well,
        }
    }

    /// The workload that ends like this, and the command for it.
    fn command(self, run: usize) -> (&'static str, &'static [&'static str]) {
        let one_of_two = if run.is_multiple_of(2) { "case" } else { "other" };
        match self {
            Self::Well => (one_of_two, &["true"]),
            Self::NotFound => (one_of_two, &["no-such-command"]),
            // Not without reaper: nothing kills PID 1 from inside.
            Self::BySignal => ("case", &["sh", "-c", "kill -KILL $$"]),
            Self::Stopped => ("stubborn", &["sh", "-c", "trap '' TERM; echo runs; sleep 1000"]),
            // tail keeps the last line of what has no line.
            Self::OutOfMemory => ("small", &["tail", "/dev/zero"]),
            Self::Killed(_) if run.is_multiple_of(3) => (one_of_two, &["sleep", "1000"]),
            Self::Killed(_) => (one_of_two, &["true"]),
        }
    }

    fn statuses(self) -> &'static [i32] {
        match self {
            Self::Well => &[0],
            Self::NotFound => &[127],
            Self::BySignal | Self::Stopped | Self::OutOfMemory => &[137],
            Self::Killed(_) => &[0, 137],
        }
    }
}

struct Crowd {
    space: Workspace,
    watched: Watched,
}

pub(crate) fn run() -> Result<()> {
    let runs = runs();
    let space = Workspace::new(Some("container"))?;
    let watched = Watched::new(&space)?;
    for dir in ["home", "tmp"] {
        fs::create_dir(space.path().join(dir))?;
    }
    let workload = |name: &str, lines: &str| {
        let line = watched.spec_line();
        format!("[workload.{name}]\nrootfs = \"./root\"\ncommand = [\"true\"]\n{line}\n{lines}\n")
    };
    space.whole_spec(
        workload("case", "")
            + &workload("other", "init = false")
            + &workload("stubborn", "stop_timeout = \"300ms\"")
            + &workload("small", "resources.memory = \"24MiB\""),
    )?;
    let crowd = Crowd { space, watched };
    // The first run finds out about this machine what later ones remember.
    crowd.moat("case", &["true"])?.run()?.status(0)?;
    let before = Figures::take(crowd.space.path())?;
    let begun = Instant::now();
    let (killed, ids) = crowd.watched_all(runs)?;
    let took = begun.elapsed();
    crowd.watched.no_process()?;
    crowd.moat("case", &["true"])?.run()?.status(0)?;
    let after = before.again(crowd.space.path(), &ids)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\n{runs} runs, {WIDTH} at a time, {killed} of them killed with their moat, in {:.1} s; {} ids \
         seen\n{}",
        took.as_secs_f64(),
        ids.len(),
        before.table(&after)
    )?;
    before.compare(&after, &ids)?;
    crowd.watched.nothing(&crowd.space, &[])
}

impl Crowd {
    fn moat(&self, workload: &str, command: &[&str]) -> Result<Moat> {
        let args = ["run", "moat.toml", workload, "--isolation", "container", "--"];
        let moat = self.space.verb(&[&args[..], command].concat())?;
        let moat = moat.env("HOME", self.space.path().join("home"));
        Ok(self.watched.watch(moat.env("TMPDIR", self.space.path().join("tmp"))))
    }

    /// All of them; gives how many of their moats were killed, and the ids that were seen: by those
    /// their cgroups are told from others'.
    fn watched_all(&self, runs: usize) -> Result<(usize, BTreeSet<String>)> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut ids = BTreeSet::new();
                while !done.load(Ordering::Relaxed) {
                    ids.extend(self.watched.instances());
                    thread::sleep(Duration::from_millis(1));
                }
                ids
            });
            let killed = self.all(runs);
            done.store(true, Ordering::Relaxed);
            let ids = watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
            Ok((killed?, ids))
        })
    }

    /// All of them; gives how many of their moats were killed.
    fn all(&self, runs: usize) -> Result<usize> {
        let (next, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let worker = || -> Result<()> {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        return Ok(());
                    }
                    let end = End::of(run);
                    if self.one(run, end).with_context(|| format!("run {run}, {end:?}"))? {
                        killed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            let workers: Vec<_> = (0..WIDTH).map(|_| scope.spawn(worker)).collect();
            let mut joined = workers.into_iter().map(|worker| worker.join());
            joined.try_for_each(|done| done.map_err(|_| anyhow!("a worker panicked"))?)
        })?;
        Ok(killed.into_inner())
    }

    /// One of them; whether its moat was killed.
    fn one(&self, run: usize, end: End) -> Result<bool> {
        let (workload, command) = end.command(run);
        let mut live = self.moat(workload, command)?.start()?;
        match end {
            End::Stopped => {
                live.wait_for("runs\n")?;
                live.signal(Signal::SIGTERM)?;
            }
            End::Killed(after) => {
                thread::sleep(Duration::from_millis(after));
                live.signal(Signal::SIGKILL)?;
            }
            _ => {}
        }
        let seen = live.finish()?;
        ensure!(end.statuses().contains(&seen.status), "{}", seen.shown());
        // What others were killed over is cleared by whoever comes next.
        seen.stderr_lacks("can't be cleared")?.stderr_lacks("panicked")?;
        if end == End::OutOfMemory {
            seen.stderr_has("memory limit")?;
        }
        Ok(matches!(end, End::Killed(_)) && seen.status == 137)
    }
}
