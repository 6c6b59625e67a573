//! cgroup v1 (kernel Documentation/admin-guide/cgroup-v1): only the three hierarchies that the
//! limits need, since each more costs a join and a removal.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

use moat_core::sandbox::Limits;

use super::v2::{PERIOD, quota};
use super::{Error, file};

/// A group's directory in each hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) memory: PathBuf,
    pub(super) cpu: PathBuf,
    pub(super) pids: PathBuf,
}

/// What a process writes to join a group by itself. Moving the calling thread alone is the only
/// way that does not wait for all processors to pass a quiet point, which takes milliseconds
/// (`cgroup_procs_write_start` in the kernel).
#[derive(Debug, Default)]
pub struct JoinFiles(Vec<File>);

impl Group {
    pub(super) fn create(&self, limits: &Limits) -> Result<(), Error> {
        let memory = limits.memory.get().to_string();
        file::make(&self.memory)?;
        file::write(&self.memory.join("memory.limit_in_bytes"), &memory)?;
        // Memory and swap together: no swap. Not there when swap accounting is off.
        file::write_if_there(&self.memory.join("memory.memsw.limit_in_bytes"), &memory)?;
        file::make(&self.cpu)?;
        file::write(&self.cpu.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
        file::write(&self.cpu.join("cpu.cfs_quota_us"), &quota(limits).to_string())?;
        file::make(&self.pids)?;
        file::write(&self.pids.join("pids.max"), &limits.pids.to_string())
    }

    pub(super) fn join_files(&self) -> Result<JoinFiles, Error> {
        let open = |dir: &PathBuf| {
            let path = dir.join("tasks");
            File::options().write(true).open(&path).map_err(|source| Error::File {
                action: "write",
                path,
                source,
            })
        };
        [&self.memory, &self.cpu, &self.pids]
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(JoinFiles)
    }
}

impl JoinFiles {
    /// Moves the calling thread, the only one of its process, into the group.
    ///
    /// # Errors
    /// The kernel's.
    pub fn join(&self) -> std::io::Result<()> {
        self.0.iter().try_for_each(|mut file| file.write_all(b"0"))
    }

    /// Their numbers, to be kept open in a new process.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd)
    }
}
