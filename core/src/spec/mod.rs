//! What the user declares: as written (`written`), and as meant ([`Resolved`]).

mod resolved;
mod value;

pub use resolved::{InertKey, IsolationRequest, NetworkMode, Resolved, Resources, Root, Security, VmOptions};
pub use value::{
    Bytes, Capability, Cpus, GuestPath, Hostname, Id, Isolation, Level, Name, Objective, Resource,
    Rlimit, Signal, Tmpfs, Trust, User, Volume, VolumeSource,
};
