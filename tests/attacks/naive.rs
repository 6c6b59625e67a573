//! A naive container runtime: what there is without a wall. It has a mount and a pid namespace, so
//! that nothing of it stays, mounts proc, binds the machine's /dev and /sys, follows every path as
//! it stands, and changes the root with chroot(2), as root and with all of root's rights.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chroot, pause};
use serde::{Deserialize, Serialize};

use crate::call;
use crate::evidence::Evidence;

/// The argument that makes this executable the naive runtime.
pub(crate) const ASKED: &str = "--naive";

/// The argument that makes it start one more process in what runs.
pub(crate) const ENTER: &str = "--naive-enter";

/// What stands before the pid of the first process, on stdout.
pub(crate) const FIRST: &str = "first process: ";

/// What a test asks it for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Naive {
    root: PathBuf,
    /// What it runs.
    pub(crate) command: Vec<String>,
    /// Followed after the change of root.
    pub(crate) working_dir: String,
    /// Whether it has a pid namespace of its own.
    pub(crate) own_pids: bool,
    /// Another user than root.
    pub(crate) user: Option<u32>,
    /// Directories of the host, and where they are mounted.
    pub(crate) volumes: Vec<(PathBuf, String)>,
    /// Whether the root is changed with pivot_root(2), which chroot(2) is not equal to: in one the
    /// kernel lets nobody make a user namespace.
    pub(crate) pivots: bool,
    /// What is covered, with /dev/null or an empty directory, and what is made read-only.
    pub(crate) masks: bool,
    /// Whether the pid namespace has another process that is none of the workload's. What became
    /// of it is told in the attack's place.
    pub(crate) neighbour: bool,
    /// The hard limit of open files.
    pub(crate) files: Option<u64>,
}

/// What is masked, as far as it is there.
const MASKED: [&str; 3] = ["proc/keys", "proc/timer_list", "proc/interrupts"];

impl Naive {
    pub(crate) fn new(root: PathBuf, command: Vec<String>) -> Self {
        Self {
            root,
            command,
            working_dir: "/".to_owned(),
            own_pids: true,
            user: None,
            volumes: Vec::new(),
            pivots: false,
            masks: false,
            neighbour: false,
            files: None,
        }
    }

    /// Starts the first process, and waits for it.
    fn run(&self) -> Result<i32> {
        let pids = if self.own_pids { CloneFlags::CLONE_NEWPID } else { CloneFlags::empty() };
        unshare(CloneFlags::CLONE_NEWNS | pids).context("no namespaces")?;
        let first = call::child(|| match self.first() {
            Ok(status) => status,
            Err(error) => {
                complain(&error);
                125
            }
        })?;
        nix::unistd::write(std::io::stdout(), format!("{FIRST}{first}\n").as_bytes())?;
        Ok(status(waitpid(first, None)?))
    }

    /// Starts one more process beside the first one.
    fn enter(&self, first: &str) -> Result<i32> {
        // Slow, as one that has much to set up.
        const SET_UP: Duration = Duration::from_millis(30);
        for (kind, flag) in [("pid", CloneFlags::CLONE_NEWPID), ("mnt", CloneFlags::CLONE_NEWNS)] {
            let namespace = fs::File::open(format!("/proc/{first}/ns/{kind}"))?;
            setns(namespace, flag).context("no such namespace")?;
        }
        let entered = call::apart(|| {
            thread::sleep(SET_UP);
            complain(&self.become_workload().err().unwrap_or_else(|| anyhow::anyhow!("no exec")));
            126
        })?;
        Ok(status(entered))
    }

    /// Is the first process: mounts, and runs the workload as its child.
    fn first(&self) -> Result<i32> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let bind = |source: &Path, target: PathBuf| {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            let told = format!("mount {}", target.display());
            mount(Some(source), &target, none, flags, none).context(told)
        };
        mount(Some("proc"), &self.root.join("proc"), Some("proc"), MsFlags::empty(), none)?;
        bind(Path::new("/dev"), self.root.join("dev"))?;
        bind(Path::new("/sys"), self.root.join("sys"))?;
        for (source, target) in &self.volumes {
            let target = self.root.join(target.trim_start_matches('/'));
            // As it stands, symlinks and all: that is what is naive about it. The directory may
            // become a symlink meanwhile.
            let _ = fs::create_dir_all(&target);
            bind(source, target)?;
        }
        if self.masks {
            for path in MASKED.map(|path| self.root.join(path)) {
                bind(Path::new("/dev/null"), path)?;
            }
            let sysctls = self.root.join("proc/sys");
            bind(&sysctls, sysctls.clone())?;
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &sysctls, none, flags, none)?;
        }
        let neighbour = self.neighbour.then(|| call::child(idle)).transpose()?;
        let workload = call::apart(|| {
            complain(&self.become_workload().err().unwrap_or_else(|| anyhow::anyhow!("no exec")));
            126
        })?;
        if let Some(neighbour) = neighbour {
            tell_of(neighbour)?;
        }
        Ok(status(workload))
    }

    fn become_workload(&self) -> Result<()> {
        if self.pivots {
            let (none, flags) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC);
            mount(Some(&self.root), &self.root, none, flags, none)?;
            nix::unistd::chdir(&self.root)?;
            nix::unistd::pivot_root(".", ".")?;
            umount2(".", MntFlags::MNT_DETACH)?;
        } else {
            chroot(&self.root)?;
        }
        nix::unistd::chdir(self.working_dir.as_str()).context("working directory")?;
        if let Some(files) = self.files {
            setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
        }
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/bin");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        bail!(command.exec())
    }
}

/// Is the naive runtime that this describes; enters what runs when its first process is given.
pub(crate) fn be_runtime(description: &str, first: Option<&str>) -> ExitCode {
    let runtime = serde_json::from_str::<Naive>(description).map_err(Into::into);
    let ran = runtime.and_then(|runtime| match first {
        None => runtime.run(),
        Some(first) => runtime.enter(first),
    });
    match ran {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(125)),
        Err(error) => {
            complain(&error);
            ExitCode::from(125)
        }
    }
}

fn complain(error: &anyhow::Error) {
    let line = format!("naive: {error:#}\n");
    // Nobody is told when nobody listens.
    let _ = nix::unistd::write(std::io::stderr(), line.as_bytes());
}

/// A process of someone else's.
fn idle() -> i32 {
    loop {
        pause();
    }
}

/// What the attack did to a process of someone else's.
fn tell_of(neighbour: Pid) -> Result<()> {
    let mut ended = waitpid(neighbour, Some(WaitPidFlag::WNOHANG))?;
    // A killed process takes a moment to end.
    for _ in 0..200 {
        if ended != WaitStatus::StillAlive {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        ended = waitpid(neighbour, Some(WaitPidFlag::WNOHANG))?;
    }
    if ended == WaitStatus::StillAlive {
        kill(neighbour, Signal::SIGKILL)?;
    }
    let killed = matches!(ended, WaitStatus::Signaled(..));
    let line = Evidence::when(killed, "another's process", format!("{ended:?}")).line();
    nix::unistd::write(std::io::stdout(), line.as_bytes())?;
    Ok(())
}

/// As a shell gives it.
fn status(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, status) => status,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 125,
    }
}
