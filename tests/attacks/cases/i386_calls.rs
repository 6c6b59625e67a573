//! The filter holds for i386's system calls too.

use crate::call::call_i386;
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    open: |field| field.naive(|naive| naive.pivots = true),
    ..Case::new(
        "i386_calls",
        "makes a user namespace, reads a keyring and opens a userfaultfd by `int 0x80`",
        attack,
    )
};

/// asm/unistd_32.h
const UNSHARE: u32 = 310;
const KEYCTL: u32 = 288;
const USERFAULTFD: u32 = 374;

fn attack(tries: &Tries, _: &[&str]) {
    let calls = [
        ("unshare", UNSHARE, [libc::CLONE_NEWUSER.cast_unsigned(), 0, 0]),
        // KEYCTL_GET_KEYRING_ID of the process's own, made where there is none.
        ("keyctl", KEYCTL, [0, (-2_i32).cast_unsigned(), 1]),
        ("userfaultfd", USERFAULTFD, [0, 0, 0]),
    ];
    for (name, number, arguments) in calls {
        tries.apart(name, |tries| tries.of(name, call_i386(number, arguments).map(|_| "done")));
    }
}
