//! What will be done for one workload, and the doing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use moat_core::cgroup::{Controller, Hierarchy};
use moat_core::diagnose::{Code, Fault};
use moat_core::policy::Approved;
use moat_core::sandbox::{Limits, Lower, Sandbox, TerminalSize};
use moat_core::spec::{Bytes, Cpus, GuestPath, Resolved, Resources, Root, Volume};
use moat_core::wire::SHARE;
use moat_core::workload::{Plan, Step, Workload};
use moat_host::cgroup::Unusable;
use moat_host::mapping::Mapping;
use moat_host::{rootfs, sandbox, source};
use moat_init::cgroup::{Cgroup, JoinFiles};
use moat_init::mapped::Trials;
use moat_init::sys::mount::Depth;

use super::check::{self, namespaces_hint};
use super::initramfs;
use super::instance::Instance;
use super::record::Remains;
use super::share::{Shared, SharedVolume};
use super::vmm::{self, LaunchError, Parts};
use crate::kernel::Bundle;
use crate::machine::MAX_VCPUS;
use crate::probe;

/// What the guest's kernel and agent take beside the workload's memory, measured with Debian's
/// cloud kernel, which is the hungriest: its code, data and initramfs.
const GUEST_OVERHEAD: u64 = 96 << 20;

/// The kernel keeps 64 bytes of every page of 4096 for its own books (`struct page`).
const PAGE_BOOKS: u64 = 64;

/// Guest memory comes in pieces of this many bytes, the size of a large page.
const GRANULE: u64 = 2 << 20;

/// What the VMM takes beside the guest's memory.
const VMM_OVERHEAD: u64 = 64 << 20;

/// The most threads that a VMM may have beside its vCPUs'.
const VMM_THREADS: u32 = 32;

/// The guest's kernel is to be heard only when something is wrong.
const CMDLINE: &str = "quiet";

/// A micro-VM's plan.
#[derive(Debug)]
pub(super) struct MicrovmPlan {
    guest: &'static [u8],
    bundle: Bundle,
    sandbox: Sandbox,
    shared: Shared,
    mapping: Mapping,
    vcpus: u8,
    /// Guest memory in bytes.
    memory: u64,
    cgroup: Result<Hierarchy, Unusable>,
}

impl MicrovmPlan {
    pub(super) fn new(
        guest: &'static [u8],
        bundle: Bundle,
        approved: &Approved,
        terminal: Option<TerminalSize>,
    ) -> Result<Self, Fault> {
        let workload = approved.workload();
        let vcpus = workload.vm.vcpus;
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            return Err(spec(format!("a micro-VM can't have {vcpus} vCPUs"))
                .hint(format!("set vm.vcpus to 1 to {MAX_VCPUS}")));
        }
        let shared = shared(workload)?;
        let mapping = mapping(&shared)?;
        let share = Path::new(SHARE);
        let lowers = vec![Lower { at: GuestPath::root(), source: share.join("root") }];
        let source = |index: usize, _: &Volume| share.join(format!("volumes/{index}"));
        Ok(Self {
            guest,
            bundle,
            sandbox: sandbox::describe(workload, terminal, lowers, shared.hidden.clone(), source)?,
            shared,
            mapping,
            vcpus,
            memory: guest_memory(workload.resources.memory)?,
            cgroup: moat_host::cgroup::locate(&Controller::BASE),
        })
    }

    /// The limits around the VMM's process as a whole.
    fn vmm_limits(&self) -> Limits {
        Limits::from(&Resources {
            cpus: Cpus::from_milli(u32::from(self.vcpus) * 1000),
            memory: Bytes::new(self.memory + VMM_OVERHEAD),
            pids: u32::from(self.vcpus) + VMM_THREADS,
        })
    }

    /// Makes all of it; what is made is in `remains`, to be removed if something fails.
    fn make(self, remains: &mut Remains) -> Result<(vmm::Vmm, Sandbox), Fault> {
        let group = remains.record.cgroup.as_ref();
        let group =
            group.map(|(hierarchy, name)| Cgroup::create(hierarchy, name, &self.vmm_limits()));
        let group = group.transpose().map_err(|error| {
            Fault::new(Code::Microvm, "can't limit the micro-VM").because(error)
        })?;
        let join = group.as_ref().map_or_else(|| Ok(JoinFiles::default()), Cgroup::join_files);
        let join = join.map_err(|error| {
            Fault::new(Code::Microvm, "can't limit the micro-VM").because(error)
        })?;
        let initramfs = initramfs::build(self.guest, &self.bundle.module_paths());
        let initramfs = initramfs.map_err(|error| {
            let what = format!("can't use the kernel bundle {}", self.bundle.name());
            Fault::new(Code::Kernel, what).because(error)
        })?;
        let parts = Parts {
            kvm: probe::open(Path::new(probe::KVM)).map_err(check::kvm_fault)?,
            kernel: open_kernel(&self.bundle)?,
            kernel_format: self.bundle.manifest().format,
            discovery: self.bundle.manifest().discovery,
            initramfs,
            cmdline: CMDLINE.to_owned(),
            vcpus: self.vcpus,
            memory: self.memory,
            shared: self.shared,
            stage: canonical(&remains.stage())?,
            mapping: self.mapping,
        };
        let vmm = vmm::launch(parts, group.as_ref().and_then(Cgroup::dir), &join);
        let vmm = vmm.map_err(launch_fault)?;
        remains.set_vmm(vmm.process.pid())?;
        Ok((vmm, self.sandbox))
    }
}

