//! A device node on a volume, made by the host, can't be opened; and none can be made there.

use std::fs;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::cases::Case;
use crate::field::{Field, disk};
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    behind: |field| {
        let disk = prepare(field)?;
        field.moat_with("volumes = [\"./volume:/volume\"]", &[&disk])
    },
    open: |field| {
        let (disk, volume) = (prepare(field)?, field.space.path().join("volume"));
        field.naive_with(&[&disk], |naive| naive.volumes.push((volume, "/volume".to_owned())))
    },
    ..Case::new(
        "device_on_volume",
        "opens the host's disk and kernel log by nodes on a volume, and makes such nodes",
        attack,
    )
};

fn attack(tries: &Tries, arguments: &[&str]) {
    let disk = arguments.first().and_then(|disk| disk.parse().ok()).unwrap_or_default();
    for name in ["disk", "log"] {
        let opened = open(&format!("/volume/{name}"), OFlag::O_RDONLY);
        // A node without a driver is opened in vain, but only where nodes may be opened.
        tries.door(&format!("open the host's {name}"), opened.map(|_| "opened"), &[Errno::ENXIO]);
    }
    let made = mknod("/volume/new", SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), disk);
    tries.of("make a node there", made.map(|()| "made"));
}

/// Gives the number of a disk of the host's.
fn prepare(field: &Field<'_>) -> Result<String> {
    let disk = disk();
    let volume = field.space.path().join("volume");
    fs::create_dir(&volume)?;
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&volume.join("disk"), SFlag::S_IFBLK, mode, disk)?;
    mknod(&volume.join("log"), SFlag::S_IFCHR, mode, makedev(1, 11))?;
    Ok(disk.to_string())
}
