//! A control group of the workload's own, that holds its limits: on cgroup v2, on v1, and where the
//! controllers are split between them (cgroups(7)). Only the trees of the limits that are asked for
//! are used, since each costs a join and a removal.
//!
//! ```text
//! setting   which limit is which file
//! v1, v2    what must be so before those can be written
//! freezer   all processes stopped, and let go on
//! figures   what the group uses
//! process   its processes, one by one
//! file      reading and writing
//! ```

mod figures;
mod file;
mod freezer;
mod process;
mod setting;
mod v1;
mod v2;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moat_core::cgroup::{Controller, Hierarchy, Tree, Version};
use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::Limits;

pub use v1::JoinFiles;

/// Why a group could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of the hierarchy could not be made, opened or removed.
    #[error("can't {action} cgroup {}", path.display())]
    Directory {
        /// `make`, `open`, `remove`.
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
    /// A file of a group says what it should not.
    #[error("{} has no {key}", path.display())]
    Strange {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        key: &'static str,
    },
    /// The hierarchy does not offer a controller that the limits need.
    #[error("cgroup {} has no {controller} controller", path.display())]
    NoController {
        /// The parent group.
        path: PathBuf,
        /// Which.
        controller: Controller,
    },
    /// A limit that was asked for is not one that this kernel holds.
    #[error("this kernel holds no limit of {limit}: {} is not there", path.display())]
    NotHeld {
        /// `swap`, `io weight`.
        limit: &'static str,
        /// The file that would hold it.
        path: PathBuf,
    },
    /// A limit is for a device that can't be looked at.
    #[error("can't look at {}", path.display())]
    Device {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no way to stop all processes.
    #[error("no cgroup hierarchy that can stop processes is mounted")]
    NoFreezer,
    /// Some process does not stop.
    #[error("the processes of {} do not all stop", path.display())]
    NotFrozen {
        /// The group.
        path: PathBuf,
    },
}

/// How long [`Cgroup::remove`] waits for killed processes to be gone.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

/// A group; removed by [`Cgroup::remove`], not by dropping.
#[derive(Debug)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    name: String,
    /// Its directory in the tree of v2, once it is made.
    unified: Option<OwnedFd>,
    /// Where the kernel counts those of its processes that it has killed because memory ran out,
    /// once it is made: opened while nobody waits for it, and read when somebody does.
    kills: Option<File>,
    /// Its directory in the tree of v1 that stops processes, from when that is needed.
    freezer: Option<PathBuf>,
}

impl Cgroup {
    /// Makes the group `name` and sets its limits.
    ///
    /// # Errors
    /// What could not be made or written; nothing is left then.
    pub fn create(hierarchy: &Hierarchy, name: &str, limits: &Limits) -> Result<Self, Error> {
        let mut group = Self::find(hierarchy, name);
        match group.fill(limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                // What failed first is what the user should hear of.
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// The group `name` as an earlier moat may have made it.
    pub fn find(hierarchy: &Hierarchy, name: &str) -> Self {
        let (hierarchy, name) = (hierarchy.clone(), name.to_owned());
        Self { hierarchy, name, unified: None, kills: None, freezer: None }
    }

    fn fill(&mut self, limits: &Limits) -> Result<(), Error> {
        let mut unified = None;
        for (tree, controllers) in self.hierarchy.trees() {
            let dir = tree.parent.join(&self.name);
            match tree.version {
                Version::V1 => v1::prepare(&tree.parent, &controllers)?,
                Version::V2 => v2::offer(&tree.parent, &controllers)?,
            }
            file::make(&dir)?;
            FaultPoint::CgroupBegun.reached();
            for controller in controllers {
                setting::set(&dir, controller, tree.version, limits)?;
            }
            if tree.version == Version::V2 {
                unified = Some(v2::open(&dir)?);
            }
        }
        self.unified = unified;
        self.kills = self.counts_kills().and_then(|path| File::open(path).ok());
        Ok(())
    }

    /// The group's directory, for a process to be born in (v2).
    pub fn dir(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// What a process writes to join the group by itself (v1); of no files where all is in v2.
    ///
    /// # Errors
    /// A file that can't be opened.
    pub fn join_files(&self) -> Result<JoinFiles, Error> {
        JoinFiles::open(self.of_version(Version::V1))
    }

    /// How many of its processes the kernel has killed because its memory limit was reached.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let Some(path) = self.counts_kills() else { return Ok(0) };
        let text = match &self.kills {
            Some(open) => file::read_open(open, &path)?,
            None => file::read(&path)?,
        };
        Ok(file::value(&text, "oom_kill").unwrap_or(0))
    }

    fn counts_kills(&self) -> Option<PathBuf> {
        let (tree, dir) = self.tree(Controller::Memory)?;
        Some(dir.join(match tree.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        }))
    }

    /// Kills every process in it, stopped ones too.
    ///
    /// # Errors
    /// A file that can't be read or written; a group that is not there has none.
    pub fn kill(&self) -> Result<(), Error> {
        let unified = self.of_version(Version::V2).next();
        let any = unified.clone().or_else(|| self.members());
        let killed = match (&unified, &any) {
            (Some(dir), _) => v2::kill(dir),
            (None, Some(dir)) => process::kill_all(dir),
            (None, None) => Ok(()),
        };
        // What is stopped in v1 takes no signal, and this has come too late to do anything else.
        killed.and(self.thaw())
    }

    /// Removes it. Processes of it that were killed may take a moment to be gone.
    ///
    /// # Errors
    /// `EBUSY` when some are still there after five seconds; what can be removed is. A group that is
    /// not there is fine.
    pub fn remove(self) -> Result<(), Error> {
        let until = Instant::now() + REMOVE_PATIENCE;
        let mut removed = Ok(());
        for dir in self.paths() {
            // One that stays does not keep the others.
            removed = removed.and(file::remove(&dir, until));
            FaultPoint::CgroupDirectoryRemoved.reached();
        }
        removed
    }

    /// Its directories.
    pub fn paths(&self) -> Vec<PathBuf> {
        let trees = self.hierarchy.parents().into_iter().map(|parent| parent.join(&self.name));
        trees.chain(self.freezer.clone()).collect()
    }

    /// The tree of a controller, and its directory there.
    fn tree(&self, controller: Controller) -> Option<(&Tree, PathBuf)> {
        let tree = self.hierarchy.0.get(&controller)?;
        Some((tree, tree.parent.join(&self.name)))
    }

    /// Its directories in trees of this version, each once.
    fn of_version(&self, version: Version) -> impl Iterator<Item = PathBuf> + Clone {
        let trees = self.hierarchy.trees().into_iter().map(|(tree, _)| tree);
        let trees: Vec<&Tree> = trees.filter(|tree| tree.version == version).collect();
        trees.into_iter().map(|tree| tree.parent.join(&self.name))
    }

    /// A directory that lists its processes: all of them, in whatever tree.
    fn members(&self) -> Option<PathBuf> {
        let pids = self.tree(Controller::Pids).map(|(_, dir)| dir);
        pids.or_else(|| self.paths().into_iter().next())
    }
}

/// The group above, which every group of moat's has.
fn above(dir: &Path) -> Result<&Path, Error> {
    dir.parent().ok_or_else(|| Error::Directory {
        action: "open",
        path: dir.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}
