//! PID 1 in the micro-VM.
fn main() {}
