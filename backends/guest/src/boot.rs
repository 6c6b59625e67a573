//! From the kernel's initramfs to a guest with its filesystems, modules and share.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moat_core::cgroup::Hierarchy;
use moat_core::wire::{SHARE, SHARE_TAG};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};

use crate::modules::{self, ModuleError};
use crate::session::Surroundings;

/// Where the new root is put together, in the initramfs.
const NEW_ROOT: &str = "/new-root";

/// Where the cgroup v2 hierarchy is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Where the workload's root is built.
const STAGING: &str = "/stage";

/// Why the guest could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A directory can't be made.
    #[error("can't make directory {}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A filesystem can't be mounted.
    #[error("can't mount {what} at {target}")]
    Mount {
        /// The filesystem.
        what: &'static str,
        /// Where.
        target: &'static str,
        /// The kernel's reason.
        source: Errno,
    },
    /// The root can't be changed.
    #[error("can't change the root to {target}")]
    Root {
        /// The new root.
        target: &'static str,
        /// The kernel's reason.
        source: Errno,
    },
    /// The limit on open files can't be set.
    #[error("can't set the limit on open files")]
    Limits(#[source] Errno),
    /// A kernel module can't be loaded.
    #[error("the kernel's modules can't be loaded")]
    Modules(#[from] ModuleError),
}

/// Loads the initramfs' modules and moves to a root of its own: pivot_root(2), with which each
/// workload gets its root, refuses to leave the kernel's first root filesystem.
pub(crate) fn leave_initramfs() -> Result<(), BootError> {
    modules::load_all()?;
    make_dir(NEW_ROOT)?;
    // Holds a handful of empty directories; a runaway can't fill the guest's memory through it.
    mount_at("tmpfs", NEW_ROOT, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("size=64k,mode=755"))?;
    let root_error = |source| BootError::Root { target: NEW_ROOT, source };
    nix::unistd::chdir(NEW_ROOT).map_err(root_error)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(root_error)?;
    nix::unistd::chroot(".").map_err(root_error)?;
    nix::unistd::chdir("/").map_err(root_error)
}

/// What the session works with in the guest.
pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        staging: STAGING.into(),
        cgroups: Some(Hierarchy::unified(CGROUPS)),
        own_machine: true,
    }
}

/// The limit on open files that systemd gives a host's processes (systemd.exec(5), `LimitNOFILE=`),
/// and with them a container's: soft, and as far as a workload may raise it.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Mounts the kernel's filesystems and the share, and sets what a workload inherits.
pub(crate) fn bring_up() -> Result<(), BootError> {
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.0, OPEN_FILES.1).map_err(BootError::Limits)?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new("proc", "/proc", safe | MsFlags::MS_NODEV, None)?;
    mount_new("sysfs", "/sys", safe | MsFlags::MS_NODEV, None)?;
    mount_new("devtmpfs", "/dev", safe, Some("mode=755"))?;
    mount_at("cgroup2", CGROUPS, safe | MsFlags::MS_NODEV, None)?;
    make_dir(STAGING)?;
    make_dir(SHARE)?;
    mount(Some(SHARE_TAG), SHARE, Some("virtiofs"), MsFlags::MS_NODEV, None::<&str>)
        .map_err(|source| BootError::Mount { what: "virtiofs", target: SHARE, source })
}

fn mount_new(
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: Option<&'static str>,
) -> Result<(), BootError> {
    make_dir(target)?;
    mount_at(kind, target, flags, data)
}

fn mount_at(
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: Option<&'static str>,
) -> Result<(), BootError> {
    mount(Some(kind), target, Some(kind), flags, data).map_err(|source| BootError::Mount {
        what: kind,
        target,
        source,
    })
}

fn make_dir(path: &str) -> Result<(), BootError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(BootError::Directory { path: Path::new(path).to_owned(), source })
        }
        _ => Ok(()),
    }
}
