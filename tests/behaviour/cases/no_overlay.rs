//! A kernel without overlay: a container is refused with that reason, and not begun.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use moat_tests::skip;

use crate::wall::Wall;

/// What the kernel calls to load a module; without it a module that is out stays out.
const LOADER: &str = "/proc/sys/kernel/modprobe";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let Some(overlay) = modules.lines().find(|line| line.starts_with("overlay ")) else {
        skip!("overlay is no module of this kernel, and can't be taken out");
    };
    ensure!(overlay.split(' ').nth(2) == Some("0"), "overlay is in use: {overlay}");
    let space = wall.workspace()?;
    space.spec("")?;
    // With a memory of its own of what this machine can do.
    let watched = Watched::new(&space)?;
    let _back = Absent::new()?;
    let seen = watched.watch(space.moat(&["true"])?).run()?;
    seen.refused(5, "unavailable")?.stderr_has("overlay")?;
    watched.nothing(&space, &[])?;
    Ok(Vec::new())
}

/// overlay while it is out of the kernel; it comes back when this is dropped.
struct Absent {
    loader: String,
}

impl Absent {
    fn new() -> Result<Self> {
        let loader = fs::read_to_string(LOADER)?;
        let status = Command::new("rmmod").arg("overlay").status().context("rmmod (kmod)")?;
        ensure!(status.success(), "overlay can't be taken out");
        let absent = Self { loader };
        fs::write(LOADER, "/bin/false")?;
        Ok(absent)
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        // The next case that needs overlay would say so.
        let _ = fs::write(LOADER, self.loader.trim_end());
        let _ = Command::new("modprobe").arg("overlay").status();
    }
}
