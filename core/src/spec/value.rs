//! The typed values of a spec. Each is made only from input that was checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u64);

/// A share of processors, in thousandths of one: 1500 is one and a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpus(u32);

/// A workload's name: 1 to 63 of `a-z 0-9 -`, starting with a letter or digit (RFC 1123 label).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

/// A host name inside the workload: at most 63 bytes (RFC 1123; Linux's limit is 64).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hostname(String);

/// An absolute path inside the workload's root, without `.`, `..`, empty components or NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuestPath(String);

/// A user or group, by number or by a name that the root's own files resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Id {
    /// A numeric id.
    Number(u32),
    /// A name of the root's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// Whom the workload runs as: `user` or `user:group`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub user: Id,
    /// The group; by default the user's own from `/etc/passwd`, else 0.
    pub group: Option<Id>,
}

/// A Linux signal number, 1 to 64 (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(u8);

/// A Linux capability by its number (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(u8);

/// Where a volume's files are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A file or directory of the host, absolute.
    Bind(PathBuf),
    /// A volume that moat keeps, by name.
    Named(Name),
}

/// One entry of `volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Volume {
    /// Where its files are.
    pub source: VolumeSource,
    /// Where the workload sees them.
    pub target: GuestPath,
    /// Whether the workload may not write.
    pub read_only: bool,
}

/// One entry of `tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where it is mounted.
    pub target: GuestPath,
    /// Its size; by default half of the workload's memory.
    pub size: Option<Bytes>,
}

/// A resource of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// `RLIMIT_AS`, bytes.
    As,
    /// `RLIMIT_CORE`, bytes.
    Core,
    /// `RLIMIT_CPU`, seconds.
    Cpu,
    /// `RLIMIT_DATA`, bytes.
    Data,
    /// `RLIMIT_FSIZE`, bytes.
    Fsize,
    /// `RLIMIT_LOCKS`.
    Locks,
    /// `RLIMIT_MEMLOCK`, bytes.
    Memlock,
    /// `RLIMIT_MSGQUEUE`, bytes.
    Msgqueue,
    /// `RLIMIT_NICE`.
    Nice,
    /// `RLIMIT_NOFILE`, descriptors.
    Nofile,
    /// `RLIMIT_NPROC`, processes.
    Nproc,
    /// `RLIMIT_RTPRIO`.
    Rtprio,
    /// `RLIMIT_RTTIME`, microseconds.
    Rttime,
    /// `RLIMIT_SIGPENDING`.
    Sigpending,
    /// `RLIMIT_STACK`, bytes.
    Stack,
}

/// One resource limit; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which resource.
    pub resource: Resource,
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the workload may raise it.
    pub hard: Option<u64>,
}

/// How a workload is kept apart, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Linux namespaces: the kernel is shared with the host.
    Container,
    /// A micro-VM: a kernel of its own behind KVM.
    Vm,
}

/// What a spec or the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Policy decides.
    #[default]
    Auto,
    /// A container, or nothing.
    Container,
    /// A micro-VM, or nothing.
    Vm,
}

/// How `auto` picks among what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The strongest.
    Security,
    /// The cheapest.
    Density,
}

/// How far the workload's code is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Someone else's code.
    Untrusted,
    /// The user's own.
    Trusted,
}

impl Isolation {
    /// The name as specs and messages have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Bytes {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many MiB.
    pub const fn mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Cpus {
    /// So many thousandths of a processor.
    pub const fn from_milli(milli: u32) -> Self {
        Self(milli)
    }

    /// Thousandths of a processor.
    pub const fn milli(self) -> u32 {
        self.0
    }

    /// Whole processors, rounded up: what a micro-VM gets as vCPUs.
    pub const fn ceil(self) -> u32 {
        self.0.div_ceil(1000)
    }
}

impl Signal {
    /// `SIGHUP`.
    pub const HUP: Self = Self(1);
    /// `SIGINT`.
    pub const INT: Self = Self(2);
    /// `SIGKILL`.
    pub const KILL: Self = Self(9);
    /// `SIGTERM`.
    pub const TERM: Self = Self(15);

    /// The signal with this number, if it is one of Linux's 1 to 64.
    pub const fn from_number(number: i32) -> Option<Self> {
        if number >= 1 && number <= 64 { Some(Self(number.to_le_bytes()[0])) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl Capability {
    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl GuestPath {
    /// The path as text; it starts with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The root itself.
    pub fn root() -> Self {
        Self("/".to_owned())
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Hostname {
    /// The host name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl User {
    /// User and group 0.
    pub const ROOT: Self = Self { user: Id::Number(0), group: Some(Id::Number(0)) };
}

/// How long a workload has between its stop signal and SIGKILL unless its spec says otherwise.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);
