//! The filter holds for x32's system calls too.

use crate::call::{
    Arg::{B, N, S},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2014-0038"),
    ..Case::new(
        "x32_calls",
        "makes a user namespace, adds a key and mounts by the numbers of x32",
        attack,
    )
};

/// asm/unistd.h: `__X32_SYSCALL_BIT`.
const X32: libc::c_long = 0x4000_0000;

fn attack(tries: &Tries, _: &[&str]) {
    tries.apart("getpid", |tries| tries.of("getpid", call(X32 | libc::SYS_getpid, [])));
    tries.apart("unshare", |tries| {
        let flags = i64::from(libc::CLONE_NEWUSER);
        tries.of("unshare", call(X32 | libc::SYS_unshare, [N(flags)]));
    });
    tries.apart("add_key", |tries| {
        let key = [S(c"user"), S(c"moat-attack"), B(b"x"), N(1), N(-2)];
        tries.of("add_key", call(X32 | libc::SYS_add_key, key));
    });
}
