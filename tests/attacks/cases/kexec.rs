//! No other kernel is loaded.

use nix::errno::Errno;

use crate::call::{
    Arg::{N, S},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case =
    Case::new("kexec", "calls kexec_load and kexec_file_load with impossible arguments", attack);

fn attack(tries: &Tries, _: &[&str]) {
    // More segments than there may be, and flags that do not exist: refused after the rights.
    let loaded = call(libc::SYS_kexec_load, [N(0), N(1000), N(0), N(0)]);
    tries.door("kexec_load", loaded, &[Errno::EINVAL]);
    let loaded = call(libc::SYS_kexec_file_load, [N(-1), N(-1), N(0), S(c""), N(0x4000)]);
    tries.door("kexec_file_load", loaded, &[Errno::EINVAL]);
}
