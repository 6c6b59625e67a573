//! What will be done for a workload, found out without touching anything.

use std::path::{Path, PathBuf};

use moat_core::cgroup::Hierarchy;
use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::{Limits, Lower, MountKind, Sandbox, TerminalSize};
use moat_core::spec::{Capability, GuestPath, Propagation, Resolved, Root};
use moat_core::workload::{Plan, Step, Workload};
use moat_host::cgroup::Unusable;
use moat_host::label::label;
use moat_host::rootfs::Host;
use moat_host::sandbox::{describe, restrictions};
use moat_host::source;
use moat_host::volume::Volume;
use moat_init::sys::mount::Depth;

use crate::create;
use crate::fault::fault;
use crate::limits;
use crate::mapping::{self, Mapping};
use crate::skeleton::Skeleton;

/// The plan of one container.
#[derive(Debug)]
pub(crate) struct ContainerPlan {
    /// What moat-init is to do.
    pub(crate) sandbox: Sandbox,
    /// Where its volumes are.
    volumes: Vec<Volume>,
    /// How ids are mapped.
    pub(crate) mapping: Mapping,
    /// Where the group with the limits is made, or why there will be none.
    pub(crate) cgroup: Result<Hierarchy, Unusable>,
    /// What stands in for `/` where a plain user may not show it as a whole.
    pub(crate) skeleton: Option<Skeleton>,
}

impl ContainerPlan {
    pub(crate) fn new(workload: &Resolved, terminal: Option<TerminalSize>) -> Result<Self, Fault> {
        let (mut lowers, hidden) = root(&workload.root)?;
        let volumes: Vec<Volume> =
            workload.volumes.iter().map(Volume::find).collect::<Result<_, _>>()?;
        let sources = lowers.iter().map(|lower| (lower.source.as_path(), Depth::One));
        let to_map = volumes.iter().map(|volume| {
            (volume.existing(), if volume.is_new() { Depth::One } else { Depth::All })
        });
        let mapping = mapping::choose(sources.chain(to_map))
            .map_err(|errno| fault("can't try which filesystems map ids", errno))?;
        let plain_user = mapping.is_plain_user();
        let skeleton = if plain_user && workload.root == Root::Host {
            let skeleton = Skeleton::of(&lowers, &hidden).map_err(|error| {
                Fault::new(Code::Container, "can't look at this machine's root").because(error)
            })?;
            lowers.clone_from(&skeleton.lowers);
            Some(skeleton)
        } else {
            None
        };
        let source = |index: usize| volumes.get(index).map_or(Path::new(""), Volume::path);
        let mut sandbox =
            describe(workload, terminal, lowers, hidden, |index, _| source(index).to_owned())?;
        if let Mapping::Identity { path } = &mapping
            && sandbox.process.capabilities.contains(&Capability::SYS_ADMIN)
        {
            return Err(unmapped_admin(path));
        }
        sandbox.limits = Limits::new(&workload.resources, &workload.container);
        sandbox.process.label = label(&workload.container)?;
        let cgroup = limits::place(&mut sandbox.limits)?;
        Ok(Self { sandbox, volumes, mapping, cgroup, skeleton })
    }

    fn limits(&self) -> Step {
        let text = limits::described(&self.sandbox.limits);
        match &self.cgroup {
            Ok(hierarchy) => {
                let parents = hierarchy.parents();
                let parents: Vec<_> = parents.iter().map(|dir| dir.display().to_string()).collect();
                let action = if parents.len() == 1 { "make cgroup" } else { "make cgroups" };
                Step::new(action, format!("in {}: {text}", parents.join(", ")))
            }
            Err(unusable) => {
                Step::new("leave limits unenforced", format!("no cgroup for {text}: {unusable}"))
            }
        }
    }

    fn ids(&self) -> Step {
        Step::new("map ids", self.mapping.described())
    }

    fn mounts(&self) -> impl Iterator<Item = Step> {
        let root = &self.sandbox.root;
        let writable = if root.read_only { "read-only" } else { "copy-on-write in memory" };
        let overlays = root.lowers.iter().map(move |lower| {
            let (at, source) = (lower.at.as_str(), lower.source.display());
            let mut detail = format!("{at} from {source}, {writable}");
            if lower.at.is_root() && !root.hidden.is_empty() {
                detail = format!("{detail}, {} paths hidden", root.hidden.len());
            }
            Step::new("mount overlay", detail)
        });
        let own =
            Step::new("mount", "/proc, /sys, /dev, /dev/pts, /dev/shm, /dev/mqueue of its own");
        let declared = self.sandbox.mounts.iter().map(|mount| {
            let target = mount.target.as_str();
            let mode = if mount.read_only { "read-only" } else { "read-write" };
            match &mount.kind {
                MountKind::Bind { source, propagation } => {
                    let mut detail = format!("{target} from {}, {mode}", self.described(source));
                    if *propagation == Propagation::Slave {
                        detail.push_str(", with what the host mounts below it later");
                    }
                    Step::new("mount volume", detail)
                }
                MountKind::Tmpfs { size } => {
                    Step::new("mount tmpfs", format!("{target}, {size}, {mode}"))
                }
            }
        });
        overlays.chain([own]).chain(declared)
    }

