//! Device nodes can't be made, and so not be opened.

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::{Field, disk};
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    behind,
    open: |field| field.naive_with(&[&disk().to_string()], |_| {}),
    ..Case::new(
        "devices_made",
        "makes nodes of the host's disk, memory and kernel log, and opens them; with CAP_MKNOD added, too",
        attack,
    )
};

fn attack(tries: &Tries, arguments: &[&str]) {
    let disk = arguments.first().and_then(|disk| disk.parse().ok()).unwrap_or_default();
    let nodes = [
        ("disk", SFlag::S_IFBLK, disk),
        ("memory", SFlag::S_IFCHR, makedev(1, 1)),
        ("kernel log", SFlag::S_IFCHR, makedev(1, 11)),
    ];
    for (name, kind, number) in nodes {
        let path = format!("/root/{name}");
        let made = mknod(path.as_str(), kind, Mode::from_bits_truncate(0o600), number);
        tries.of(&format!("make the {name}"), made.map(|()| "made"));
        let opened = open(&path, OFlag::O_RDONLY).map(|_| "opened");
        tries.door(&format!("open the {name}"), opened, &[Errno::ENXIO]);
    }
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let disk = disk().to_string();
    let mut found = field.moat_with("", &[&disk])?;
    let able = "[workload.case.security]\ncap_add = [\"MKNOD\"]";
    found.extend(field.moat_with(able, &[&disk])?);
    Ok(found)
}
