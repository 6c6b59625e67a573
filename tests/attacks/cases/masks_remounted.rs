//! What is read-only in /proc and /sys stays so.

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};

use crate::call::{
    Arg::{B, N, S},
    call,
};
use crate::cases::Case;
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    open: |field| field.naive(|naive| naive.masks = true),
    ..Case::new(
        "masks_remounted",
        "makes /proc/sys writable by a remount, by mount_setattr(2), and by a mount of it elsewhere",
        attack,
    )
};

/// linux/mount.h: `AT_RECURSIVE`, `MOUNT_ATTR_RDONLY`.
const RECURSIVE: i64 = 0x8000;
const READ_ONLY: u64 = 1;

fn attack(tries: &Tries, _: &[&str]) {
    let none = None::<&str>;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let remounted = mount(none, "/proc/sys", none, flags, none);
    tries.of("remount /proc/sys", remounted.map(|()| "done"));
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attributes: Vec<u8> =
        [0, READ_ONLY, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let arguments =
        [N(libc::AT_FDCWD.into()), S(c"/proc/sys"), N(RECURSIVE), B(&attributes), N(32)];
    tries.of("mount_setattr of /proc/sys", call(libc::SYS_mount_setattr, arguments));
    // The proc that lies below, and not the read-only mount over its sys.
    let bound = mount(Some("/proc"), "/var/tmp", none, MsFlags::MS_BIND, none);
    tries.of("bind /proc elsewhere", bound.map(|()| "done"));
    let opened = open("/proc/sys/kernel/core_pattern", OFlag::O_WRONLY)
        .or_else(|_| open("/var/tmp/sys/kernel/core_pattern", OFlag::O_WRONLY));
    tries.of("core_pattern after that", opened.map(|_| "opened for writing"));
}
