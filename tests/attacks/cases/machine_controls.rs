//! What is the machine's own is not turned from inside.

use nix::errno::Errno;

use crate::call::{
    Arg::{N, S},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "machine_controls",
    "asks for I/O ports, swap, process accounting, disk quotas, another root, and the terminal's hang-up",
    attack,
);

fn attack(tries: &Tries, _: &[&str]) {
    tries.apart("iopl", |tries| tries.of("iopl", call(libc::SYS_iopl, [N(3)])));
    tries
        .apart("ioperm", |tries| tries.of("ioperm", call(libc::SYS_ioperm, [N(0x80), N(1), N(1)])));
    // Of things that are not there, which is found out after the rights.
    let there = [Errno::ENOENT, Errno::EINVAL, Errno::ESRCH, Errno::ENODEV, Errno::ENOTBLK];
    let none = c"/no/such/thing";
    let asked: [(&str, nix::Result<i64>); 5] = [
        ("swapon", call(libc::SYS_swapon, [S(none), N(0)])),
        ("swapoff", call(libc::SYS_swapoff, [S(none)])),
        ("acct", call(libc::SYS_acct, [S(none)])),
        // Q_SYNC of quotactl(2) for a device of that name.
        ("quotactl", call(libc::SYS_quotactl, [N(0x8000_0100), S(none), N(0), N(0)])),
        ("pivot_root", call(libc::SYS_pivot_root, [S(none), S(none)])),
    ];
    for (what, result) in asked {
        tries.door(what, result, &there);
    }
}
