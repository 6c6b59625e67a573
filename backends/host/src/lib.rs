//! What both backends use of this machine: state, probes, cgroups, terminal.

#![deny(unsafe_code)]

pub mod cgroup;
pub mod dirs;
pub mod idmap;
pub mod machine;
pub(crate) mod mountinfo;
pub mod probe;
pub mod process;
pub mod state;
pub mod terminal;
pub mod rootfs;
pub mod sandbox;
