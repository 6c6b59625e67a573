//! All that the workload's first process does.
//!
//! ```text
//! spawned -> the rest of its namespaces, names, loopback -> [Proceed] -> cgroup of v2, user 0
//!         -> root, unless its owner has built it -> kernel filesystems -> new root -> Ready
//!         -> [Start] -> cgroups of v1 -> the command as its child (or itself) -> Started -> Exited
//! ```

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{Sandbox, StartError};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid, setsid};
use serde::{Deserialize, Serialize};

use crate::cgroup::JoinFiles;
use crate::control::First;
use crate::enter;
use crate::error::Step;
use crate::inside::Owner;
use crate::kernel_fs::{self, TerminalGroup};
use crate::process::{self, Program};
use crate::reaper;
use crate::rootfs::{self, Builder, Tree, UserNamespace};
use crate::sys::clone::{self, Namespaces};
use crate::sys::trampoline::Trampoline;
use crate::sys::{descriptor, mount, network, process as sys_process, title};
use crate::terminal::{self, Terminal};

/// What the first process finds around it.
pub struct Surroundings {
    /// An existing directory of moat's own, over which the root is built.
    pub staging: PathBuf,
    /// Whether it is in a user namespace of moat's own. If so it waits for
    /// [`Monitor::proceed`](crate::control::Monitor::proceed), which says what ids it has, before
    /// it needs them.
    pub user_namespace: UserNamespace,
    /// Who builds the root.
    pub root: RootIs,
    /// The namespaces that it makes itself, while its owner builds the root; it has the others.
    pub later: Namespaces,
    /// Gives the sandbox's sources where that takes more than copying the mount there is.
    pub tree: Option<Box<Tree<'static>>>,
    /// How it comes into the cgroup that holds its limits.
    pub cgroup: Cgroup,
    /// Whether its owner gets descriptors of its namespaces, since it may not open them later.
    pub gives_namespaces: bool,
    /// Whether the workload's ids would have a right to moat's own executable, if it came by it.
    pub exposed: bool,
}

/// How many ids the workload has, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Users.
    pub users: u32,
    /// Groups. With one alone, which is that of the plain user who started moat, there are no
    /// supplementary ones (user_namespaces(7), `setgroups`).
    pub groups: u32,
}

impl Ids {
    /// Those of every ordinary user and group, and `nobody`: what a workload has on every wall but
    /// where a plain user started moat, also where the kernel would give it more.
    pub const ALL: Self = Self { users: 65536, groups: 65536 };
}

/// Who builds the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootIs {
    /// The first process itself.
    ToBuild,
    /// Its owner, from outside, before it says to proceed.
    Built,
}

/// How the first process comes into its cgroup.
#[derive(Debug)]
pub enum Cgroup {
    /// It has none of its own.
    None,
    /// It joins it when it is told to proceed, as far as it is of v1.
    Early {
        /// Whether it was born in a part of it (v2).
        unified: bool,
    },
    /// It joins it, all of v1, when it is told to start the workload: until then its owner makes
    /// it, while the first process is busy.
    Late,
}

/// The descriptors of the first process.
#[derive(Debug)]
pub struct Wiring {
    /// Its line to its owner.
    pub control: First,
    /// The workload's stdin, stdout and stderr when it has no terminal.
    pub stdio: [OwnedFd; 3],
}

/// Is the first process, to its end; for [`spawn`](crate::sys::clone::spawn). Gives the status to
/// end with, once nothing more can be said over the line.
pub fn run(sandbox: &Sandbox, surroundings: &Surroundings, wiring: Wiring) -> u8 {
    let Wiring { control, stdio } = wiring;
    match live(sandbox, surroundings, &control, stdio) {
        Ok(status) => status,
        Err(error) => {
            // An owner that is gone does not ask.
            let _ = control.failed(error);
            1
        }
    }
}

fn live(
    sandbox: &Sandbox,
    surroundings: &Surroundings,
    control: &First,
    stdio: [OwnedFd; 3],
) -> Result<u8, StartError> {
    FaultPoint::FirstBegun.reached();
    keep_descriptors(control, &stdio)?;
    FaultPoint::DescriptorsClosed.reached();
    if sandbox.reaper {
        // The keys of the terminal that moat is on are for moat alone to pass on, and once.
        setsid().step(|| "make a session")?;
    }
    sys_process::leave_keyring();
    SigSet::all().thread_block().step(|| "block signals")?;
    let Some((program, master)) = set_up(sandbox, surroundings, control, stdio)? else {
        return Ok(1);
    };
    let in_cgroup = !matches!(surroundings.cgroup, Cgroup::None);
    let namespaces = surroundings.gives_namespaces.then(|| enter::Namespaces::own(in_cgroup));
    let namespaces = namespaces.transpose()?;
    let terminal = master.as_ref().map(AsFd::as_fd);
    control.ready(terminal, namespaces.as_ref()).step(|| "report")?;
    drop((master, namespaces));
    FaultPoint::SaidReady.reached();
    // Before anyone is there to see it, while the owner writes down that all is ready.
    title::hide().step(|| "hide moat's command line")?;
    let Ok(Some(files)) = control.wait_to_start() else { return Ok(1) };
    FaultPoint::ToldToStart.reached();
    if matches!(surroundings.cgroup, Cgroup::Late) {
        join(&files)?;
    }
    drop(files);
    FaultPoint::Joined.reached();
    if sandbox.reaper {
        return reaper::run(program, surroundings.exposed, control);
    }
    if surroundings.exposed {
        let way = Trampoline::make(control.as_fd()).step(|| "start the workload")?;
        return Err(program.execute_by(&way, Some(control), &mut None));
    }
    Err(program.execute(Some(control)))
}

