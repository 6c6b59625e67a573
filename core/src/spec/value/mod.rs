//! The typed values of a spec. Each is made only from input that was checked; where serde makes
//! one from what came over a wire, it checks too.

mod capability;
mod cpuset;
mod duration;
mod error;
mod image;
mod io;
mod isolation;
mod mount;
mod name;
mod path;
mod rlimit;
mod seccomp;
mod service;
mod signal;
mod size;
mod user;

pub use capability::{Capability, CapabilitySet, DEFAULT_CAPABILITIES};
pub use cpuset::CpuSet;
pub use duration::{LONGEST_DURATION, format_duration, parse_duration};
pub(crate) use error::Quoted;
pub use error::ValueError;
pub use image::{Image, ImageReference};
pub use io::IoMax;
pub use isolation::{Isolation, Level, Objective, Trust};
pub(crate) use mount::mount_target;
pub use mount::{Propagation, Tmpfs, Volume, VolumeSource, WrittenSource, WrittenVolume};
pub use name::{Hostname, KernelName, Name};
pub use path::{GuestPath, HostPath};
pub use rlimit::{Resource, Rlimit, Unit};
pub use seccomp::WrittenSeccomp;
pub use service::{Condition, Network, Port, Protocol, Restart};
pub use signal::Signal;
pub use size::{Bytes, Cpus};
pub use user::{Id, User};
