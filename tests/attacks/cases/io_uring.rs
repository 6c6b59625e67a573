//! No work for the kernel past the filter.

use nix::errno::Errno;

use crate::call::{
    Arg::{N, Room},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2022-29582"),
    ..Case::new("io_uring", "calls io_uring_setup, io_uring_enter and io_uring_register", attack)
};

fn attack(tries: &Tries, _: &[&str]) {
    let mut parameters = [0; 120];
    let ring = call(libc::SYS_io_uring_setup, [N(1), Room(&mut parameters)]);
    tries.of("io_uring_setup", ring.map(|_| "made"));
    // Of a descriptor that is none.
    let entered = call(libc::SYS_io_uring_enter, [N(-1), N(0), N(0), N(0), N(0), N(0)]);
    tries.door("io_uring_enter", entered, &[Errno::EBADF]);
    let registered = call(libc::SYS_io_uring_register, [N(-1), N(0), N(0), N(0)]);
    tries.door("io_uring_register", registered, &[Errno::EBADF, Errno::EINVAL]);
}
