//! What the user declares: as written, and as meant ([`Resolved`]).

mod default;
mod nearest;
mod resolved;
mod value;

pub use default::{DEFAULT_PATH, DEFAULT_RESOURCES, DEFAULT_STOP_SIGNAL, DEFAULT_STOP_TIMEOUT};
pub use resolved::{
    InertKey, IsolationRequest, NetworkMode, Resolved, Resources, Root, Security, VmOptions,
};
pub use value::{
    Bytes, Capability, CapabilitySet, Condition, Cpus, DEFAULT_CAPABILITIES, GuestPath, HostPath,
    Hostname, Id, Image, ImageReference, Isolation, LONGEST_DURATION, Level, Name, Network,
    Objective, Port, Protocol, Resource, Restart, Rlimit, Signal, Tmpfs, Trust, Unit, User,
    ValueError, Volume, VolumeSource, WrittenSource, WrittenVolume, format_duration,
    parse_duration,
};
