//! What both backends use of this machine: state, probes, cgroups, terminal.

#![deny(unsafe_code)]

pub mod dirs;
pub mod machine;
pub mod probe;
pub mod process;
pub mod state;
