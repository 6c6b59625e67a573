//! No module gets into the kernel, and none out of it.

use nix::errno::Errno;

use crate::call::{
    Arg::{B, N, S},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "kernel_modules",
    "calls init_module, finit_module and delete_module with what is no module",
    attack,
);

fn attack(tries: &Tries, _: &[&str]) {
    let nothing = call(libc::SYS_init_module, [B(b"no module"), N(9), S(c"")]);
    tries.door("init_module", nothing, &[Errno::ENOEXEC]);
    let nothing = call(libc::SYS_finit_module, [N(0), S(c""), N(0)]);
    tries.door("finit_module", nothing, &[Errno::ENOEXEC, Errno::EINVAL, Errno::EBADF]);
    let gone = call(libc::SYS_delete_module, [S(c"moat_attack_no_module"), N(0)]);
    tries.door("delete_module", gone, &[Errno::ENOENT]);
}
