//! How the container's ids stand for the host's, and mounts whose owners are mapped by it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use moat_core::fault_point::FaultPoint;
use moat_core::spec::Signal;
use moat_host::idmap::Map;
use moat_host::mountinfo;
use moat_host::newidmap::{Helpers, Unusable};
use moat_host::subid;
use moat_init::first::Ids;
use moat_init::inside::Owner;
use moat_init::sys::clone::{self, Child, Namespaces};
use moat_init::sys::mount::{self, Depth};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal::SIGKILL;
use nix::sys::stat::major;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, statfs};
use nix::unistd::{Gid, Pid, Uid, getpid, getppid, pause};
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
    /// 0 to the plain user that started moat, and from 1 on to what is set aside for that user.
    Subordinate {
        /// The ids.
        map: Map,
    },
    /// 0 to the plain user that started moat; there is no other.
    Single {
        /// The user.
        map: Map,
        /// Why there is no other.
        lacks: Lack,
    },
}

/// Why a plain user's workload has one id only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lack {
    /// What is not there, or does not do what it is there for.
    pub(crate) what: String,
    /// Whether somebody meant to give the workload more.
    pub(crate) unexpected: bool,
}

/// Filesystems that have been mappable since before the oldest kernel that moat supports. The
/// others are tried.
const KNOWN: [FsType; 2] = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC];

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
            return Ok(Self::of_plain_user());
        }
        let map = subid::choose();
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

    fn of_plain_user() -> Self {
        match subordinate() {
            Ok(map) => Self::Subordinate { map },
            Err(lacks) => Self::Single { map: own(), lacks },
        }
    }

    /// The ids themselves.
    pub(crate) fn map(&self) -> Map {
        match self {
            Self::Mapped { map } | Self::Subordinate { map } | Self::Single { map, .. } => {
                map.clone()
            }
            Self::Identity { .. } => Map::identity(),
        }
    }

    /// Whether a plain user started moat: the container's first process then has no help with
    /// rights over the host.
    pub(crate) fn is_plain_user(&self) -> bool {
        matches!(self, Self::Subordinate { .. } | Self::Single { .. })
    }

    /// The container's user 0, as the host sees it.
    pub(crate) fn owner(&self) -> Owner {
        let map = self.map();
        Owner { uid: map.users.first(), gid: map.groups.first() }
    }

    /// How many ids the workload has.
    pub(crate) fn ids(&self) -> Ids {
        match self {
            Self::Mapped { .. } | Self::Identity { .. } => Ids::ALL,
            Self::Subordinate { map } | Self::Single { map, .. } => {
                Ids { users: map.users.count(), groups: map.groups.count() }
            }
        }
    }

    /// Whether the workload's ids would have a right to change moat's own executable, if it came by
    /// it: its owner is among them, or others may write it.
    pub(crate) fn exposes_executable(&self) -> bool {
        let Ok(own) = fs::metadata("/proc/self/exe") else { return true };
        own.mode() & 0o022 != 0 || self.map().users.has(own.uid())
    }

    /// Gives a process's new user namespace the ids, and gives what is in force then, with what
    /// was said when it is less.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn give_to(&self, pid: Pid) -> io::Result<(Self, Vec<String>)> {
        match self {
            Self::Mapped { map } => map.give_to(pid)?,
            Self::Identity { .. } => Map::identity().give_to(pid)?,
            Self::Single { map, .. } => map.give_own_to(pid)?,
            Self::Subordinate { map } => {
                let helpers = Helpers::find().map_err(io::Error::other)?;
                let (map, refusals) = helpers.give(map, pid)?;
                let single = map.users.count() == 1 && map.groups.count() == 1;
                let what = refusals.join("; ");
                return Ok(match single {
                    true => {
                        (Self::Single { map, lacks: Lack { what, unexpected: true } }, refusals)
                    }
                    false => (Self::Subordinate { map }, refusals),
                });
            }
        }
        Ok((self.clone(), Vec::new()))
    }
}

/// The map of the plain user alone.
pub(crate) fn own() -> Map {
    Map::single(Uid::effective().as_raw(), Gid::effective().as_raw())
}

/// The plain user and what is set aside for them, or why there is no such thing.
pub(crate) fn subordinate() -> Result<Map, Lack> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let name = subid::name_of(uid.as_raw());
    let map = subid::of_user(uid.as_raw(), gid.as_raw(), name.as_deref()).map_err(|file| {
        let user = name.unwrap_or_else(|| uid.to_string());
        Lack { what: format!("{file} sets no ids aside for {user}"), unexpected: false }
    })?;
    Helpers::find().map(|_| map).map_err(|unusable| Lack {
        unexpected: matches!(unusable, Unusable::Broken { .. }),
        what: unusable.to_string(),
    })
}

/// Whether it can be mapped for sure.
fn is_known(source: &Path, depth: Depth) -> bool {
    let (Ok(filesystem), Ok(found)) = (statfs(source), fs::metadata(source)) else { return false };
    // One that passes on what another machine's is, as 9p does, is on no device of this one
    // (major number 0).
    let known = KNOWN.contains(&filesystem.filesystem_type()) && major(found.dev()) != 0;
    known && (depth == Depth::One || !has_mounts_below(source))
}

/// Whether anything is mounted below, as far as can be told.
fn has_mounts_below(path: &Path) -> bool {
    let (Ok(path), Ok(points)) = (fs::canonicalize(path), mountinfo::points()) else {
        return true;
    };
    points.iter().any(|point| *point != path && point.starts_with(&path))
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
pub(crate) fn user_namespace(process: &Child) -> io::Result<File> {
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
        let number = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
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
