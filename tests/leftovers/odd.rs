//! Ends that no step tells of: a moat that stands still, several that clear up at once, a container
//! that is paused, that has sessions, or that does not end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moat_core::fault_point::FaultPoint::{self, *};
use moat_tests::live::Live;
use moat_tests::moat::Moat;
use moat_tests::remains::{Watched, cgroups_named};
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;

/// How long something may take to be so.
const SOON: Duration = Duration::from_secs(20);

/// What the workload says when it runs, and then runs for long.
const ENDLESS: [&str; 3] = ["sh", "-c", "echo runs; exec sleep 1000"];

/// Steps of moat's own, at each of which it is halted in turn.
pub(crate) const HALTS: [FaultPoint; 14] = [
    DirectoryMade,
    JournalMade,
    JournalLocked,
    HeaderWritten,
    CgroupBegun,
    CgroupMade,
    FirstMade,
    RecordWritten,
    Proceeded,
    HeardReady,
    HeardStarted,
    FirstReaped,
    CgroupRemoved,
    JournalRemoved,
];

struct Case {
    space: Workspace,
    watched: Watched,
}

impl Case {
    fn new() -> Result<Self> {
        let space = Workspace::new(Some("container"))?;
        let watched = Watched::new(&space)?;
        space.spec(&watched.spec_line())?;
        let case = Self { space, watched };
        // The first run finds out about this machine what later ones remember.
        case.run(&["true"])?.run()?.status(0)?;
        Ok(case)
    }

    fn run(&self, command: &[&str]) -> Result<Moat> {
        self.verb(&self.space.run_args(command))
    }

    fn verb(&self, args: &[&str]) -> Result<Moat> {
        Ok(self.watched.watch(self.space.verb(args)?))
    }

    fn endless(&self) -> Result<Live> {
        let mut live = self.run(&ENDLESS)?.start()?;
        live.wait_for("runs\n")?;
        Ok(live)
    }

    /// Leaves the remains of a container; gives its id.
    fn orphan(&self) -> Result<String> {
        let before = self.watched.instances();
        let live = self.endless()?;
        let now = self.watched.instances();
        let id = now.iter().find(|id| !before.contains(id)).context("it has no directory")?;
        live.signal(Signal::SIGKILL)?;
        live.finish()?.status(137)?;
        Ok(id.clone())
    }
}

/// Whether moat is in this state (proc_pid_stat(5)); of its output nothing is said.
pub(crate) fn is(live: &Live, state: char) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", live.pid()));
    stat.is_ok_and(|stat| stat.contains(&format!(") {state} ")))
}

/// Waits until it is so.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        ensure!(Instant::now() < deadline, "{what} took too long");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A moat that stands still between two steps, for however long, is no dead one: others leave it
/// alone, and it goes on as if nothing had been.
pub(crate) fn halted(point: FaultPoint) -> Result<()> {
    let case = Case::new()?;
    let halted = format!("{point:?}:halt");
    let live = case.run(&["echo", "done"])?.env("MOAT_FAULT_POINT", halted).start()?;
    until("the halt", || is(&live, 'T'))?;
    // What went by age took one for dead after a second.
    thread::sleep(Duration::from_millis(1100));
    let other = case.run(&["true"])?.run()?;
    other.status(0)?.stderr("")?;
    live.signal(Signal::SIGCONT)?;
    live.finish()?.status(0)?.stdout("done\n")?.stderr("")?;
    case.watched.nothing(&case.space, &[])
}

/// Each of several remains is cleared by exactly one of several moats.
pub(crate) fn many_sweepers() -> Result<()> {
    let case = Case::new()?;
    let running: Vec<Live> = (0..6).map(|_| case.endless()).collect::<Result<_>>()?;
    let ids = case.watched.instances();
    for live in running {
        live.signal(Signal::SIGKILL)?;
        live.finish()?.status(137)?;
    }
    let sweepers = (0..8).map(|_| case.run(&["true"])?.start()).collect::<Result<Vec<_>>>()?;
    let mut said = String::new();
    for sweeper in sweepers {
        let seen = sweeper.finish()?;
        seen.status(0)?.stderr_lacks("error")?;
        said += &seen.err();
    }
    // None may be left to clear, when all were busy with others.
    said += &case.run(&["true"])?.run()?.err();
    for id in &ids {
        let times = said.matches(id.as_str()).count();
        ensure!(times == 1, "{id} was cleared {times} times\n{said}");
    }
    case.watched.nothing(&case.space, &ids)
}

pub(crate) fn paused() -> Result<()> {
    let case = Case::new()?;
    let live = case.endless()?;
    let ids = case.watched.instances();
    case.verb(&["pause", "case"])?.run()?.status(0)?;
    live.signal(Signal::SIGKILL)?;
    until("the end", || is(&live, 'Z'))?;
    // What is paused may keep its end of the pipes open: only the next moat can end it on v1.
    let next = case.run(&["true"])?.run()?;
    next.status(0)?.stderr_has("cleaned up after case")?.stderr_lacks("error")?;
    live.finish()?.status(137)?;
    case.watched.nothing(&case.space, &ids)
}

