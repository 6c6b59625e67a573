//! What a micro-VM leaves on the host, written down before it is made, so that a later moat can
//! remove it: `microvm.json` in the instance's directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moat_core::cgroup::Hierarchy;
use moat_core::diagnose::{Code, Fault};
use moat_core::spec::Signal;
use moat_host::process::ProcessId;
use moat_init::cgroup::Cgroup;
use moat_init::sys::clone::{open_pid, signal_pidfd};
use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

const FILE: &str = "microvm.json";

/// The directory over which the VMM mounts its root, in its own mount namespace alone.
const STAGE: &str = "stage";

/// What there is, or may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where the VMM's cgroup is, if it has one, and its name.
    pub(super) cgroup: Option<(Hierarchy, String)>,
    /// The VMM's process, once it is made.
    pub(super) vmm: Option<ProcessId>,
}

/// A record in its instance's directory.
#[derive(Debug)]
pub(super) struct Remains {
    dir: PathBuf,
    pub(super) record: Record,
}

impl Remains {
    /// Writes down what is about to be made in `dir`.
    pub(super) fn begin(dir: &Path, cgroup: Option<(Hierarchy, String)>) -> Result<Self, Fault> {
        let remains = Self { dir: dir.to_owned(), record: Record { cgroup, vmm: None } };
        remains.write()?;
        let stage = remains.stage();
        fs::create_dir(&stage).map_err(|error| state("make", &stage, error))?;
        Ok(remains)
    }

    /// What an earlier moat wrote down; nothing when it came to nothing.
    pub(super) fn read(dir: &Path) -> Result<Self, Fault> {
        let path = dir.join(FILE);
        let record = match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|error| state("read", &path, error))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Record { cgroup: None, vmm: None }
            }
            Err(error) => return Err(state("read", &path, error)),
        };
        Ok(Self { dir: dir.to_owned(), record })
    }

    /// An empty directory over which the VMM mounts its root.
    pub(super) fn stage(&self) -> PathBuf {
        self.dir.join(STAGE)
    }

    /// Notes the VMM's process.
    pub(super) fn set_vmm(&mut self, pid: u32) -> Result<(), Fault> {
        self.record.vmm = ProcessId::of(pid);
        self.write()
    }

    /// Removes all of it. Tries everything, and reports the first thing that did not go.
    pub(super) fn destroy(self) -> Result<(), Fault> {
        let ended = self.end_vmm();
        let removed = match &self.record.cgroup {
            Some((hierarchy, name)) => {
                let cgroup = Cgroup::find(hierarchy, name);
                let killed = cgroup.kill();
                cgroup.remove().and(killed).map_err(|error| {
                    Fault::new(Code::Microvm, "the VMM's cgroup can't be removed").because(error)
                })
            }
            None => Ok(()),
        };
        let stage = self.stage();
        let cleared = gone(fs::remove_dir(&stage), &stage)
            .and_then(|()| gone(fs::remove_file(self.dir.join(FILE)), &self.dir.join(FILE)));
        ended.and(removed).and(cleared)
    }

    /// Ends a VMM that outlived its moat. A child of this process is ended, and reaped, before.
    fn end_vmm(&self) -> Result<(), Fault> {
        let Some(vmm) = self.record.vmm else { return Ok(()) };
        let failed = |errno: Errno| {
            Fault::new(Code::Microvm, format!("the VMM, process {}, can't be ended", vmm.pid))
                .because(errno)
        };
        let pid = Pid::from_raw(i32::try_from(vmm.pid).unwrap_or(i32::MAX));
        match open_pid(pid) {
            // Looked at while the descriptor holds the pid.
            Ok(pidfd) if vmm.is_alive() => {
                use std::os::fd::AsFd;
                signal_pidfd(pidfd.as_fd(), Signal::KILL).map_err(failed)
            }
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// A reader sees the old record or the new one, whole.
    fn write(&self) -> Result<(), Fault> {
        let path = self.dir.join(FILE);
        let new = self.dir.join("microvm.json.new");
        let text =
            serde_json::to_vec(&self.record).map_err(|error| state("write", &path, error))?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| state("write", &path, error))
    }
}

fn gone(removed: io::Result<()>, path: &Path) -> Result<(), Fault> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(state("remove", path, error)),
        _ => Ok(()),
    }
}

fn state(
    action: &str,
    path: &Path,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Fault {
    Fault::new(Code::State, format!("can't {action} {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut remains = Remains::begin(dir.path(), None).unwrap();
        remains.set_vmm(std::process::id()).unwrap();
        let mut found = Remains::read(dir.path()).unwrap();
        assert_eq!(found.record, remains.record);
        // This very process must not be ended.
        found.record.vmm = None;
        found.destroy().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_instance_that_came_to_nothing_leaves_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        Remains::read(dir.path()).unwrap().destroy().unwrap();
    }

    #[test]
    fn a_broken_record_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        let fault = Remains::read(dir.path()).unwrap_err();
        assert!(fault.what.contains(FILE), "{fault}");
    }

    #[test]
    fn a_vmm_that_outlived_its_moat_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut remains = Remains::begin(dir.path(), None).unwrap();
        remains.set_vmm(child.id()).unwrap();
        Remains::read(dir.path()).unwrap().destroy().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
