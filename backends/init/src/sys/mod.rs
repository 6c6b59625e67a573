//! System calls that nix does not wrap, each with a safe face. The only unsafe code of this crate.

pub mod clone;
pub mod descriptor;
pub mod mount;
pub(crate) mod network;
pub(crate) mod privilege;
pub mod process;
pub(crate) mod title;
pub(crate) mod trampoline;
pub mod tty;
