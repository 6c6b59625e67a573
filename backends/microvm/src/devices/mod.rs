//! The machine's devices: what answers port and memory-mapped accesses.

pub mod bus;
pub mod i8042;
pub mod serial;
pub mod virtio;
