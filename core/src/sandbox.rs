//! What moat-init is to do, as data: made by a backend on the host, carried out in the container's
//! first process or, after a trip over the [wire](crate::wire), in the guest. That both walls
//! carry out the same value with the same code is what makes them behave the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::diagnose::{Code, Fault};
use crate::seccomp::Profile;
use crate::spec::{
    Bytes, Capability, ContainerOptions, CpuSet, Cpus, GuestPath, Hostname, IoMax, Landlock,
    Propagation, Resources, Rlimit, User,
};

/// The workload's root, mounts, names and first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Host name in the uts namespace.
    pub hostname: Hostname,
    /// The root filesystem.
    pub root: Rootfs,
    /// Volumes and memory filesystems, mounted in this order after the root.
    pub mounts: Vec<Mount>,
    /// Whether a reaper is PID 1 and the process its child.
    pub reaper: bool,
    /// The limits that a cgroup holds.
    pub limits: Limits,
    /// How much /dev/shm holds.
    pub shm_size: Bytes,
    /// What runs.
    pub process: Process,
}

/// The limits that a cgroup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processors.
    pub cpus: Cpus,
    /// Memory.
    pub memory: Bytes,
    /// Processes and threads together.
    pub pids: u32,
    /// Swap space beside the memory; 0 is none.
    pub swap: Bytes,
    /// The processors it runs on; all where there is none.
    pub cpuset: Option<CpuSet>,
    /// Its share of a busy block device, in [`IO_WEIGHT`](crate::spec::IO_WEIGHT).
    pub io_weight: Option<u16>,
    /// How fast it may use block devices, by the device's path as the maker of the cgroup sees it.
    pub io_max: Vec<(PathBuf, IoMax)>,
}

impl From<&Resources> for Limits {
    /// Without swap and without limits for processors and devices: as it is in a guest.
    fn from(resources: &Resources) -> Self {
        Self::new(resources, &ContainerOptions::default())
    }
}

impl Limits {
    /// The limits of a container.
    pub fn new(resources: &Resources, options: &ContainerOptions) -> Self {
        Self {
            cpus: resources.cpus,
            memory: resources.memory,
            pids: resources.pids,
            swap: options.swap,
            cpuset: options.cpuset.clone(),
            io_weight: options.io_weight,
            io_max: options.io_max.iter().map(|(path, max)| (path.clone(), *max)).collect(),
        }
    }
}

/// A copy-on-write root: overlays whose upper layers are in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// One lower directory for each filesystem that makes up the root, the one at `/` first, each
    /// parent before its children. Overlay does not cross mounts, so each gets an overlay.
    pub lowers: Vec<Lower>,
    /// Paths of the lowers that do not exist for the workload: the user's secrets, the host's
    /// runtime directories. Those that the lowers do not have are passed over.
    pub hidden: Vec<GuestPath>,
    /// The most that the writable layers hold together.
    pub upper: Bytes,
    /// Whether the root is read-only once all is set up.
    pub read_only: bool,
}

/// A read-only directory tree below one point of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lower {
    /// Where in the root it goes.
    pub at: GuestPath,
    /// The directory as seen by the process that mounts.
    pub source: PathBuf,
}

/// One mount over the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where; made if it is not there, resolved inside the root alone.
    pub target: GuestPath,
    /// What.
    pub kind: MountKind,
    /// Whether it can't be written.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory, as seen by the process that mounts.
    Bind {
        /// Its path before the root is changed.
        source: PathBuf,
        /// Whether what the host mounts below it later is seen.
        propagation: Propagation,
    },
    /// A memory filesystem.
    Tmpfs {
        /// Its size.
        size: Bytes,
    },
}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments. The program is looked up along `PATH` of `env` inside the root,
    /// unless it has a slash.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The directory it starts in; made if it is not there.
    pub working_dir: GuestPath,
    /// Whom it runs as.
    pub user: User,
    /// Its terminal, if it has one.
    pub terminal: Option<TerminalSize>,
    /// The capabilities it keeps when it runs as user 0, and at most can gain.
    pub capabilities: Vec<Capability>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// The capabilities that it keeps when it runs as another user than 0.
    pub ambient: Vec<Capability>,
    /// Its resource limits.
    pub rlimits: Vec<Rlimit>,
    /// The filter of its system calls.
    pub seccomp: Seccomp,
    /// What files it may use at most; everything where there is none.
    pub landlock: Option<Landlock>,
    /// What a security module of the kernel knows it by.
    pub label: Label,
}

