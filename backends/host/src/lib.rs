//! What both backends use of this machine: state, probes, cgroups, terminal.

#![deny(unsafe_code)]

pub mod block;
pub mod cgroup;
pub mod dirs;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod idmap;
pub mod kept;
pub mod label;
mod living;
mod lock;
pub mod log;
pub mod machine;
pub mod mapping;
pub mod mountinfo;
pub mod newidmap;
pub mod probe;
pub mod process;
pub mod procfs;
pub mod rootfs;
pub mod sandbox;
pub mod seccomp;
pub mod socket;
pub mod source;
pub mod state;
pub mod subid;
pub mod terminal;
pub mod volume;
