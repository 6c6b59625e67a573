//! `cargo xtask order`: writes down which functions a start of a container runs, and in which order.
//!
//! A start costs what it touches of moat's own file: 60 of its page faults were for code that lies
//! anywhere in 3 MB. The linker puts what is in this list side by side (cli/build.rs). A name that
//! is gone does no harm, one that is missing lies where it did before; so the list is made again
//! when `moat` has become slower, or when `cargo xtask bench container` says that it is old.
//!
//! moat is run one instruction at a time (ptrace(2)), with all processes that it makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use object::{Object, ObjectSymbol, SymbolKind};

use crate::bench::{build, peers};

/// Where the list is, in the repository.
pub(crate) const LIST: &str = "cli/startup.order";

const HEAD: &str = "\
# The functions that a start of a container runs, in the order in which it first runs them, for lld's
# --symbol-ordering-file. Made by `cargo xtask order`; see xtask/src/order.rs.
";

/// Write down which functions a start runs, so that the linker puts them side by side
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    ensure!(nix::unistd::Uid::effective().is_root(), "it is root's start: run it with sudo");
    let room = build::room()?;
    let moat = build::moat()?;
    let root = build::rootfs(room.path())?;
    let spec = room.path().join("moat.toml");
    fs::write(&spec, peers::spec(&root.display().to_string(), 512, ""))?;
    let mut command = Command::new("sh");
    command
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .arg(&moat)
        .arg("run")
        .arg(&spec)
        .env("XDG_RUNTIME_DIR", room.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    // What the first start alone does, such as asking what this host can do, is left out.
    let mut once = Command::new(&moat);
    once.arg("run").arg(&spec).env("XDG_RUNTIME_DIR", room.path());
    let once = once.status().context("moat")?;
    ensure!(once.success(), "moat run ended with {once}");
    let offsets = trace(command, &moat)?;
    let names = names(&moat, &offsets)?;
    let mut text = HEAD.to_owned();
    for name in &names {
        writeln!(text, "{name}")?;
    }
    let list = repository().join(LIST);
    fs::write(&list, text).with_context(|| list.display().to_string())?;
    println!("{}: {} names", list.display(), names.len());
    Ok(ExitCode::SUCCESS)
}

/// How many of the list's names `moat` still has, and how many it lists.
pub(crate) fn still_there(moat: &Path) -> Result<(usize, usize)> {
    let list = repository().join(LIST);
    let list = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let listed: BTreeSet<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let data = fs::read(moat).with_context(|| moat.display().to_string())?;
    let file = object::File::parse(&*data).context("moat's symbols")?;
    let there: BTreeSet<&str> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    Ok((listed.intersection(&there).count(), listed.len()))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Offsets in moat's image, each once, in the order in which they were first run.
fn trace(mut command: Command, moat: &Path) -> Result<Vec<u64>> {
    let child = command.spawn().context("sh")?;
    let first = Pid::from_raw(i32::try_from(child.id())?);
    let stopped = waitpid(first, Some(WaitPidFlag::WUNTRACED)).context("wait for sh")?;
    ensure!(matches!(stopped, WaitStatus::Stopped(..)), "sh did not stop: {stopped:?}");
    let options = Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).context("trace sh")?;
    nix::sys::signal::kill(first, Signal::SIGCONT).context("continue sh")?;
    let mut tracer = Tracer {
        moat: moat.canonicalize()?,
        image: None,
        seen: BTreeSet::new(),
        order: Vec::new(),
    };
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == first => {
                ensure!(status == 0, "moat ended with {status}");
                break;
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == first => {
                bail!("{signal} ended moat")
            }
            Ok(status) => tracer.on(status)?,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for moat"),
        }
    }
    ensure!(!tracer.order.is_empty(), "nothing of moat was seen");
    Ok(tracer.order)
}

struct Tracer {
    moat: PathBuf,
    /// Where moat's file is in its processes' memory: they are copies of one.
    image: Option<(u64, u64)>,
    seen: BTreeSet<u64>,
    order: Vec<u64>,
}

impl Tracer {
    fn on(&mut self, status: WaitStatus) -> Result<()> {
        let (pid, signal) = match status {
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                if self.image.is_some() {
                    // It has become the workload.
                    return gone(ptrace::detach(pid, None));
                }
                self.image = image(pid, &self.moat)?;
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                self.note(pid);
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => return Ok(()),
        };
        match self.image {
            Some(_) => gone(ptrace::step(pid, signal)),
            None => gone(ptrace::cont(pid, signal)),
        }
    }

    fn note(&mut self, pid: Pid) {
        let (Some((begin, end)), Ok(registers)) = (self.image, ptrace::getregs(pid)) else {
            return;
        };
        if (begin..end).contains(&registers.rip) && self.seen.insert(registers.rip - begin) {
            self.order.push(registers.rip - begin);
        }
    }
}

/// One that was killed meanwhile is no error.
fn gone(result: nix::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("go on"),
    }
}

/// From where to where the file is mapped (proc_pid_maps(5)), if this process runs it.
fn image(pid: Pid, file: &Path) -> Result<Option<(u64, u64)>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("maps")?;
    let name = file.display().to_string();
    let ranges = maps.lines().filter(|line| line.ends_with(&name)).filter_map(|line| {
        let (begin, end) = line.split_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    });
    Ok(ranges.reduce(|all, range| (all.0.min(range.0), all.1.max(range.1))))
}

/// The functions that these offsets are in; all names of one that has several.
fn names(moat: &Path, offsets: &[u64]) -> Result<Vec<String>> {
    let data = fs::read(moat).with_context(|| moat.display().to_string())?;
    let file = object::File::parse(&*data).context("moat's symbols")?;
    let mut functions: BTreeMap<u64, (u64, Vec<&str>)> = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let (Ok(name), 1..) = (symbol.name(), symbol.size()) else { continue };
        let function = functions.entry(symbol.address()).or_default();
        function.0 = function.0.max(symbol.size());
        function.1.push(name);
    }
    ensure!(!functions.is_empty(), "{} has no symbols", moat.display());
    let mut named = BTreeSet::new();
    let mut all = Vec::new();
    for offset in offsets {
        let Some((begin, (size, names))) = functions.range(..=offset).next_back() else { continue };
        if offset - begin < *size && named.insert(*begin) {
            all.extend(names.iter().map(|name| (*name).to_owned()));
        }
    }
    Ok(all)
}
