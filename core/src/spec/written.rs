//! A spec as written: every key of the format with its type. The doc comments are the
//! descriptions of the JSON Schema.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "schema")]
use super::schema::DurationText;
use super::{
    Bytes, CapabilitySet, Condition, CpuSet, Cpus, GuestPath, HostPath, Hostname, Image, IoMax,
    Isolation, KernelName, Level, Name, Network, Objective, Place, Port, Restart, Rlimit, Signal,
    Tmpfs, Trust, User, WrittenSeccomp, WrittenVolume,
};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the spec.
    pub place: Place,
    /// Its key with the tables: `workload.api.volumes[1]`.
    pub key: String,
}

/// A file that declares workloads for moat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields, title = "moat spec"))]
pub struct Document {
    /// The workloads, by name.
    pub workload: BTreeMap<Name, Workload>,
}

/// One workload. Exactly one of `image`, `rootfs` and `oci` says where its root comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Workload {
    /// `"host"`: this machine's own root, copy-on-write. A reference to a registry's image is not
    /// supported yet.
    pub image: Option<Image>,
    /// A directory that is the root, copy-on-write; relative to this file.
    pub rootfs: Option<At<HostPath>>,
    /// Not supported yet: an OCI image layout or archive; relative to this file.
    pub oci: Option<HostPath>,
    /// What comes before `command`; takes the place of the image's own entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Program and arguments; no shell takes them apart.
    pub command: Option<Vec<String>>,
    /// The directory in which it starts. Default: "/".
    pub working_dir: Option<GuestPath>,
    /// Whom it runs as: "1000", "1000:1000", "name" or "name:group". Default: 0.
    pub user: Option<User>,
    /// Its host name. Default: the workload's name.
    pub hostname: Option<Hostname>,
    /// How far its code is trusted. A spec may lower trust, never raise it. Default: "trusted" for
    /// "host" and rootfs, "untrusted" for what is pulled.
    pub trust: Option<Trust>,
    /// Labels, for rules and listings.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its environment; stands above `env_file`.
    pub env: Option<BTreeMap<String, String>>,
    /// Files of KEY=VALUE lines, relative to this file; a later one stands above an earlier one.
    pub env_file: Option<Vec<At<HostPath>>>,
    /// Not supported yet: ports of the host that lead into it, "8080:80" or
    /// "127.0.0.1:8080:80/udp".
    pub ports: Option<Vec<Port>>,
    /// Files and directories that it sees: "SOURCE:TARGET" or "SOURCE:TARGET:OPTIONS", options
    /// being ro or rw, rprivate or rslave, with commas between. A source without a slash is a
    /// volume that moat keeps by name.
    pub volumes: Option<Vec<At<WrittenVolume>>>,
    /// Memory filesystems: "/tmp" or "/tmp:64MiB". Default size: half of resources.memory.
    pub tmpfs: Option<Vec<At<Tmpfs>>>,
    /// How much /dev/shm holds, at least "4KiB". Default: "64MiB".
    pub shm_size: Option<Bytes>,
    /// Whether its root can't be written. Default: false.
    pub read_only: Option<bool>,
    /// Whether moat's reaper is PID 1 and the command its child. Default: true.
    pub init: Option<bool>,
    /// Whether it gets a terminal. Default: when moat itself is on one.
    pub tty: Option<bool>,
    /// When it is started again: "no", "on-failure", "on-failure:3", "always", "unless-stopped".
    /// Anything but the default "no" is not supported yet.
    pub restart: Option<Restart>,
    /// What asks it to end. Default: "SIGTERM".
    pub stop_signal: Option<Signal>,
    /// How long it has to end before SIGKILL. Default: "10s".
    #[cfg_attr(feature = "schema", schemars(with = "Option<DurationText>"))]
    pub stop_timeout: Option<Duration>,
    /// Not supported yet: workloads of this file that come first.
    pub depends_on: Option<BTreeMap<Name, Condition>>,
    /// Container or micro-VM.
    #[cfg_attr(feature = "schema", schemars(with = "Option<IsolationTable>"))]
    pub isolation: IsolationTable,
    /// How much it may use.
    #[cfg_attr(feature = "schema", schemars(with = "Option<ResourcesTable>"))]
    pub resources: ResourcesTable,
    /// How it is connected.
    #[cfg_attr(feature = "schema", schemars(with = "Option<NetworkTable>"))]
    pub network: NetworkTable,
    /// Not supported yet: how moat finds out whether it works.
    pub healthcheck: Option<Healthcheck>,
    /// Not supported yet: values from outside this file, as files below /run/secrets.
    pub secrets: Option<BTreeMap<String, Secret>>,
    /// What it may ask of its kernel.
    #[cfg_attr(feature = "schema", schemars(with = "Option<SecurityTable>"))]
    pub security: SecurityTable,
    /// Limits of setrlimit(2): a number, a size or a duration, as each counts; "unlimited"; or
    /// `{ soft = ..., hard = ... }`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Rlimits>"))]
    pub rlimits: Vec<Rlimit>,
    /// What only a micro-VM has; means nothing in a container.
    #[cfg_attr(feature = "schema", schemars(with = "Option<VmTable>"))]
    pub vm: VmTable,
    /// What only a container has; means nothing in a micro-VM.
    #[cfg_attr(feature = "schema", schemars(with = "Option<ContainerTable>"))]
    pub container: ContainerTable,
}

