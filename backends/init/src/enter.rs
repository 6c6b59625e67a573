//! One more process in a workload that runs.
//!
//! ```text
//! owner ─fork, into the cgroup─▶ who enters: nothing of the host left open, hidden, setns
//!                                  └─fork, as a child of the owner─▶ the process, in the pid
//!                                    namespace: terminal, user, restrictions, exec
//! ```
//! Two, since only who is born after setns is in a pid namespace (pid_namespaces(7)). The first
//! ends at once, and the owner holds the second by a pidfd before it may become the command.
//!
//! Until then it still is moat's own program, among processes that must not reach through it: it
//! was made undumpable before it entered, and has no descriptor of a directory of the host.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{Process, StartError};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, pipe2, setsid};
use serde::{Deserialize, Serialize};

use crate::cgroup::JoinFiles;
use crate::command;
use crate::control::{self, shorten};
use crate::error::Step;
use crate::first::{Ids, become_root, thrice};
use crate::limits;
use crate::process::{self, Program};
use crate::rootfs::UserNamespace;
use crate::sys::clone::{self, Child};
use crate::sys::trampoline::Trampoline;
use crate::sys::{descriptor, mount, process as sys_process, title};
use crate::terminal::{self, Terminal};

/// What the step is called that fails for a workload that ends meanwhile.
pub const ENTER: &str = "enter the workload";

/// Why it fails then.
pub const ENDED: &str = "it has just ended";

/// A workload that can be entered.
#[derive(Debug)]
pub struct Door<'d> {
    /// The way into its namespaces.
    pub way: Way<'d>,
    /// The ids that it has.
    pub ids: Ids,
    /// Whether those would have a right to moat's own executable, if they came by it.
    pub exposed: bool,
    /// By what those parts of its cgroup are joined in which nobody is born (v1).
    pub cgroup: JoinFiles,
}

