//! cgroup v2 (kernel Documentation/admin-guide/cgroup-v2.rst).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use moat_core::sandbox::Limits;

use super::{Error, file};

/// The period of a processor quota in microseconds, the kernel's default.
pub(super) const PERIOD: u64 = 100_000;

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// Makes `dir` in `parent` with its limits; gives it open.
pub(super) fn create(parent: &Path, dir: &Path, limits: &Limits) -> Result<OwnedFd, Error> {
    offer(parent)?;
    file::make(dir)?;
    file::write(&dir.join("memory.max"), &limits.memory.get().to_string())?;
    file::write_if_there(&dir.join("memory.swap.max"), "0")?;
    file::write(&dir.join("cpu.max"), &format!("{} {PERIOD}", quota(limits)))?;
    file::write(&dir.join("pids.max"), &limits.pids.to_string())?;
    let open = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(dir)
        .map_err(|source| Error::Directory { action: "open", path: dir.to_owned(), source })?;
    Ok(open.into())
}

/// Microseconds of processor in a period.
pub(super) fn quota(limits: &Limits) -> u64 {
    // Not below 1 ms, which is the least that the kernel takes.
    (u64::from(limits.cpus.milli()) * PERIOD / 1000).max(1000)
}

/// Makes the parent, and has it and its own parent offer the controllers to their children.
fn offer(parent: &Path) -> Result<(), Error> {
    let control = parent.join("cgroup.subtree_control");
    match file::read(&control) {
        Ok(text) if missing(&text).is_empty() => return Ok(()),
        Ok(_) => {}
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if let Some(above) = parent.parent() {
                enable(above)?;
            }
            file::make(parent)?;
        }
        Err(error) => return Err(error),
    }
    enable(parent)
}

fn enable(group: &Path) -> Result<(), Error> {
    let control = group.join("cgroup.subtree_control");
    let wanted = missing(&file::read(&control)?);
    let offered = file::read(&group.join("cgroup.controllers"))?;
    for controller in wanted {
        if !offered.split_whitespace().any(|word| word == controller) {
            return Err(Error::NoController { path: group.to_owned(), controller });
        }
        file::write(&control, &format!("+{controller}"))?;
    }
    Ok(())
}

fn missing(enabled: &str) -> Vec<&'static str> {
    let has = |controller: &&str| enabled.split_whitespace().any(|word| word == *controller);
    CONTROLLERS.iter().filter(|controller| !has(controller)).copied().collect()
}

/// Kills every process of a group at once where the kernel can (5.14), else one by one.
pub(super) fn kill(dir: &Path) -> Result<(), Error> {
    match file::write(&dir.join("cgroup.kill"), "1") {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            file::kill_all(dir)
        }
        written => written,
    }
}
