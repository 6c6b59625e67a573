//! From a plan to a container that waits for its start.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use moat_core::cgroup::Hierarchy;
use moat_core::diagnose::{Code, Fault};
use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{MountKind, Sandbox, StartError};
use moat_core::spec::Signal;
use moat_host::process::ProcessId;
use moat_init::cgroup::{self, Cgroup, JoinFiles};
use moat_init::control::{self, Monitor, Report};
use moat_init::first::{self, RootIs, Surroundings, Wiring};
use moat_init::inside::Owner;
use moat_init::limits::raise_hard;
use moat_init::rootfs::{Builder, Tree, UserNamespace};
use moat_init::sys::clone::{self, Child, Namespaces};
use moat_init::sys::descriptor;
use moat_init::sys::mount::{self, Depth};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, fchown};

use crate::apart;
use crate::exec::Sessions;
use crate::fault::{self, fault};
use crate::limits;
use crate::mapping::{self, Mapping};
use crate::mount_namespace;
use crate::plan::ContainerPlan;
use crate::record::Record;
use crate::relay::Relay;
use crate::remains::{PATIENCE, wait_for_end};
use crate::running::Running;
use crate::skeleton::Skeleton;

/// Makes the container. When a step fails, all that was made is removed again.
pub(crate) fn create(plan: ContainerPlan, dir: &Path) -> Result<Running, Fault> {
    let hierarchy = plan.cgroup.as_ref().ok();
    let mut record =
        Record { process: None, cgroup: hierarchy.cloned(), mapping: plan.mapping.clone() };
    // The first process is born in its group of cgroup v2. Those of v1 it joins, so that they can
    // be made while it is busy.
    let unified = hierarchy.is_some_and(|hierarchy| hierarchy.is_unified());
    let cgroup = if unified { make_cgroup(&plan, dir)? } else { None };
    let mut making =
        Making { cgroup, join: JoinFiles::default(), child: None, warnings: Vec::new() };
    let made = making.make(&plan, dir, &mut record);
    let (monitor, relay, sessions) = match made {
        Ok(made) => made,
        Err(fault) => {
            making.undo();
            return Err(fault);
        }
    };
    let Making { cgroup, join, child, warnings } = making;
    let child = child.ok_or_else(|| Fault::new(Code::Container, "the container is gone"))?;
    let running = Running::new(child, monitor, relay, cgroup, plan.sandbox.reaper, sessions);
    Ok(running.with_join(join).with_warnings(warnings))
}

fn make_cgroup(plan: &ContainerPlan, dir: &Path) -> Result<Option<Cgroup>, Fault> {
    let Ok(hierarchy) = &plan.cgroup else { return Ok(None) };
    let made = Cgroup::create(hierarchy, &Record::group_name(dir), &plan.sandbox.limits)
        .map_err(limits::unmade)?;
    FaultPoint::CgroupMade.reached();
    Ok(Some(made))
}

/// What was made so far.
struct Making {
    cgroup: Option<Cgroup>,
    /// By which the first process joins that when it is told to start, if it has not before.
    join: JoinFiles,
    child: Option<Child>,
    /// What the user must know of it.
    warnings: Vec<String>,
}

impl Making {
    fn make(
        &mut self,
        plan: &ContainerPlan,
        dir: &Path,
        record: &mut Record,
    ) -> Result<(Monitor, Relay, Sessions), Fault> {
        let (monitor, first) =
            control::pair().map_err(|errno| fault("can't make a socket", errno))?;
        let taken = |error: std::io::Error| {
            Fault::new(Code::Container, "can't take over stdin, stdout and stderr").because(error)
        };
        let users = plan.mapping.map().users;
        let (stdio, mut relay) =
            Relay::stdio(plan.sandbox.process.terminal.is_some(), |user| users.has(user))
                .map_err(taken)?;
        let wiring = Wiring { control: first, stdio };
        let child = self.child.insert(spawn(plan, dir, self.cgroup.as_ref(), wiring)?);
        if !plan.mapping.is_plain_user() {
            // This process builds the root meanwhile.
            apart::move_apart(child);
        }
        FaultPoint::FirstMade.reached();
        match self.set_up(plan, dir, record, &monitor) {
            Ok(Report::Ready { terminal, namespaces }) => {
                FaultPoint::HeardReady.reached();
                terminal.map_or(Ok(()), |master| relay.serve(master)).map_err(taken)?;
                let own = plan.sandbox.process.clone();
                let mapping = record.mapping.clone();
                Ok((monitor, relay, Sessions::new(own, mapping, namespaces)))
            }
            Ok(Report::Failed(error)) => Err(fault::start(error)),
            Ok(Report::Started | Report::Exited(_)) => Err(self.lost()),
            Err(fault) => Err(self.own_reason(&monitor).unwrap_or(fault)),
        }
    }

