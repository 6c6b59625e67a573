//! PID 1, which is moat's own program, can't be taken over.

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "ptrace_of_pid1",
    "seizes PID 1 with ptrace, compares itself with it, and takes its descriptors with pidfd_getfd",
    attack,
);

/// linux/ptrace.h
const PTRACE_SEIZE: i64 = 0x4206;
/// linux/kcmp.h: whether two processes have the same memory.
const KCMP_VM: i64 = 1;

fn attack(tries: &Tries, _: &[&str]) {
    tries.apart("seize", |tries| {
        let seized = call(libc::SYS_ptrace, [N(PTRACE_SEIZE), N(1), N(0), N(0)]);
        tries.of("seize", seized.map(|_| "traced"));
    });
    let own = std::process::id();
    let compared = call(libc::SYS_kcmp, [N(1), N(own.into()), N(KCMP_VM), N(0), N(0)]);
    tries.of("kcmp", compared);
    let taken = call(libc::SYS_pidfd_open, [N(1), N(0)])
        .and_then(|pidfd| call(libc::SYS_pidfd_getfd, [N(pidfd), N(0), N(0)]));
    tries.of("take a descriptor", taken.map(|_| "taken"));
}
