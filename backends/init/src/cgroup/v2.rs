//! What cgroup v2 needs beside its files (kernel Documentation/admin-guide/cgroup-v2.rst).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use moat_core::cgroup::{Controller, Version};

use super::{Error, above, file, process};

/// A group's directory, open.
pub(super) fn open(dir: &Path) -> Result<OwnedFd, Error> {
    let open = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(dir)
        .map_err(|source| Error::Directory { action: "open", path: dir.to_owned(), source })?;
    Ok(open.into())
}

/// Makes the parent, and has it, and where need be its own parent, offer the controllers to their
/// children.
pub(super) fn offer(parent: &Path, controllers: &[Controller]) -> Result<(), Error> {
    let has_all = match file::read(&parent.join("cgroup.subtree_control")) {
        Ok(text) if missing(&text, controllers).next().is_none() => return Ok(()),
        Ok(_) => {
            let offered = file::read(&parent.join("cgroup.controllers"))?;
            missing(&offered, controllers).next().is_none()
        }
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error),
    };
    if !has_all {
        enable(above(parent)?, controllers)?;
        file::make(parent)?;
    }
    enable(parent, controllers)
}

fn enable(group: &Path, controllers: &[Controller]) -> Result<(), Error> {
    let control = group.join("cgroup.subtree_control");
    let enabled = file::read(&control)?;
    let offered = file::read(&group.join("cgroup.controllers"))?;
    for controller in missing(&enabled, controllers) {
        if !controller.is_listed(&offered) {
            return Err(Error::NoController { path: group.to_owned(), controller });
        }
        file::write(&control, &format!("+{}", controller.name(Version::V2)))?;
    }
    Ok(())
}

fn missing<'a>(
    enabled: &'a str,
    controllers: &'a [Controller],
) -> impl Iterator<Item = Controller> + 'a {
    controllers.iter().copied().filter(move |controller| !controller.is_listed(enabled))
}

/// Kills every process of a group at once where the kernel can (5.14), else one by one.
pub(super) fn kill(dir: &Path) -> Result<(), Error> {
    match file::write(&dir.join("cgroup.kill"), "1") {
        Err(error) if error.is_not_found() => process::kill_all(dir),
        written => written,
    }
}