    /// Gives the first process what it waits for, and hears what it says then.
    fn set_up(
        &mut self,
        plan: &ContainerPlan,
        dir: &Path,
        record: &mut Record,
        monitor: &Monitor,
    ) -> Result<Report, Fault> {
        let late = joins_late(plan);
        let early = if late { JoinFiles::default() } else { self.join_files(plan, dir)? };
        let Some(child) = &self.child else { return Err(self.lost()) };
        let (mapping, refusals) = give_ids(plan, child)?;
        FaultPoint::IdsGiven.reached();
        let ids = mapping::ids(&mapping);
        if !refusals.is_empty() {
            record.mapping = mapping;
            self.warnings = refusals;
        }
        if !plan.mapping.is_plain_user() {
            build_root(plan, dir, child).map_err(fault::start)?;
            FaultPoint::RootBuilt.reached();
        }
        let gone = |errno| fault("the container's first process is gone", errno);
        monitor.proceed(ids, &early).map_err(gone)?;
        FaultPoint::Proceeded.reached();
        // While the first process is busy. Until then it ends with this one, and a later moat
        // finds the groups without a record.
        record.process = u32::try_from(child.pid().as_raw()).ok().and_then(ProcessId::of);
        if late {
            self.join = self.join_files(plan, dir)?;
        }
        record.write(dir)?;
        FaultPoint::RecordWritten.reached();
        monitor.receive().map_err(gone)?.ok_or_else(|| self.lost())
    }

    /// By which the first process joins its groups of cgroup v1, which are made if need be.
    fn join_files(&mut self, plan: &ContainerPlan, dir: &Path) -> Result<JoinFiles, Fault> {
        if self.cgroup.is_none() {
            self.cgroup = make_cgroup(plan, dir)?;
        }
        let files = self.cgroup.as_ref().map(Cgroup::join_files).transpose();
        files.map(Option::unwrap_or_default).map_err(unjoinable)
    }

    /// What the first process itself has said of why it ended: of which that it is gone, wherever
    /// that showed, is but the consequence.
    fn own_reason(&self, monitor: &Monitor) -> Option<Fault> {
        // It says nothing more then, so that there is an end to hear.
        let _ = self.child.as_ref()?.signal(Signal::KILL);
        match monitor.receive() {
            Ok(Some(Report::Failed(error))) => Some(fault::start(error)),
            _ => None,
        }
    }

    /// What to say of a first process that ended without a word.
    fn lost(&self) -> Fault {
        let oom = self.cgroup.as_ref().is_some_and(|group| group.oom_kills().is_ok_and(|n| n > 0));
        let fault = Fault::new(Code::Container, "the container's first process was killed");
        if oom {
            fault.hint("raise `resources.memory`: it was used up by the set-up")
        } else {
            fault
        }
    }

    fn undo(self) {
        if let Some(child) = &self.child {
            // All fail only when it has ended and was reaped, or does not end.
            let _ = child.signal(Signal::KILL);
            let _ = wait_for_end(child.as_fd(), PATIENCE).is_ok_and(|()| child.wait().is_ok());
        }
        if let Some(Err(error)) = self.cgroup.map(Cgroup::remove) {
            tracing::warn!("{error}");
        }
    }
}

/// Forks the first process into its namespaces.
fn spawn(
    plan: &ContainerPlan,
    dir: &Path,
    cgroup: Option<&Cgroup>,
    wiring: Wiring,
) -> Result<Child, Fault> {
    let root_builds = !plan.mapping.is_plain_user();
    if root_builds {
        own_pipes(&wiring.stdio, mapping::owner(&plan.mapping));
    }
    // Where this process builds the root, the first process makes what is not needed for it, the
    // network above all, at the same time.
    let (now, rest) = (
        Namespaces::USER | Namespaces::MOUNT | Namespaces::PID,
        Namespaces::IPC | Namespaces::UTS | Namespaces::NETWORK,
    );
    let (namespaces, later) =
        if root_builds { (now, rest) } else { (now | rest, Namespaces::NONE) };
    let surroundings = Surroundings {
        exposed: plan.mapping.exposes_executable(),
        gives_namespaces: !root_builds,
        later,
        staging: dir.to_owned(),
        user_namespace: UserNamespace::Own,
        root: if root_builds { RootIs::Built } else { RootIs::ToBuild },
        tree: plan.skeleton.clone().map(skeleton_tree),
        cgroup: match plan.cgroup {
            Err(_) => first::Cgroup::None,
            Ok(_) if joins_late(plan) => first::Cgroup::Late,
            Ok(_) => first::Cgroup::Early { unified: cgroup.and_then(Cgroup::dir).is_some() },
        },
    };
    let options = clone::Options { namespaces, cgroup: cgroup.and_then(Cgroup::dir) };
    clone::spawn(options, || first::run(&plan.sandbox, &surroundings, wiring))
        .map_err(fault::namespaces)
}