impl Plan for MicrovmPlan {
    fn steps(&self) -> Vec<Step> {
        let manifest = self.bundle.manifest();
        let mut steps = vec![
            Step::new(
                "boot guest kernel",
                format!("{}, {} modules", manifest.version, manifest.modules.len()),
            ),
            Step::new(
                "give the guest",
                format!(
                    "{} vCPUs, {} MiB: {} MiB for the workload and what its kernel takes",
                    self.vcpus,
                    self.memory >> 20,
                    self.sandbox.limits.memory.get() >> 20
                ),
            ),
            match &self.cgroup {
                Ok(_) => Step::new(
                    "limit the VMM",
                    format!("cgroup of {} MiB", self.vmm_limits().memory.get() >> 20),
                ),
                Err(unusable) => Step::new("limit the VMM", format!("not possible: {unusable}")),
            },
            Step::new(
                "confine the VMM",
                "user, pid, mount, network, ipc, uts and cgroup namespaces, an empty root, a \
                 seccomp filter for each thread, no capability but the file server's",
            ),
            Step::new("map ids", self.mapping.described()),
            Step::new(
                "share the root read-only",
                format!(
                    "{}, {} paths hidden",
                    self.shared.root.display(),
                    self.shared.hidden.len()
                ),
            ),
        ];
        for volume in &self.shared.volumes {
            let mode = if volume.read_only { "read-only" } else { "read-write" };
            let detail = format!("{} at {}, {mode}", volume.source, volume.target);
            steps.push(Step::new("share volume", detail));
        }
        let upper = self.sandbox.root.upper.get() >> 20;
        steps.extend([
            Step::new(
                "mount overlay",
                format!("/ in the guest, {upper} MiB writable, in its memory"),
            ),
            Step::new("limit the workload", "cgroup v2 in the guest: memory, cpu, pids"),
            Step::new("restrict the workload", sandbox::restrictions(&self.sandbox.process)),
            Step::new("start", self.sandbox.process.argv.join(" ")),
        ]);
        steps
    }

    /// None of limits: the guest's kernel keeps them, whatever this host can do.
    fn warnings(&self) -> Vec<String> {
        match &self.mapping {
            Mapping::Single { lacks, .. } if lacks.unexpected => {
                vec![format!("on volumes there is user 0 alone: {}", lacks.what)]
            }
            _ => Vec::new(),
        }
    }

