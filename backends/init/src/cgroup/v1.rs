//! What cgroup v1 needs beside its files (kernel Documentation/admin-guide/cgroup-v1).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use moat_core::cgroup::Controller;

use super::{Error, above, file};

/// What a new group of a cpuset must be given before it takes a process (cpusets.rst).
const CPUSET: [&str; 2] = ["cpuset.mems", "cpuset.cpus"];

/// What a process writes to join a group by itself. Moving the calling thread alone is the only
/// way that does not wait for all processors to pass a quiet point, which takes milliseconds
/// (`cgroup_procs_write_start` in the kernel).
#[derive(Debug, Default)]
pub struct JoinFiles(Vec<File>);

impl From<Vec<OwnedFd>> for JoinFiles {
    fn from(files: Vec<OwnedFd>) -> Self {
        Self(files.into_iter().map(File::from).collect())
    }
}

/// Sees to it that groups of these controllers can be made in `parent`.
pub(super) fn prepare(parent: &Path, controllers: &[Controller]) -> Result<(), Error> {
    if controllers.contains(&Controller::Cpuset) {
        file::make(parent)?;
        inherit_cpuset(parent)?;
    }
    Ok(())
}

/// Gives a group the processors and memory nodes of the one above, where it has none.
pub(super) fn inherit_cpuset(dir: &Path) -> Result<(), Error> {
    for name in CPUSET {
        let path = dir.join(name);
        if file::read(&path)?.trim().is_empty() {
            let given = file::read(&above(dir)?.join(name))?;
            file::write(&path, given.trim())?;
        }
    }
    Ok(())
}

impl JoinFiles {
    pub(super) fn open(dirs: impl Iterator<Item = PathBuf>) -> Result<Self, Error> {
        let open = |dir: PathBuf| {
            let path = dir.join("tasks");
            File::options().write(true).open(&path).map_err(|source| Error::File {
                action: "write",
                path,
                source,
            })
        };
        dirs.map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Moves the calling thread, the only one of its process, into the group.
    ///
    /// # Errors
    /// The kernel's.
    pub fn join(&self) -> std::io::Result<()> {
        self.0.iter().try_for_each(|mut file| file.write_all(b"0"))
    }

    /// They themselves, to be passed on.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }

    /// Their numbers, to be kept open in a new process.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd)
    }
}