fn keep_descriptors(control: &First, stdio: &[OwnedFd; 3]) -> Result<(), StartError> {
    let mut keep = vec![control.as_fd().as_raw_fd()];
    keep.extend(process::numbers(stdio));
    keep.extend(FaultPoint::descriptor());
    descriptor::keep_only(&mut keep).step(|| "close descriptors")
}

/// Sets all up; `None` when the owner is gone.
fn set_up(
    sandbox: &Sandbox,
    surroundings: &Surroundings,
    control: &First,
    stdio: [OwnedFd; 3],
) -> Result<Option<(Program, Option<OwnedFd>)>, StartError> {
    clone::unshare(surroundings.later).step(|| "make namespaces")?;
    sethostname(sandbox.hostname.as_str()).step(|| "set the host name")?;
    network::loopback_up().step(|| "bring up the loopback interface")?;
    FaultPoint::Named.reached();
    let Some(Proceeded { ids, shows_cgroup, built }) = proceed(surroundings, control)? else {
        return Ok(None);
    };
    let root = match built {
        Some(root) => root,
        None => build(sandbox, surroundings)?,
    };
    kernel_fs::mount_all(root.as_fd(), shows_cgroup, TerminalGroup::of(ids))?;
    FaultPoint::KernelFilesystemsMounted.reached();
    kernel_fs::mask(root.as_fd())?;
    FaultPoint::Masked.reached();
    let terminal = sandbox.process.terminal;
    let terminal = terminal.map(|size| terminal::open(root.as_fd(), size)).transpose()?;
    kernel_fs::change_root(root.as_fd())?;
    FaultPoint::RootChanged.reached();
    drop(root);
    let (stdio, master) = match terminal {
        None => (stdio, None),
        Some(Terminal { master, peer }) => (thrice(peer)?, Some(master)),
    };
    let program = Program::prepare(&sandbox.process, ids, stdio)?;
    FaultPoint::ProgramPrepared.reached();
    Ok(Some((program, master)))
}

/// What the first process has once it was told to proceed.
struct Proceeded {
    ids: Ids,
    /// Whether its cgroup can be shown.
    shows_cgroup: bool,
    /// The root, if its owner has built it.
    built: Option<OwnedFd>,
}

/// Waits to be told that ids are mapped, and becomes user 0; `None` when the owner is gone.
fn proceed(surroundings: &Surroundings, control: &First) -> Result<Option<Proceeded>, StartError> {
    let own = surroundings.user_namespace == UserNamespace::Own;
    let (ids, files) = if own {
        match control.wait_to_proceed() {
            Ok(told) => told,
            Err(_) => return Ok(None),
        }
    } else {
        (Ids::ALL, JoinFiles::default())
    };
    FaultPoint::ToldToProceed.reached();
    let shows_cgroup = match surroundings.cgroup {
        Cgroup::None | Cgroup::Late => false,
        // By v1 files it is joined in other trees than the one that can be shown.
        Cgroup::Early { unified } => join(&files)? && unified,
    };
    // Before the change of user: the staging directory is the machine's root's alone.
    let built = match surroundings.root {
        RootIs::Built => Some(open_root(surroundings)?),
        RootIs::ToBuild => None,
    };
    if own {
        become_root(ids)?;
    }
    FaultPoint::BecameRoot.reached();
    // Nobody in the workload may look at or reach through this process, which is still moat's own
    // program (proc(5): its /proc entries then need rights over the machine).
    prctl::set_dumpable(false).step(|| "hide from the workload")?;
    // Not earlier, since a change of user takes it back. Whatever it waits for from here on, it ends
    // with its owner; one that is gone already it finds gone when it reports.
    prctl::set_pdeathsig(Signal::SIGKILL).step(|| "die with moat")?;
    Ok(Some(Proceeded { ids, shows_cgroup, built }))
}

fn build(sandbox: &Sandbox, surroundings: &Surroundings) -> Result<OwnedFd, StartError> {
    let builder = Builder {
        staging: &surroundings.staging,
        user_namespace: surroundings.user_namespace,
        owner: Owner::ROOT,
        tree: surroundings.tree.as_deref().unwrap_or(&mount::clone_path),
    };
    builder.build(sandbox)?;
    open_root(surroundings)
}

fn open_root(surroundings: &Surroundings) -> Result<OwnedFd, StartError> {
    let staging = mount::place(nix::fcntl::AT_FDCWD, surroundings.staging.as_path());
    let root = staging.and_then(|staging| mount::place(staging, rootfs::ROOT));
    root.step(|| "open the new root")
}

/// Joins the cgroup, and makes it the root of what the workload sees of cgroups; whether the kernel
/// can do that.
fn join(files: &JoinFiles) -> Result<bool, StartError> {
    files.join().step(|| "join the cgroup")?;
    let unshared = match nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP) {
        // A kernel built without cgroup namespaces would show the whole tree.
        Err(Errno::EINVAL) => false,
        unshared => unshared.map(|()| true).step(|| "make a cgroup namespace")?,
    };
    Ok(unshared)
}

/// Becomes user 0 of the user namespace, with all its rights there.
pub(crate) fn become_root(ids: Ids) -> Result<(), StartError> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    let step = || "become user 0 of the user namespace";
    if ids.groups > 1 {
        setgroups(&[]).step(step)?;
    }
    setresgid(gid, gid, gid).step(step)?;
    setresuid(uid, uid, uid).step(step)
}

pub(crate) fn thrice(fd: OwnedFd) -> Result<[OwnedFd; 3], StartError> {
    let copy = || fd.try_clone().step(|| "set up the terminal");
    Ok([copy()?, copy()?, fd])
}
