//! A workload can't mount.

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case =
    Case::new("mounts", "mounts a tmpfs, binds, moves, makes shared, unmounts", attack);

fn attack(tries: &Tries, _: &[&str]) {
    let none = None::<&str>;
    let tell = |what, result: nix::Result<()>| tries.of(what, result.map(|()| "done"));
    tell("tmpfs", mount(Some("none"), "/root", Some("tmpfs"), MsFlags::empty(), none));
    tell("bind", mount(Some("/etc"), "/var/tmp", none, MsFlags::MS_BIND, none));
    tell("make shared", mount(none, "/proc", none, MsFlags::MS_SHARED, none));
    tell("unmount", umount2("/proc", MntFlags::MNT_DETACH));
}