    fn create(self: Box<Self>, dir: &Path) -> Result<Box<dyn Workload>, Fault> {
        self.shared.volumes.iter().try_for_each(|volume| volume.source.make())?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cgroup = self.cgroup.clone().ok().map(|hierarchy| (hierarchy, name));
        let mut remains = Remains::begin(dir, cgroup)?;
        let bundle = self.bundle.clone();
        match self.make(&mut remains) {
            Ok((vmm, sandbox)) => Ok(Box::new(Instance::new(vmm, remains, sandbox, bundle)?)),
            Err(fault) => {
                // What failed first is what the user must see; what is left now is in the record.
                let _ = remains.destroy();
                Err(fault)
            }
        }
    }
}

/// What the guest may see of the host.
fn shared(workload: &Resolved) -> Result<Shared, Fault> {
    let volumes = workload.volumes.iter().map(shared_volume).collect::<Result<_, _>>()?;
    match &workload.root {
        Root::Host => {
            let host = rootfs::Host::look().map_err(|error| {
                Fault::new(Code::Microvm, "can't look at this machine's root").because(error)
            })?;
            let (visible, hidden) = (host.lowers, host.hidden);
            Ok(Shared { root: "/".into(), visible, hidden, volumes })
        }
        Root::Directory(dir) => {
            let visible = vec![GuestPath::root()];
            source::rootfs(dir)?;
            Ok(Shared { root: dir.clone(), visible, hidden: Vec::new(), volumes })
        }
    }
}

/// How the guest's ids stand for this host's, on what is shared.
pub(super) fn mapping(shared: &Shared) -> Result<Mapping, Fault> {
    let lowers: Vec<PathBuf> = shared.lowers().collect();
    let lowers = lowers.iter().map(|lower| (lower.as_path(), false));
    let volumes =
        shared.volumes.iter().map(|volume| (volume.source.existing(), !volume.source.is_new()));
    let mut trials = Trials::default();
    let mapping = Mapping::choose(lowers.chain(volumes), |map, path, whole| {
        let depth = if whole { Depth::All } else { Depth::One };
        trials.maps(|pid| map.give_to(pid), path, depth)
    });
    mapping.map_err(|errno| {
        Fault::new(Code::Microvm, "can't try which filesystems map ids").because(errno)
    })
}

fn shared_volume(volume: &Volume) -> Result<SharedVolume, Fault> {
    let source = moat_host::volume::Volume::find(volume)?;
    Ok(SharedVolume { source, target: volume.target.clone(), read_only: volume.read_only })
}

/// The guest's memory in bytes, for so much of the workload's.
fn guest_memory(workload: Bytes) -> Result<u64, Fault> {
    let books = workload.get() / (4096 / PAGE_BOOKS);
    let total = workload.get().checked_add(books).and_then(|sum| sum.checked_add(GUEST_OVERHEAD));
    total
        .and_then(|total| total.checked_next_multiple_of(GRANULE))
        .ok_or_else(|| spec("resources.memory is more than any machine has"))
}

fn open_kernel(bundle: &Bundle) -> Result<File, Fault> {
    let path = bundle.kernel_path();
    File::open(&path).map_err(|error| {
        Fault::new(Code::Kernel, format!("can't open the guest kernel {}", path.display()))
            .hint("install one with `moat kernel install`")
            .because(error)
    })
}

fn canonical(path: &Path) -> Result<PathBuf, Fault> {
    path.canonicalize().map_err(|error: io::Error| {
        Fault::new(Code::State, format!("can't use {}", path.display())).because(error)
    })
}

fn launch_fault(error: LaunchError) -> Fault {
    let fault = Fault::new(Code::Microvm, "the VMM can't be started");
    let fault = match &error {
        LaunchError::Clone(errno) => fault.hint(namespaces_hint(*errno)),
        _ => fault,
    };
    fault.because(error)
}

fn spec(what: impl Into<String>) -> Fault {
    Fault::new(Code::Spec, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_the_workloads_and_the_kernels() {
        let memory = guest_memory(Bytes::mib(512)).unwrap();
        assert_eq!(memory, (512 + 8 + 96) << 20);
        assert_eq!(guest_memory(Bytes::new(1)).unwrap() % GRANULE, 0);
        assert!(guest_memory(Bytes::new(u64::MAX - 4096)).is_err());
    }
}