/// Whether the first process joins its cgroup not before it is told to start: where that is shown to
/// nobody, neither by a filesystem of v2 nor by descriptors of the first process's namespaces.
fn joins_late(plan: &ContainerPlan) -> bool {
    let shown = |hierarchy: &Hierarchy| hierarchy.is_unified() || plan.mapping.is_plain_user();
    plan.cgroup.as_ref().is_ok_and(|hierarchy| !shown(hierarchy))
}

pub(crate) fn unjoinable(error: cgroup::Error) -> Fault {
    Fault::new(Code::Container, "can't join the cgroup that holds the limits").because(error)
}

/// Gives pipes among them to the container's user 0, who may then give them to the workload's
/// user: a program that opens /dev/stdout must be allowed to.
pub(crate) fn own_pipes(stdio: &[OwnedFd; 3], owner: Owner) {
    for fd in stdio {
        if descriptor::is_pipe(fd.as_fd()) {
            // A convenience: where it is refused, only opening it again is.
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            let _ = fchown(fd.as_fd(), Some(uid), Some(gid));
        }
    }
}

fn skeleton_tree(skeleton: Skeleton) -> Box<Tree<'static>> {
    Box::new(move |path, depth| {
        if path == Path::new("/") && depth == Depth::One {
            skeleton.make()
        } else {
            mount::clone_path(path, depth)
        }
    })
}

/// Gives the new user namespace its ids, and the process the right to the limits it asks for. Gives
/// the ids that are in force, and what was said when they are fewer than planned.
fn give_ids(plan: &ContainerPlan, child: &Child) -> Result<(Mapping, Vec<String>), Fault> {
    if !plan.mapping.is_plain_user() {
        raise_hard(child.pid(), &plan.sandbox.process.rlimits)
            .map_err(|errno| fault("can't raise the container's resource limits", errno))?;
    }
    plan.mapping.give_to(child.pid()).map_err(|error| {
        Fault::new(Code::Container, "can't map the container's ids").because(error)
    })
}

/// Builds the root in the container's mount namespace with the host's own rights.
fn build_root(plan: &ContainerPlan, dir: &Path, child: &Child) -> Result<(), StartError> {
    let trees = RefCell::new(open_trees(plan, child)?);
    mount_namespace::do_inside(child, || {
        let builder = Builder {
            staging: dir,
            user_namespace: UserNamespace::Initial,
            owner: mapping::owner(&plan.mapping),
            tree: &|path, depth| {
                let mut trees = trees.borrow_mut();
                let found = trees.iter().position(|tree| tree.path == path && tree.depth == depth);
                Ok(trees.swap_remove(found.ok_or(Errno::ENOENT)?).mount)
            },
        };
        builder.build(&plan.sandbox)
    })
}

/// A source of the sandbox, attached nowhere; one for each time that it is mounted.
struct OpenTree<'p> {
    path: &'p Path,
    depth: Depth,
    mount: OwnedFd,
}

/// Opens all sources before the container's mount namespace is entered, where what is mounted
/// below one may not be left out, and with owners as the container sees them.
fn open_trees<'p>(plan: &'p ContainerPlan, child: &Child) -> Result<Vec<OpenTree<'p>>, StartError> {
    let failed = |path: &Path, reason: String| StartError::Setup {
        step: format!("take {} into the container", path.display()),
        reason,
    };
    let namespace = match plan.mapping {
        Mapping::Mapped { .. } => Some(
            mapping::user_namespace(child)
                .map_err(|error| failed(Path::new("ids"), error.to_string()))?,
        ),
        _ => None,
    };
    let open = |(path, depth)| {
        let mount = match &namespace {
            Some(namespace) => mapping::mapped_tree(path, depth, namespace.as_fd()),
            None => mount::clone_path(path, depth),
        };
        let mount = mount.map_err(|errno| failed(path, errno.desc().to_lowercase()))?;
        Ok(OpenTree { path, depth, mount })
    };
    sources(&plan.sandbox).map(open).collect()
}

/// Every source of the sandbox, once for each time that it is mounted.
fn sources(sandbox: &Sandbox) -> impl Iterator<Item = (&Path, Depth)> {
    let lowers = sandbox.root.lowers.iter().map(|lower| (lower.source.as_path(), Depth::One));
    let volumes = sandbox.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { source, .. } => Some((source.as_path(), Depth::All)),
        MountKind::Tmpfs { .. } => None,
    });
    lowers.chain(volumes)
}
