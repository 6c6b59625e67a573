//! How the container's ids stand for the host's, and mounts whose owners are mapped by it.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use moat_core::fault_point::FaultPoint;
use moat_core::spec::Signal;
use moat_host::idmap::{self, Map, Range};
use moat_init::inside::Owner;
use moat_init::sys::clone::{self, Child, Namespaces};
use moat_init::sys::mount::{self, Depth};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal::SIGKILL;
use nix::sys::stat::{major, minor};
use nix::unistd::{Gid, Uid, getpid, getppid, pause};
use serde::{Deserialize, Serialize};

/// How ids are mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Mapping {
    /// To a range of the host that nobody else has; root and volumes are seen through the map, so
    /// that files keep their owners.
    Mapped {
        /// The range.
        map: Map,
    },
    /// Each to itself, since a filesystem can't be seen through a map.
    Identity {
        /// What can't.
        path: PathBuf,
    },
    /// 0 to the plain user that started moat; there is no other.
    Single {
        /// The user.
        map: Map,
    },
}

/// Filesystems that have been mappable since before the oldest kernel that moat supports. The
/// others are tried.
const KNOWN: [&str; 2] = ["ext4", "xfs"];

impl Mapping {
    /// Chooses one for these sources of a root and volumes. Each that may or may not be mappable
    /// is tried, which touches nothing.
    ///
    /// # Errors
    /// When it could not be tried.
    pub(crate) fn choose<'p>(
        sources: impl Iterator<Item = (&'p Path, Depth)>,
    ) -> nix::Result<Self> {
        if !Uid::effective().is_root() {
            let users = Range::single(Uid::effective().as_raw());
            let groups = Range::single(Gid::effective().as_raw());
            return Ok(Self::Single { map: Map { users, groups } });
        }
        let map = idmap::choose();
        let mut trial = None;
        for (source, depth) in sources {
            if is_known(source, depth) {
                continue;
            }
            if trial.is_none() {
                trial = Some(Trial::new(&map)?);
            }
            if !trial.as_ref().is_some_and(|trial| trial.maps(source, depth)) {
                return Ok(Self::Identity { path: source.to_owned() });
            }
        }
        Ok(Self::Mapped { map })
    }

    /// The ids themselves.
    pub(crate) fn map(&self) -> Map {
        match self {
            Self::Mapped { map } | Self::Single { map } => *map,
            Self::Identity { .. } => Map::IDENTITY,
        }
    }

    /// The container's user 0, as the host sees it.
    pub(crate) fn owner(&self) -> Owner {
        let map = self.map();
        Owner { uid: map.users.outside, gid: map.groups.outside }
    }
}

/// Whether it can be mapped for sure, by what is mounted (proc_pid_mountinfo(5)); statfs(2) can't
/// tell, since 9p says there what its server's filesystem is.
fn is_known(source: &Path, depth: Depth) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let Ok(device) = fs::metadata(source).map(|found| found.dev()) else { return false };
    let device = format!("{}:{}", major(device), minor(device));
    let known = mounts.lines().any(|line| {
        let kind = line.split_once(" - ").and_then(|(_, back)| back.split(' ').next());
        line.split(' ').nth(2) == Some(&device) && kind.is_some_and(|kind| KNOWN.contains(&kind))
    });
    known && (depth == Depth::One || !has_mounts_below(source, &mounts))
}

/// Whether anything may be mounted below: the fifth field. Characters that are written otherwise
/// there do not match, so that such a path counts as one that has.
fn has_mounts_below(path: &Path, mounts: &str) -> bool {
    let Some(path) = path.to_str().filter(|path| !path.contains([' ', '\t', '\n', '\\'])) else {
        return true;
    };
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| {
        point.strip_prefix(path).is_some_and(|below| path == "/" || below.starts_with('/'))
    })
}

/// A copy of what is at `path`, attached nowhere, its owners mapped by `user_namespace`.
///
/// # Errors
/// The kernel's: `EINVAL` when the filesystem can't.
pub(crate) fn mapped_tree(
    path: &Path,
    depth: Depth,
    user_namespace: BorrowedFd<'_>,
) -> nix::Result<OwnedFd> {
    let tree = mount::clone_path(path, depth)?;
    mount::map_owners(tree.as_fd(), depth, user_namespace)?;
    Ok(tree)
}

/// The user namespace of a process.
///
/// # Errors
/// When it is gone.
pub(crate) fn user_namespace(process: &Child) -> std::io::Result<File> {
    File::open(format!("/proc/{}/ns/user", process.pid()))
}

/// A user namespace to try maps with, held by a process that does nothing.
pub(crate) struct Trial {
    holder: Child,
    namespace: File,
}

impl Trial {
    /// Makes it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(map: &Map) -> nix::Result<Self> {
        let options = clone::Options { namespaces: Namespaces::USER, cgroup: None };
        let moat = getpid();
        let holder = clone::spawn(options, || {
            // Ended by SIGKILL, or with moat, which may be gone already.
            while set_pdeathsig(SIGKILL).is_ok() && getppid() == moat {
                pause();
            }
            1
        })?;
        let number =
            |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        FaultPoint::TrialMade.reached();
        let made = map.give_to(holder.pid()).and_then(|()| user_namespace(&holder));
        match made {
            Ok(namespace) => Ok(Self { holder, namespace }),
            Err(error) => {
                end(&holder);
                Err(number(error))
            }
        }
    }

    /// Whether what is at `path` can be seen through the map.
    pub(crate) fn maps(&self, path: &Path, depth: Depth) -> bool {
        mapped_tree(path, depth, self.namespace.as_fd()).is_ok()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        end(&self.holder);
    }
}

fn end(holder: &Child) {
    // Both fail only for one that has ended already.
    let _ = holder.signal(Signal::KILL);
    let _ = holder.wait();
}