pub(crate) fn sessions() -> Result<()> {
    let case = Case::new()?;
    let live = case.endless()?;
    let ids = case.watched.instances();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let mut session = case.verb(&[&["exec", "case"], &ENDLESS[..]].concat())?.start()?;
        session.wait_for("runs\n")?;
        sessions.push(session);
    }
    live.signal(Signal::SIGKILL)?;
    live.finish()?.status(137)?;
    for session in sessions {
        let seen = session.finish()?;
        ensure!(seen.status != 0, "{}", seen.shown());
    }
    case.watched.no_process()?;
    case.run(&["true"])?.run()?.status(0)?.stderr_has("cleaned up after case")?;
    case.watched.nothing(&case.space, &ids)
}

/// A group by which the tests stop what they like, as a dead disk would: SIGKILL does nothing then.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Result<Option<Self>> {
        let tree = Path::new("/sys/fs/cgroup/freezer");
        let dir = tree.join(format!("moat-tests-{}", std::process::id()));
        if !tree.join("cgroup.procs").exists() || fs::create_dir(&dir).is_err() {
            return Ok(None);
        }
        Ok(Some(Self(dir)))
    }

    fn freeze(&self, pid: &str) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid)?;
        fs::write(self.0.join("freezer.state"), "FROZEN")?;
        let is_frozen = || {
            let state = fs::read_to_string(self.0.join("freezer.state"));
            state.is_ok_and(|state| state.trim() == "FROZEN")
        };
        until("the freezing", is_frozen)
    }

    fn thaw(&self) -> Result<()> {
        Ok(fs::write(self.0.join("freezer.state"), "THAWED")?)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // Nothing can be done about it here.
        let _ = self.thaw();
        let _ = until("the end", || fs::remove_dir(&self.0).is_ok());
    }
}

/// What does not end, whatever is done, keeps nobody from running something else; once it does, the
/// next moat clears it.
pub(crate) fn stuck() -> Result<()> {
    let Some(freezer) = Freezer::new()? else {
        moat_tests::skip!("only a v1 freezer, which root may use, keeps a process from its end");
    };
    let case = Case::new()?;
    let live = case.endless()?;
    let ids = case.watched.instances();
    until("the record", || case.watched.pid().is_some())?;
    let first = case.watched.pid().context("nothing runs")?;
    freezer.freeze(&first.to_string())?;
    live.signal(Signal::SIGKILL)?;
    until("the end", || is(&live, 'Z'))?;
    let next = case.run(&["echo", "ran"])?.run()?;
    next.status(0)?.stdout("ran\n")?.stderr_has("can't be cleared")?.stderr_has("does not end")?;
    ensure!(case.watched.instances() == ids, "it is forgotten");
    freezer.thaw()?;
    live.finish()?.status(137)?;
    case.watched.no_process()?;
    case.run(&["true"])?.run()?.status(0)?.stderr_has("cleaned up after case")?;
    case.watched.nothing(&case.space, &ids)
}

/// Somebody else's process in the container's group keeps the group, and is told of; the next moat
/// ends it.
pub(crate) fn strangers() -> Result<()> {
    let case = Case::new()?;
    let live = case.endless()?;
    let ids = case.watched.instances();
    let groups = cgroups_named(&ids[0]);
    if groups.is_empty() {
        moat_tests::skip!("there are no cgroups here");
    }
    let mut stranger = Stranger(Command::new("sleep").arg("1000").spawn()?);
    for group in &groups {
        fs::write(group.join("cgroup.procs"), stranger.0.id().to_string())?;
    }
    live.signal(Signal::SIGTERM)?;
    let seen = live.finish()?;
    seen.status(125)?.stderr_has("can't remove the cgroup")?.stderr_has("hint: ")?;
    case.run(&["true"])?.run()?.status(0)?.stderr_has("cleaned up after case")?;
    ensure!(stranger.0.try_wait()?.is_some(), "it still runs");
    case.watched.nothing(&case.space, &ids)
}

struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A record that says nothing any more: both walls are looked through, wherever groups may be.
pub(crate) fn no_record() -> Result<()> {
    for damage in ["container.json", "instance.jsonl"] {
        let case = Case::new()?;
        let id = case.orphan()?;
        case.watched.no_process()?;
        let dir = case.space.path().join("runtime/moat/instances").join(&id);
        fs::remove_file(dir.join(damage))?;
        let next = case.run(&["true"])?.run()?;
        next.status(0)?.stderr_has("cleaned up after")?.stderr_has(&id)?.stderr_lacks("error")?;
        case.watched.nothing(&case.space, &[id])?;
    }
    Ok(())
}