/// The filter of a process's system calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Seccomp {
    /// moat's own, for the capabilities that the process keeps.
    #[default]
    Default,
    /// The user's.
    Profile(Box<Profile>),
}

/// What a security module of the kernel knows a process by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Label {
    /// As its parent.
    #[default]
    None,
    /// An AppArmor profile that is loaded.
    AppArmor(String),
    /// An SELinux label.
    Selinux(String),
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// By itself or by a signal.
    pub status: ExitStatus,
    /// Whether the kernel killed something of the workload because its memory limit was reached.
    pub oom: bool,
}

/// By itself or by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// exit(2) with this status.
    Code(u8),
    /// Ended by this signal.
    Signal(crate::spec::Signal),
}

impl Exit {
    /// The status that a shell gives: the code itself, or 128 + the signal's number.
    pub fn shell_status(&self) -> u8 {
        match self.status {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => {
                128u8.saturating_add(u8::try_from(signal.number()).unwrap_or(127))
            }
        }
    }
}

/// Why a workload's process did not come to run. Its text is the same on both walls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StartError {
    /// The program is nowhere along `PATH`, or the named file is not there. Exit status 127.
    #[error("command not found: {program}")]
    NotFound {
        /// As written.
        program: String,
    },
    /// The program is there but can't be run. Exit status 126.
    #[error("{program} can't be executed: {reason}")]
    NotExecutable {
        /// As written.
        program: String,
        /// The kernel's reason.
        reason: String,
    },
    /// The root's files have no such user or group.
    #[error("no {kind} {name:?} in the workload's {file}")]
    NoSuchId {
        /// `user` or `group`.
        kind: String,
        /// As written.
        name: String,
        /// `/etc/passwd` or `/etc/group`.
        file: String,
    },
    /// A step of the set-up failed.
    #[error("{step}: {reason}")]
    Setup {
        /// What was being done, with the path: `mount overlay at /`.
        step: String,
        /// The kernel's reason.
        reason: String,
    },
}

impl StartError {
    /// What the user is told, the same on both walls but for the code of a set-up that failed:
    /// `wall` is [`Code::Container`] or [`Code::Microvm`].
    pub fn into_fault(self, wall: Code) -> Fault {
        let (code, hint) = match &self {
            Self::NotFound { .. } => {
                (Code::NotFound, Some("check the command, and PATH in the workload's env"))
            }
            Self::NotExecutable { .. } => (
                Code::NotExecutable,
                Some("check its mode, its format, and that its interpreter is in the root"),
            ),
            Self::NoSuchId { .. } => {
                (wall, Some("use a number, or a name that the root's own files have"))
            }
            Self::Setup { step, reason } => (wall, set_up_hint(step, reason)),
        };
        let fault = Fault::new(code, self.to_string());
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

/// What to do about a step of the set-up that failed, on either wall.
fn set_up_hint(step: &str, reason: &str) -> Option<&'static str> {
    match reason {
        "no space left on device" => {
            Some("raise `resources.memory`: half of it is what the root's writable layer holds")
        }
        "try again" if step == "start the workload" => {
            Some("raise `resources.pids`: moat's reaper is one of them (or set `init = false`)")
        }
        "try again" if step == "enter the workload" => {
            Some("it may have as many processes as `resources.pids` allows: raise it")
        }
        "not a directory" | "is a directory" if step.starts_with("mount ") => {
            Some("a directory is mounted on a directory, and a file on a file")
        }
        _ if reason.starts_with("the workload's ids end at") => {
            Some("use a user and a group within that: the rest is not the workload's to be")
        }
        _ if step.starts_with("change to working directory") => {
            Some("name a directory that is there in the workload's root, by its own path")
        }
        _ if step == "make a Landlock ruleset" => Some(
            "Landlock takes Linux 6.2 or newer, with `landlock` in its `lsm=`: boot one, or another \
             guest kernel (`moat kernel`), or take security.landlock out of the spec",
        ),
        _ if step.starts_with("allow ") && step.ends_with(" with Landlock") => {
            Some("name paths that the workload's root or volumes have")
        }
        _ if step.starts_with("make the seccomp filter") => {
            Some("give it fewer conditions: each takes two to seven instructions for each call")
        }
        _ if step.starts_with("use AppArmor profile") => Some(
            "load it on this host first (apparmor_parser(8)); aa-status(8) lists those that are",
        ),
        _ if step.starts_with("make mount point") => {
            Some("the root has something else there: nothing is followed or replaced in it")
        }
        _ => None,
    }
}
