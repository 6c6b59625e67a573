//! moat's pure heart: the spec, the policy, the lifecycle, the backend traits and the guest wire.
//!
//! Nothing here does I/O, reads a clock or uses `unsafe`: what a decision depends on is passed in,
//! so that everything in this crate can be tested on any machine and gives the same answer twice.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod control;
pub mod diagnose;
pub mod fault_point;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod lifecycle;
pub mod policy;
pub mod sandbox;
pub mod seccomp;
pub mod spec;
pub mod wire;
pub mod workload;