/// The way into a workload's namespaces.
#[derive(Debug)]
pub enum Way<'d> {
    /// Through its first process, by a pidfd, into these of its namespaces. Takes rights over that
    /// process (setns(2)), which only root has once it has hidden.
    Through(BorrowedFd<'d>, CloneFlags),
    /// By their descriptors.
    By(&'d Namespaces),
}

/// The namespaces that a workload has of its own, for [`Way::Through`].
pub fn kinds(user: UserNamespace, cgroup: bool) -> CloneFlags {
    let mut kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET;
    if user == UserNamespace::Own {
        kinds |= CloneFlags::CLONE_NEWUSER;
    }
    if cgroup && has_cgroup_namespaces() {
        kinds |= CloneFlags::CLONE_NEWCGROUP;
    }
    kinds
}

/// A kernel may have none.
fn has_cgroup_namespaces() -> bool {
    Path::new("/proc/self/ns/cgroup").exists()
}

/// A workload's namespaces, opened by its first process itself.
#[derive(Debug)]
pub struct Namespaces(pub(crate) Vec<OwnedFd>);

/// What a workload always has of its own, the user namespace first: it gives the rights to enter
/// the others.
const KINDS: [&str; 6] = ["user", "mnt", "pid", "ipc", "uts", "net"];

impl Namespaces {
    /// Those of the calling process; that of cgroups only where it has one of its own.
    pub(crate) fn own(cgroup: bool) -> Result<Self, StartError> {
        let open = |kind| {
            let path = format!("/proc/self/ns/{kind}");
            File::open(&path).map(OwnedFd::from).step(|| format!("open {path}"))
        };
        let cgroup = cgroup && has_cgroup_namespaces();
        KINDS
            .into_iter()
            .chain(cgroup.then_some("cgroup"))
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Way<'_> {
    fn enter(&self) -> nix::Result<()> {
        match self {
            Self::Through(first, kinds) => setns(first, *kinds),
            Self::By(Namespaces(all)) => {
                all.iter().try_for_each(|namespace| setns(namespace, CloneFlags::empty()))
            }
        }
    }

    fn numbers(&self) -> Vec<i32> {
        match self {
            Self::Through(first, _) => vec![first.as_raw_fd()],
            Self::By(Namespaces(all)) => all.iter().map(AsRawFd::as_raw_fd).collect(),
        }
    }
}

/// What is told of the process, in this order: `Entered`, `Terminal` if it has one, and then
/// nothing more once it has become the command; `Failed` at any point before.
#[derive(Debug)]
pub enum Report {
    /// It is there, as a child of its owner.
    Entered(Child),
    /// The master of its terminal.
    Terminal(OwnedFd),
    /// It will not become the command, and ends.
    Failed(StartError),
}

#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// By a program of two bytes' words, so it stays the first: the kernel refused the command with
    /// this error number.
    Refused(u8),
    Entered {
        pid: i32,
    },
    Terminal,
    Failed(StartError),
}

/// The owner's end of the line.
#[derive(Debug)]
pub struct Owner(OwnedFd);

/// The other end.
#[derive(Debug)]
pub struct Line(OwnedFd);

/// Makes a line.
///
/// # Errors
/// socketpair(2)'s.
pub fn line() -> nix::Result<(Owner, Line)> {
    control::sockets().map(|(owner, line)| (Owner(owner), Line(line)))
}

impl Owner {
    /// Waits for the next report; `None` when there are no more: the process has become the
    /// command, or is gone.
    ///
    /// # Errors
    /// recvmsg(2)'s; `EBADMSG` for what is no report.
    pub fn receive(&self) -> nix::Result<Option<Report>> {
        let Some((message, mut descriptors)) = control::receive(&self.0)? else { return Ok(None) };
        let mut descriptor = || descriptors.pop().ok_or(Errno::EBADMSG);
        Ok(Some(match message {
            Message::Entered { pid } => {
                Report::Entered(Child::received(Pid::from_raw(pid), descriptor()?))
            }
            Message::Terminal => Report::Terminal(descriptor()?),
            Message::Failed(error) => Report::Failed(error),
            Message::Refused(number) => Report::Failed(command::refused(number)),
        }))
    }
}

impl AsFd for Owner {
    /// Readable when there is a report, or the end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Line {
    fn say(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> nix::Result<()> {
        control::send(&self.0, message, descriptor.as_slice())
    }

    fn failed(&self, error: StartError) -> u8 {
        // An owner that is gone does not ask.
        let _ = self.say(&Message::Failed(shorten(error)), None);
        1
    }
}

/// The descriptors of the process.
#[derive(Debug)]
pub struct Wiring {
    /// Its line to its owner.
    pub line: Line,
    /// Its stdin, stdout and stderr, unless it gets a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
}

impl Wiring {
    fn numbers(&self) -> Vec<i32> {
        let stdio = self.stdio.iter().flat_map(process::numbers);
        stdio.chain([self.line.0.as_raw_fd()]).collect()
    }
}

/// Enters and starts the process; for [`spawn`](clone::spawn). Gives the status to end with, once
/// all is said over the line.
pub fn run(process: &Process, door: &Door<'_>, wiring: Wiring) -> u8 {
    match enter(process, door, &wiring) {
        Ok(()) => 0,
        Err(error) => wiring.line.failed(error),
    }
}

fn enter(process: &Process, door: &Door<'_>, wiring: &Wiring) -> Result<(), StartError> {
    let step = || ENTER;
    let mut keep = wiring.numbers();
    keep.extend(door.way.numbers());
    keep.extend(door.cgroup.numbers());
    keep.extend(FaultPoint::descriptor());
    descriptor::keep_only(&mut keep).step(|| "close descriptors")?;
    hide()?;
    title::hide().step(|| "hide moat's command line")?;
    // The keys of the terminal that moat is on are not for it. And as long as the process is in
    // this group, its owner can reap it even when it was not told of it.
    setsid().step(|| "make a session")?;
    sys_process::leave_keyring();
    SigSet::all().thread_block().step(|| "block signals")?;
    limits::raise_hard(Pid::from_raw(0), &process.rlimits).step(|| "raise resource limits")?;
    door.cgroup.join().step(|| "join the cgroup")?;
    FaultPoint::SessionJoined.reached();
    door.way.enter().map_err(gone).step(step)?;
    FaultPoint::SessionEntered.reached();
    become_root(door.ids)?;
    // The change of user may have undone it (proc(5), /proc/sys/fs/suid_dumpable).
    hide()?;
    let (held, release) = pipe2(OFlag::O_CLOEXEC).step(step)?;
    let entered = clone::spawn_sibling(|| match live(process, door, wiring, held) {
        Ok(never) => match never {},
        Err(error) => wiring.line.failed(error),
    });
    let entered = entered.map_err(gone).step(step)?;
    let message = Message::Entered { pid: entered.pid().as_raw() };
    wiring.line.say(&message, Some(entered.as_fd())).step(step)?;
    // A process that does not wait any more has said why.
    let _ = File::from(release).write_all(&[1]);
    Ok(())
}

/// Nobody in the workload may look at or reach through a process that still is moat's own program
/// (ptrace(2), "Ptrace access mode checking").
fn hide() -> Result<(), StartError> {
    prctl::set_dumpable(false).step(|| "hide from the workload")
}

/// The kernel's answers that mean that there is nothing to enter any more.
fn gone(errno: Errno) -> String {
    match errno {
        // No such process; its pid namespace takes no more (pid_namespaces(7)).
        Errno::ESRCH | Errno::ENOMEM => ENDED.to_owned(),
        errno => crate::error::Reason::reason(&errno),
    }
}

/// Is the process, from its birth in the workload to its command.
fn live(
    process: &Process,
    door: &Door<'_>,
    wiring: &Wiring,
    held: OwnedFd,
) -> Result<std::convert::Infallible, StartError> {
    let mut keep = wiring.numbers();
    keep.push(held.as_raw_fd());
    keep.extend(FaultPoint::descriptor());
    descriptor::keep_only(&mut keep).step(|| "close descriptors")?;
    let stdio = match (process.terminal, &wiring.stdio) {
        (Some(size), _) => {
            let root = mount::place(AT_FDCWD, "/").step(|| "open the root")?;
            let Terminal { master, peer } = terminal::make(root.as_fd(), size)?;
            wiring.line.say(&Message::Terminal, Some(master.as_fd())).step(|| "report")?;
            thrice(peer)?
        }
        (None, Some([stdin, stdout, stderr])) => {
            let step = || "set up stdin, stdout and stderr";
            [
                stdin.try_clone().step(step)?,
                stdout.try_clone().step(step)?,
                stderr.try_clone().step(step)?,
            ]
        }
        (None, None) => Err("there is neither a terminal nor anything else".to_owned())
            .step(|| "set up stdin, stdout and stderr")?,
    };
    let program = Program::prepare(process, door.ids, stdio)?;
    FaultPoint::SessionPrepared.reached();
    // Only once its owner knows of it.
    File::from(held).read_exact(&mut [0]).step(|| "start the command")?;
    if door.exposed {
        let way = Trampoline::make(wiring.line.0.as_fd()).step(|| "start the command")?;
        return Err(program.execute_by(&way, None, &mut None));
    }
    Err(program.execute(None))
}
