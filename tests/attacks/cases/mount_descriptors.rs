//! Nor by the mount calls that work on descriptors.

use nix::errno::Errno;

use crate::call::{
    Arg::{B, N, S},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "mount_descriptors",
    "mounts by fsopen, fsconfig, fsmount, fspick, open_tree, open_tree_attr, move_mount, mount_setattr",
    attack,
);

/// linux/mount.h: `FSCONFIG_CMD_CREATE`, `OPEN_TREE_CLONE`, `MOVE_MOUNT_F_EMPTY_PATH`.
const CREATE: i64 = 6;
const CLONE: i64 = 1;
const EMPTY_PATH: i64 = 4;
/// Of Linux 6.15, asm/unistd_64.h.
const OPEN_TREE_ATTR: libc::c_long = 467;

fn attack(tries: &Tries, _: &[&str]) {
    let here = N(libc::AT_FDCWD.into());
    let made = call(libc::SYS_fsopen, [S(c"tmpfs"), N(0)]);
    tries.of("fsopen", made.map(|_| "opened"));
    let context = made.unwrap_or(-1);
    let no = Errno::EBADF;
    let created = call(libc::SYS_fsconfig, [N(context), N(CREATE), N(0), N(0), N(0)]);
    tries.of("fsconfig", created);
    let mount = call(libc::SYS_fsmount, [N(context), N(0), N(0)]);
    tries.of("fsmount", mount.map(|_| "made"));
    let from = N(mount.unwrap_or(-1));
    let moved = [from, S(c""), here, S(c"/root"), N(EMPTY_PATH)];
    tries.of("move_mount", call(libc::SYS_move_mount, moved));
    let here = || N(libc::AT_FDCWD.into());
    let tree = call(libc::SYS_open_tree, [here(), S(c"/etc"), N(CLONE)]);
    tries.of("open_tree", tree.map(|_| "copied"));
    let attributes = [0; 32];
    let tree = [here(), S(c"/etc"), N(CLONE), B(&attributes), N(32)];
    tries.of("open_tree_attr", call(OPEN_TREE_ATTR, tree).map(|_| "copied"));
    let set = [here(), S(c"/"), N(0), B(&attributes), N(32)];
    tries.of("mount_setattr", call(libc::SYS_mount_setattr, set));
    // A tmpfs of another user namespace's can't be picked, but what was just made can.
    let picked = call(libc::SYS_fspick, [here(), S(c"/root"), N(0)]);
    tries.door("fspick", picked.map(|_| "picked"), &[no]);
}