    /// A volume's source for people.
    fn described(&self, source: &Path) -> String {
        let volume = self.volumes.iter().find(|volume| volume.path() == source);
        volume.map_or_else(|| source.display().to_string(), Volume::to_string)
    }

    /// What `ro` does not hold for.
    fn open_below(&self) -> impl Iterator<Item = String> {
        let followed = self.sandbox.mounts.iter().filter(|mount| {
            let slave = |kind: &MountKind| {
                matches!(kind, MountKind::Bind { propagation: Propagation::Slave, .. })
            };
            mount.read_only && slave(&mount.kind)
        });
        followed.map(|mount| {
            format!(
                "{} is read-only, but what the host mounts below it later is as the host mounts it",
                mount.target
            )
        })
    }

    fn command(&self) -> Step {
        let process = &self.sandbox.process;
        let argv: Vec<String> = process.argv.iter().map(|word| format!("{word:?}")).collect();
        let place = match process.terminal {
            Some(size) => format!(" on a terminal of {}x{}", size.columns, size.rows),
            None => String::new(),
        };
        let parent = if self.sandbox.reaper { "under moat's reaper" } else { "as PID 1" };
        let detail = format!(
            "{} in {} as {}{place}, {parent}",
            argv.join(" "),
            process.working_dir.as_str(),
            process.user
        );
        Step::new("run", detail)
    }
}

impl Plan for ContainerPlan {
    fn steps(&self) -> Vec<Step> {
        let namespaces = "user, mount, pid, ipc, uts, network (loopback only), cgroup";
        let mut steps = vec![self.limits(), Step::new("make namespaces", namespaces), self.ids()];
        steps.extend(self.mounts());
        steps.push(Step::new("change root", "the host's own is detached"));
        steps.push(Step::new("set hostname", self.sandbox.hostname.as_str()));
        steps.push(Step::new("restrict", restrictions(&self.sandbox.process)));
        steps.push(self.command());
        steps
    }

    fn warnings(&self) -> Vec<String> {
        let limits = self.cgroup.as_ref().err().map(|unusable| {
            format!("memory, cpus and pids are not limited: {unusable}; {}", unusable.hint)
        });
        let ids = match &self.mapping {
            Mapping::Single { lacks, .. } if lacks.unexpected => {
                Some(format!("the workload has user 0 alone: {}", lacks.what))
            }
            _ => None,
        };
        let admin = self.sandbox.process.capabilities.contains(&Capability::SYS_ADMIN).then(|| {
            "with SYS_ADMIN the workload can write what is mounted read-only, and unmount what hides \
             parts of /proc and /sys"
                .to_owned()
        });
        limits.into_iter().chain(ids).chain(admin).chain(self.open_below()).collect()
    }

    fn create(self: Box<Self>, dir: &Path) -> Result<Box<dyn Workload>, Fault> {
        self.volumes.iter().try_for_each(Volume::make)?;
        Ok(Box::new(create::create(*self, dir)?))
    }
}

/// Whoever may mount can take away what makes /proc/sys read-only; its files are user 0's, and where
/// that is the host's own, so would the kernel's settings be.
fn unmapped_admin(path: &Path) -> Fault {
    let path = path.display();
    let what = format!(
        "the capability SYS_ADMIN can't be added: {path} is on a filesystem without id-mapped mounts, \
         so user 0 would be this host's, and could change this host's kernel"
    );
    Fault::new(Code::Container, what)
        .hint(format!("leave SYS_ADMIN or {path} out, or ask for `--isolation vm`"))
}

/// The lower directories of a root, and what of them is hidden.
fn root(root: &Root) -> Result<(Vec<Lower>, Vec<GuestPath>), Fault> {
    match root {
        Root::Host => {
            let host = Host::look().map_err(|error| {
                Fault::new(Code::Container, "can't look at this machine's root").because(error)
            })?;
            let lower = |at: GuestPath| Lower { source: PathBuf::from(at.as_str()), at };
            Ok((host.lowers.into_iter().map(lower).collect(), host.hidden))
        }
        Root::Directory(dir) => {
            source::rootfs(dir)?;
            Ok((vec![Lower { at: GuestPath::root(), source: dir.clone() }], Vec::new()))
        }
    }
}
