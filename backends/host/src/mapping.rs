//! How a workload's ids stand for this host's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::major;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, statfs};
use nix::unistd::{Gid, Pid, Uid};
use serde::{Deserialize, Serialize};

use crate::idmap::{Map, Range};
use crate::mountinfo;
use crate::newidmap::{Helpers, Unusable};
use crate::subid;

/// How ids are mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Mapping {
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
pub struct Lack {
    /// What is not there, or does not do what it is there for.
    pub what: String,
    /// Whether somebody meant to give the workload more.
    pub unexpected: bool,
}

/// Filesystems that have been mappable since before the oldest kernel that moat supports. The
/// others are tried.
const KNOWN: [FsType; 2] = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC];

impl Mapping {
    /// Chooses one for these sources of a root and volumes, each with what is mounted below where
    /// it says so. Each that may or may not be mappable is tried by `maps`, which is to touch
    /// nothing.
    ///
    /// # Errors
    /// When it could not be tried: what `maps` gave.
    pub fn choose<'p, E>(
        sources: impl Iterator<Item = (&'p Path, bool)>,
        mut maps: impl FnMut(&Map, &Path, bool) -> Result<bool, E>,
    ) -> Result<Self, E> {
        if !Uid::effective().is_root() {
            return Ok(Self::of_plain_user());
        }
        let map = subid::choose();
        for (source, whole) in sources {
            if !is_known(source, whole) && !maps(&map, source, whole)? {
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
    pub fn map(&self) -> Map {
        match self {
            Self::Mapped { map } | Self::Subordinate { map } | Self::Single { map, .. } => {
                map.clone()
            }
            Self::Identity { .. } => Map::identity(),
        }
    }

    /// Whether a plain user started moat: the container's first process then has no help with
    /// rights over the host.
    pub fn is_plain_user(&self) -> bool {
        matches!(self, Self::Subordinate { .. } | Self::Single { .. })
    }

    /// Whether the workload's ids would have a right to change moat's own executable, if it came by
    /// it: its owner is among them, or others may write it.
    pub fn exposes_executable(&self) -> bool {
        let Ok(own) = fs::metadata("/proc/self/exe") else { return true };
        own.mode() & 0o022 != 0 || self.map().users.has(own.uid())
    }

    /// Gives a process's new user namespace the ids, and gives what is in force then, with what
    /// was said when it is less.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_to(&self, pid: Pid) -> io::Result<(Self, Vec<String>)> {
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

    /// What a plan says of it.
    pub fn described(&self) -> String {
        match self {
            Self::Mapped { map } => format!(
                "0..{} are {}.. of this host; files keep their owners by id-mapped mounts",
                map.users.count() - 1,
                map.users.first()
            ),
            Self::Identity { path } => format!(
                "each to itself, since {} is on a filesystem without id-mapped mounts: user 0 owns \
                 what root owns, without root's rights over this host",
                path.display()
            ),
            Self::Subordinate { map } => {
                let range = |range: &Range| format!("{}..", range.outside);
                let others: Vec<_> = map.users.as_slice().iter().skip(1).map(range).collect();
                format!(
                    "0 is {} of this host, 1..{} are what is set aside for that user: {}",
                    map.users.first(),
                    map.users.count() - 1,
                    others.join(", ")
                )
            }
            Self::Single { map, lacks } => format!(
                "0 is {} of this host; there is no other, since {}",
                map.users.first(),
                lacks.what
            ),
        }
    }
}

/// The map of the plain user alone.
pub fn own() -> Map {
    Map::single(Uid::effective().as_raw(), Gid::effective().as_raw())
}

/// The plain user and what is set aside for them, or why there is no such thing.
pub fn subordinate() -> Result<Map, Lack> {
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
fn is_known(source: &Path, whole: bool) -> bool {
    let (Ok(filesystem), Ok(found)) = (statfs(source), fs::metadata(source)) else { return false };
    // One that passes on what another machine's is, as 9p does, is on no device of this one
    // (major number 0).
    let known = KNOWN.contains(&filesystem.filesystem_type()) && major(found.dev()) != 0;
    known && (!whole || !has_mounts_below(source))
}

/// Whether anything is mounted below, as far as can be told.
fn has_mounts_below(path: &Path) -> bool {
    let (Ok(path), Ok(points)) = (fs::canonicalize(path), mountinfo::points()) else {
        return true;
    };
    points.iter().any(|point| *point != path && point.starts_with(&path))
}
