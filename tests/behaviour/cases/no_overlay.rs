//! A kernel without overlay: a container is refused with that reason, and not begun.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use moat_tests::skip;

use crate::wall::Wall;

/// What the kernel calls to load a module; without it a module that is out stays out.
const LOADER: &str = "/proc/sys/kernel/modprobe";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let Some(modules) = env::var_os("MOAT_BED_MODULES") else {
        skip!("a kernel's module is taken out only in the bed, whose kernel is the tests' own");
    };
    let module = Path::new(&modules).join("kernel/fs/overlayfs/overlay.ko");
    ensure!(module.exists(), "{} is not there", module.display());
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let overlay = modules.lines().find(|line| line.starts_with("overlay "));
    let overlay = overlay.context("overlay is no module of this kernel")?;
    ensure!(overlay.split(' ').nth(2) == Some("0"), "overlay is in use: {overlay}");
    let space = wall.workspace()?;
    space.spec("")?;
    // With a memory of its own of what this machine can do.
    let watched = Watched::new(&space)?;
    let _back = Absent::new(module)?;
    let seen = watched.watch(space.moat(&["true"])?).run()?;
    seen.refused(5, "unavailable")?.stderr_has("overlay")?;
    watched.nothing(&space, &[])?;
    Ok(Vec::new())
}

/// overlay while it is out of the kernel; it comes back when this is dropped.
struct Absent {
    loader: String,
    module: PathBuf,
}

impl Absent {
    fn new(module: PathBuf) -> Result<Self> {
        let loader = fs::read_to_string(LOADER)?;
        busybox(["rmmod".as_ref(), "overlay".as_ref()])?;
        let absent = Self { loader, module };
        fs::write(LOADER, "/bin/false")?;
        Ok(absent)
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        // The next case that needs overlay would say so.
        let _ = fs::write(LOADER, self.loader.trim_end());
        let _ = busybox(["insmod".as_ref(), self.module.as_os_str()]);
    }
}

fn busybox(args: [&OsStr; 2]) -> Result<()> {
    let status = Command::new("busybox").args(args).status().context("busybox can't be run")?;
    ensure!(status.success(), "busybox {args:?} failed");
    Ok(())
}
