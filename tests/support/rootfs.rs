//! A small root filesystem, made of Debian's static busybox, so that a case does not depend on
//! what the host has installed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// Fills `dir` with busybox, its applets, and the users root, app (1000, home /home/app, also in
/// group 2000 `extra`) and nobody.
///
/// # Errors
/// When busybox-static is not installed, or `dir` can't be written.
pub fn busybox(dir: &Path) -> Result<()> {
    for sub in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "home/app", "var/tmp"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    let target = dir.join("bin/busybox");
    fs::copy(BUSYBOX, &target)
        .context("busybox-static is not installed: run `cargo xtask setup`")?;
    let list = Command::new(BUSYBOX).arg("--list").output()?;
    ensure!(list.status.success(), "busybox --list failed");
    for applet in String::from_utf8(list.stdout)?.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", dir.join("bin").join(applet))?;
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    fs::write(
        dir.join("etc/group"),
        "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n",
    )?;
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    // tempfile makes directories private; a root is for all its users.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::chown(dir.join("home/app"), Some(1000), Some(1000))
        .context("chown home/app")?;
    Ok(())
}
