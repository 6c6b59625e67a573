//! The micro-VM wall: moat's own VMM on KVM.

pub mod acpi;
pub mod backend;
pub mod boot;
pub mod devices;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod hostile;
pub mod hv;
pub mod jail;
pub mod kernel;
pub mod machine;
pub mod memory;
pub mod mptable;
pub mod probe;