/// Container or micro-VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct IsolationTable {
    /// What is asked; "auto" leaves it to policy. Default: "auto".
    pub level: Option<Level>,
    /// The weakest that may be used; policy may raise it, nothing lowers it.
    pub min: Option<Isolation>,
    /// How "auto" picks among what is allowed. Default: policy's, else "security".
    pub objective: Option<Objective>,
}

/// How much it may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct ResourcesTable {
    /// Processors, 0.01 to 256. Default: 1.
    pub cpus: Option<Cpus>,
    /// Memory, at least "16MiB". Default: "512MiB".
    pub memory: Option<Bytes>,
    /// Processes and threads together. Default: 512.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_194_304)))]
    pub pids: Option<u32>,
}

/// How it is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct NetworkTable {
    /// "none": loopback only. "nat", "bridge:NAME" and "host" are not supported yet. Default:
    /// "none".
    pub mode: Option<Network>,
}

/// How moat finds out whether it works.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Healthcheck {
    /// Not supported yet: what is run inside; status 0 is healthy.
    pub command: Option<Vec<String>>,
    /// Not supported yet: the time between two checks.
    #[cfg_attr(feature = "schema", schemars(with = "Option<DurationText>"))]
    pub interval: Option<Duration>,
    /// Not supported yet: how long a check may take.
    #[cfg_attr(feature = "schema", schemars(with = "Option<DurationText>"))]
    pub timeout: Option<Duration>,
    /// Not supported yet: how many failures in a row make it unhealthy.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub retries: Option<u32>,
    /// Not supported yet: how long failures don't count at first.
    #[cfg_attr(feature = "schema", schemars(with = "Option<DurationText>"))]
    pub start_period: Option<Duration>,
}

/// Where a secret comes from: exactly one of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct Secret {
    /// Not supported yet: a file of the host.
    pub file: Option<HostPath>,
    /// Not supported yet: a variable of moat's own environment.
    pub env: Option<String>,
    /// Not supported yet: a command of the host, whose output it is.
    pub command: Option<Vec<String>>,
}

/// What it may ask of its kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct SecurityTable {
    /// Capabilities beyond the default set, such as "NET_ADMIN", or "ALL".
    pub cap_add: Option<Vec<CapabilitySet>>,
    /// Capabilities taken from the default set, or "ALL".
    pub cap_drop: Option<Vec<CapabilitySet>>,
    /// Whether a setuid file gains nothing. Default: true.
    pub no_new_privileges: Option<bool>,
    /// The filter of system calls: "default", or a file in the OCI's JSON format, relative to this
    /// file.
    pub seccomp: Option<At<WrittenSeccomp>>,
    /// What files it may use at most, whatever their modes say. Default: all that it sees.
    pub landlock: Option<LandlockTable>,
}

/// What files a workload may use at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct LandlockTable {
    /// It may read and execute what is at or below these, besides those of write.
    pub read: Option<Vec<GuestPath>>,
    /// It may write, make and remove only what is at or below these.
    pub write: Option<Vec<GuestPath>>,
}

/// What only a micro-VM has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct VmTable {
    /// Virtual processors. Default: resources.cpus, rounded up.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 32)))]
    pub vcpus: Option<u8>,
    /// A kernel bundle, as `moat kernel ls` names it. Default: "default".
    pub kernel: Option<KernelName>,
}

/// What only a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
pub struct ContainerTable {
    /// The host's processors that it runs on, such as "0-3,8". Default: all.
    pub cpuset: Option<CpuSet>,
    /// Swap space beside resources.memory. Default: "0B", none.
    pub swap: Option<Bytes>,
    /// Its share of a busy block device. The kernel's default is 100.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 10_000)))]
    pub io_weight: Option<u16>,
    /// How fast it may use the host's block devices: for each, by its path, at least one of
    /// read_bps, write_bps, read_iops, write_iops.
    #[cfg_attr(feature = "schema", schemars(with = "Option<BTreeMap<String, IoMax>>"))]
    pub io_max: Option<BTreeMap<PathBuf, IoMax>>,
    /// The AppArmor profile it runs under, which the host must have loaded.
    pub apparmor: Option<String>,
    /// The SELinux label it runs under.
    pub selinux: Option<String>,
}
