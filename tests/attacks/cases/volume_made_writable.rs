//! A read-only volume stays so, with what is mounted below it, and by whatever path.

use std::fs;

use anyhow::Result;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};

use crate::call::{
    Arg::{B, N, S},
    call,
};
use crate::cases::Case;
use crate::field::Field;
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    behind: |field| {
        prepare(field)?;
        field.moat("volumes = [\"./volume:/volume:ro\"]")
    },
    open: |field| {
        let volume = prepare(field)?;
        field.naive(|naive| naive.volumes.push((volume, "/volume".to_owned())))
    },
    ..Case::new(
        "volume_made_writable",
        "remounts a read-only volume, by mount(2) and mount_setattr(2), and writes to it",
        attack,
    )
};

/// `MOUNT_ATTR_RDONLY` of linux/mount.h.
const READ_ONLY: u64 = 1;

fn attack(tries: &Tries, _: &[&str]) {
    let none = None::<&str>;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    tries.of("remount", mount(none, "/volume", none, flags, none).map(|()| "done"));
    let attributes = [0, READ_ONLY, 0, 0].map(u64::to_ne_bytes).concat();
    let arguments = [N(libc::AT_FDCWD.into()), S(c"/volume"), N(0), B(&attributes), N(32)];
    tries.of("mount_setattr", call(libc::SYS_mount_setattr, arguments));
    tries.of("write", open("/volume/file", OFlag::O_WRONLY).map(|_| "opened for writing"));
    let path = "/proc/self/root/volume/file";
    tries.of("write by /proc", open(path, OFlag::O_WRONLY).map(|_| "opened for writing"));
    tries.of("make", open("/volume/new", OFlag::O_WRONLY | OFlag::O_CREAT).map(|_| "made"));
}

fn prepare(field: &Field<'_>) -> Result<std::path::PathBuf> {
    let volume = field.space.path().join("volume");
    fs::create_dir(&volume)?;
    fs::write(volume.join("file"), "the host's")?;
    Ok(volume)
}
