//! /dev: the devices that every workload has, and nothing of the machine's own.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use moat_core::sandbox::StartError;
use moat_core::spec::Bytes;
use nix::fcntl::OFlag;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat};
use nix::unistd::symlinkat;

use crate::error::Step;
use crate::inside;
use crate::rootfs::{Builder, UserNamespace};
use crate::sys::mount::{self, Attributes, Depth};

/// Character devices for every user (kernel Documentation/admin-guide/devices.txt).
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Names that POSIX and the OCI runtime specification ("Default Devices", "Dev symbolic links")
/// have programs expect.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Room for names only, in bytes.
const DEV_SIZE: u64 = 64 << 10;

/// Mounts and fills /dev, but for the filesystems that belong to other namespaces: devpts, mqueue.
///
/// # Errors
/// The step that failed.
pub(crate) fn populate(
    builder: &Builder<'_>,
    root: BorrowedFd<'_>,
    console: bool,
    shm_size: Bytes,
) -> Result<(), StartError> {
    let owner = (builder.owner.uid, builder.owner.gid);
    let step = || "mount tmpfs at /dev";
    let place = inside::find_straight(root, "/dev").step(step)?;
    let attributes = Attributes::NO_SUID.and(Attributes::NO_EXEC);
    let dev = mount::tmpfs(DEV_SIZE, 0o755, owner, attributes).step(step)?;
    mount::attach(dev.as_fd(), place.as_fd()).step(step)?;
    let dev = dev.as_fd();

    for (name, major, minor) in NODES {
        let step = || format!("make /dev/{name}");
        match builder.user_namespace {
            UserNamespace::Initial => {
                mknodat(dev, name, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))
                    .and_then(|()| inside::give(dev, name, builder.owner))
                    .and_then(|()| fchmodat(dev, name, PUBLIC, FchmodatFlags::FollowSymlink))
                    .step(step)?;
            }
            UserNamespace::Own => {
                file(dev, name).step(step)?;
                let node = mount::clone_path(&Path::new("/dev").join(name), Depth::One);
                let place = mount::place(dev, name).step(step)?;
                mount::attach(node.step(step)?.as_fd(), place.as_fd()).step(step)?;
            }
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)
            .and_then(|()| inside::give(dev, name, builder.owner))
            .step(|| format!("make /dev/{name}"))?;
    }
    for name in ["pts", "mqueue", "shm"] {
        inside::new_directory(dev, name, 0o755, builder.owner)
            .step(|| format!("make /dev/{name}"))?;
    }
    if console {
        file(dev, "console").step(|| "make /dev/console")?;
    }
    let step = || "mount tmpfs at /dev/shm";
    let attributes = attributes.and(Attributes::NO_DEV);
    let shm = mount::tmpfs(shm_size.get(), 0o1777, owner, attributes).step(step)?;
    let place = mount::place(dev, "shm").step(step)?;
    mount::attach(shm.as_fd(), place.as_fd()).step(step)
}

/// Read and written by everyone.
const PUBLIC: Mode = Mode::from_bits_truncate(0o666);

fn file(dev: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    nix::fcntl::openat(dev, name, flags, Mode::from_bits_truncate(0o600)).map(drop)
}
