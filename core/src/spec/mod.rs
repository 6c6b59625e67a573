//! What the user declares: [as written](written), and as meant ([`Resolved`]).
//!
//! `text -> parse -> Spec -> resolve -> Resolved`. Both steps give every [`Problem`] at once, each
//! with its file, line, column and key. Neither does I/O: what depends on this machine is passed
//! in as a [`Context`].

mod default;
mod env_file;
mod nearest;
mod parse;
mod problem;
mod resolve;
mod resolved;
#[cfg(feature = "schema")]
mod schema;
mod value;
pub mod written;

pub use default::{
    ARGUMENT_LIMIT, ARGUMENTS_LIMIT, CPUS, DEFAULT_PATH, DEFAULT_RESOURCES, DEFAULT_SHM_SIZE,
    DEFAULT_STOP_SIGNAL, DEFAULT_STOP_TIMEOUT, FILE_LIMIT, IO_BPS, IO_WEIGHT, IOPS, MEMORY, PIDS,
    SHM_SIZE, SWAP, VCPUS,
};
pub use parse::{known_keys, parse};
pub use problem::{Place, Problem, Problems};
pub use resolve::{Context, Spec};
pub use resolved::{
    ContainerOptions, InertKey, IsolationRequest, Landlock, NetworkMode, Resolved, Resources, Root,
    Seccomp, Security, VmOptions,
};
#[cfg(feature = "schema")]
pub use schema::schema;
pub use value::{
    Bytes, Capability, CapabilitySet, Condition, CpuSet, Cpus, DEFAULT_CAPABILITIES, GuestPath,
    HostPath, Hostname, Id, Image, ImageReference, IoMax, Isolation, KernelName, LONGEST_DURATION,
    Level, Name, Network, Objective, Port, Propagation, Protocol, Resource, Restart, Rlimit,
    Signal, Tmpfs, Trust, Unit, User, ValueError, Volume, VolumeSource, WrittenSeccomp,
    WrittenSource, WrittenVolume, format_duration, parse_duration,
};
