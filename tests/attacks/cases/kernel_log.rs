//! The kernel's log, with its addresses, is not read.

use nix::fcntl::OFlag;

use crate::call::{
    Arg::{N, Room},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "kernel_log",
    "reads the kernel's log by syslog(2), and opens /proc/kmsg and /dev/kmsg",
    attack,
);

/// `SYSLOG_ACTION_READ_ALL` of syslog(2).
const READ_ALL: i64 = 3;

fn attack(tries: &Tries, _: &[&str]) {
    let mut room = [0; 256];
    let bytes = call(libc::SYS_syslog, [N(READ_ALL), Room(&mut room), N(256)]);
    tries.of("syslog", bytes.map(|_| "read"));
    tries.opens("/proc/kmsg", OFlag::O_RDONLY | OFlag::O_NONBLOCK);
    tries.opens("/dev/kmsg", OFlag::O_RDONLY | OFlag::O_NONBLOCK);
}
