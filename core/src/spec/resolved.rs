//! A workload as meant: every default applied, every path absolute, nothing left to look up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Bytes, Capability, CpuSet, Cpus, DEFAULT_CAPABILITIES, GuestPath, Hostname, IoMax, Isolation,
    Level, Name, Objective, Rlimit, Signal, Tmpfs, Trust, User, Volume,
};

/// Where the workload's root filesystem comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// This machine's own root, copy-on-write.
    Host,
    /// A directory of the host, copy-on-write; absolute.
    Directory(PathBuf),
}

/// What was asked about isolation, and by whom it can be overruled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IsolationRequest {
    /// `isolation.level` of the spec.
    pub level: Level,
    /// `--isolation` of the command line; stands above the spec.
    pub flag: Option<Level>,
    /// `isolation.min`: the floor that the author set.
    pub min: Option<Isolation>,
    /// `isolation.objective`, when the spec has it.
    pub objective: Option<Objective>,
}

/// How much the workload may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processors.
    pub cpus: Cpus,
    /// Memory.
    pub memory: Bytes,
    /// Processes and threads together.
    pub pids: u32,
}

/// How the workload is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Loopback only.
    None,
}

/// What the workload may ask of its kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Capabilities beyond the default set.
    pub cap_add: Vec<Capability>,
    /// Capabilities taken from the default set.
    pub cap_drop: Vec<Capability>,
    /// Whether a setuid file gains nothing (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// What files it may use at most, beyond their modes; everything where there is none.
    pub landlock: Option<Landlock>,
}

/// Which filter of system calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// moat's own.
    #[default]
    Default,
    /// A file in the OCI's JSON format; absolute.
    File(PathBuf),
}

/// The files that a workload may use at most (landlock(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// It may read and execute what is at or below these, and at or below those of `write`.
    pub read: Vec<GuestPath>,
    /// It may write, make and remove only what is at or below these.
    pub write: Vec<GuestPath>,
}

/// What only a container has; inert on a vm.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerOptions {
    /// The host's processors that it runs on; all where there is none.
    pub cpuset: Option<CpuSet>,
    /// Swap space beside `resources.memory`; 0 is none.
    pub swap: Bytes,
    /// Its share of a busy block device, in [`IO_WEIGHT`](super::IO_WEIGHT); the kernel's default
    /// is 100.
    pub io_weight: Option<u16>,
    /// How fast it may use block devices, by the device's absolute path.
    pub io_max: BTreeMap<PathBuf, IoMax>,
    /// The AppArmor profile it runs under, which the host has loaded.
    pub apparmor: Option<String>,
    /// The SELinux label it runs under.
    pub selinux: Option<String>,
}

/// What only a micro-VM has; inert in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmOptions {
    /// Virtual processors.
    pub vcpus: u8,
    /// The kernel bundle's name; `None` is the default bundle.
    pub kernel: Option<String>,
}

impl Security {
    /// The capabilities that the workload keeps: the default set less `cap_drop`, and `cap_add`;
    /// in the order of their numbers.
    pub fn capabilities(&self) -> Vec<Capability> {
        let kept = |one: &Capability| {
            self.cap_add.contains(one)
                || DEFAULT_CAPABILITIES.contains(one) && !self.cap_drop.contains(one)
        };
        Capability::ALL.iter().copied().filter(kept).collect()
    }
}

/// A workload as meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Its name in the spec.
    pub name: Name,
    /// Where its root comes from.
    pub root: Root,
    /// Program and arguments: `entrypoint` then `command`. Never empty.
    pub argv: Vec<String>,
    /// The directory it starts in.
    pub working_dir: GuestPath,
    /// Whom it runs as.
    pub user: User,
    /// Its host name.
    pub hostname: Hostname,
    /// How far its code is trusted.
    pub trust: Trust,
    /// Labels, for rules and listings.
    pub labels: BTreeMap<String, String>,
    /// Its environment, `env_file` and `env` merged over moat's few defaults.
    pub env: BTreeMap<String, String>,
    /// Host files and directories it sees, in the order written.
    pub volumes: Vec<Volume>,
    /// Memory filesystems it has, in the order written.
    pub tmpfs: Vec<Tmpfs>,
    /// How much /dev/shm holds.
    pub shm_size: Bytes,
    /// Whether its root can't be written.
    pub read_only: bool,
    /// Whether moat's reaper is PID 1 and the workload its child.
    pub init: bool,
    /// Whether it gets a terminal; `None` when moat itself is on one.
    pub tty: Option<bool>,
    /// What asks it to end.
    pub stop_signal: Signal,
    /// How long it has to, before SIGKILL.
    pub stop_timeout: Duration,
    /// What was asked about isolation.
    pub isolation: IsolationRequest,
    /// How much it may use.
    pub resources: Resources,
    /// How it is connected.
    pub network: NetworkMode,
    /// What it may ask of its kernel.
    pub security: Security,
    /// Its resource limits.
    pub rlimits: Vec<Rlimit>,
    /// What only a micro-VM has.
    pub vm: VmOptions,
    /// What only a container has.
    pub container: ContainerOptions,
    /// Keys that are set but inert on one isolation, as written: `container.x`, `vm.vcpus`.
    pub inert: Vec<InertKey>,
}

/// A key that means nothing on one isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InertKey {
    /// The key as written.
    pub key: String,
    /// Where it means nothing.
    pub on: Isolation,
}
