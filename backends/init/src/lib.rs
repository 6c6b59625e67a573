//! What turns a fresh process into the workload, in a container and in a guest alike.
//!
//! [`spawn`](sys::clone::spawn) makes the workload's first process in namespaces of its own;
//! [`first::run`] is all that it does: root, mounts, names, terminal, then the workload's command,
//! reaping, and the report of its end over [`control`]. [`cgroup`] holds the limits around it.

#![deny(unsafe_code)]

pub mod cgroup;
mod command;
pub mod control;
mod device;
pub mod enter;
mod error;
pub mod first;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod inside;
mod kernel_fs;
mod label;
pub mod landlock;
mod launch;
mod layer;
pub mod limits;
pub mod mapped;
mod names;
mod process;
mod reaper;
pub mod rootfs;
pub mod seccomp;
pub mod session;
pub mod sys;
mod terminal;
mod user;
pub mod watch;
