//! A control group of the workload's own, that holds its limits: on cgroup v2, and on v1 where
//! the hierarchies of memory, cpu and pids are mounted apart (cgroups(7)).

mod file;
mod v1;
mod v2;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use moat_core::sandbox::Limits;
use serde::{Deserialize, Serialize};

pub use v1::JoinFiles;

/// Where groups are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hierarchy {
    /// One tree with all controllers.
    V2 {
        /// The group in which ours are made; made itself where it is missing.
        parent: PathBuf,
    },
    /// A tree for each controller.
    V1 {
        /// The parent in the tree of `memory`.
        memory: PathBuf,
        /// The parent in the tree of `cpu`.
        cpu: PathBuf,
        /// The parent in the tree of `pids`.
        pids: PathBuf,
    },
}

/// Why a group could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the hierarchy could not be made, opened or removed.
    #[error("can't {action} cgroup {}", path.display())]
    Directory {
        /// `make`, `open`, `remove`, `empty`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A file of a group could not be read or written.
    #[error("can't {action} {}", path.display())]
    File {
        /// `read`, `write`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The hierarchy does not offer a controller that the limits need.
    #[error("cgroup {} has no {controller} controller", path.display())]
    NoController {
        /// The parent group.
        path: PathBuf,
        /// `memory`, `cpu` or `pids`.
        controller: &'static str,
    },
}

/// How long [`Cgroup::remove`] waits for killed processes to be gone.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

/// A group; removed by [`Cgroup::remove`], not by dropping.
#[derive(Debug)]
pub struct Cgroup {
    directories: Directories,
}

#[derive(Debug)]
enum Directories {
    V2 { dir: PathBuf, fd: Option<OwnedFd> },
    V1(v1::Group),
}

impl Cgroup {
    /// Makes the group `name` and sets its limits.
    ///
    /// # Errors
    /// What could not be made or written; nothing is left then.
    pub fn create(hierarchy: &Hierarchy, name: &str, limits: &Limits) -> Result<Self, Error> {
        let group = Self::find(hierarchy, name);
        match group.fill(hierarchy, limits) {
            Ok(group) => Ok(group),
            Err(error) => {
                // What failed first is what the user should hear of.
                let _ = Self::find(hierarchy, name).remove();
                Err(error)
            }
        }
    }

    /// The group `name` as an earlier moat may have made it.
    pub fn find(hierarchy: &Hierarchy, name: &str) -> Self {
        let directories = match hierarchy {
            Hierarchy::V2 { parent } => Directories::V2 { dir: parent.join(name), fd: None },
            Hierarchy::V1 { memory, cpu, pids } => Directories::V1(v1::Group {
                memory: memory.join(name),
                cpu: cpu.join(name),
                pids: pids.join(name),
            }),
        };
        Self { directories }
    }

    fn fill(self, hierarchy: &Hierarchy, limits: &Limits) -> Result<Self, Error> {
        let directories = match (self.directories, hierarchy) {
            (Directories::V2 { dir, .. }, Hierarchy::V2 { parent }) => {
                let fd = Some(v2::create(parent, &dir, limits)?);
                Directories::V2 { dir, fd }
            }
            (Directories::V1(group), _) => {
                group.create(limits)?;
                Directories::V1(group)
            }
            (other, _) => other,
        };
        Ok(Self { directories })
    }

    /// The group's directory, for a process to be born in (v2).
    pub fn dir(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match &self.directories {
            Directories::V2 { fd, .. } => fd.as_ref().map(AsFd::as_fd),
            Directories::V1(_) => None,
        }
    }

    /// What a process writes to join the group by itself (v1).
    ///
    /// # Errors
    /// A file that can't be opened.
    pub fn join_files(&self) -> Result<JoinFiles, Error> {
        match &self.directories {
            Directories::V2 { .. } => Ok(JoinFiles::default()),
            Directories::V1(group) => group.join_files(),
        }
    }

    /// How many of its processes the kernel has killed because its memory limit was reached.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let (path, key) = match &self.directories {
            Directories::V2 { dir, .. } => (dir.join("memory.events"), "oom_kill"),
            Directories::V1(group) => (group.memory.join("memory.oom_control"), "oom_kill"),
        };
        Ok(file::value(&file::read(&path)?, key).unwrap_or(0))
    }

    /// Kills every process in it.
    ///
    /// # Errors
    /// A file that can't be read or written; a group that is not there has none.
    pub fn kill(&self) -> Result<(), Error> {
        match &self.directories {
            Directories::V2 { dir, .. } => v2::kill(dir),
            Directories::V1(group) => file::kill_all(&group.pids),
        }
    }

    /// Removes it. Processes of it that were killed may take a moment to be gone.
    ///
    /// # Errors
    /// `EBUSY` when some are still there after five seconds. A group that is not there is fine.
    pub fn remove(self) -> Result<(), Error> {
        self.paths().into_iter().try_for_each(|dir| file::remove(dir, REMOVE_PATIENCE))
    }

    /// Its directories.
    pub fn paths(&self) -> Vec<&Path> {
        match &self.directories {
            Directories::V2 { dir, .. } => vec![dir],
            Directories::V1(group) => vec![&group.memory, &group.cpu, &group.pids],
        }
    }
}
