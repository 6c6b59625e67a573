//! What an earlier moat left of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moat_core::cgroup::Hierarchy;
use moat_core::diagnose::{Code, Fault};
use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::Exit;
use moat_core::spec::Signal;
use moat_core::workload::Workload;
use moat_host::process::ProcessId;
use moat_init::cgroup::{self, Cgroup};
use moat_init::sys::clone::{open_pid, signal_pidfd};
use moat_init::watch::Watch;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd::Pid;

use crate::fault::fault;
use crate::record::Record;

/// How long the kernel may take to end a killed container, on a machine that has much to do. Who
/// runs something else waits for no longer, and the next moat tries again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The remains, to be destroyed.
pub(crate) struct Remains {
    dir: PathBuf,
    process: Option<ProcessId>,
    cgroup: Option<Hierarchy>,
}

impl Remains {
    /// Reads the record of `dir`. Where there is none yet, moat was ended before or just after the
    /// first process was made, which ended with it; only the cgroup may be there.
    pub(crate) fn find(dir: &Path) -> Result<Self, Fault> {
        let (process, cgroup) = match Record::read(dir)? {
            Some(record) => (record.process, record.cgroup),
            None => (None, Some(moat_host::cgroup::everywhere())),
        };
        Ok(Self { dir: dir.to_owned(), process, cgroup })
    }
}

impl Remains {
    /// Its cgroup, with that by which its processes may have been stopped.
    fn group(&self) -> Option<Cgroup> {
        let mut group = Cgroup::find(self.cgroup.as_ref()?, &Record::group_name(&self.dir));
        if let Some(parent) = moat_host::cgroup::freezer() {
            group.set_freezer(&parent);
        }
        Some(group)
    }
}

fn not_ours() -> Fault {
    Fault::new(Code::Container, "the container was another moat's, which is gone")
        .hint("run the workload again")
}

impl Workload for Remains {
    fn start(&mut self) -> Result<u32, Fault> {
        Err(not_ours())
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        let Some(process) = self.process else { return Ok(()) };
        send(process, signal).map(drop)
    }

    fn wait(
        &mut self,
        _: Option<BorrowedFd<'_>>,
        _: Option<Duration>,
    ) -> Result<Option<Exit>, Fault> {
        // Only the process that made it is told how it ended.
        Err(not_ours())
    }

    fn destroy(self: Box<Self>) -> Result<(), Fault> {
        let left = |error: cgroup::Error| {
            Fault::new(Code::Container, "can't remove what is left of the container's cgroup")
                .because(error)
        };
        let group = self.group();
        let process = self.process.map_or(Ok(None), |process| send(process, Signal::KILL))?;
        // What is stopped does not end before it may go on, which this sees to.
        group.as_ref().map_or(Ok(()), Cgroup::kill).map_err(left)?;
        FaultPoint::OrphanGroupKilled.reached();
        process.map_or(Ok(()), |process| wait_for_end(process.as_fd(), PATIENCE))?;
        FaultPoint::OrphanEnded.reached();
        group.map_or(Ok(()), Cgroup::remove).map_err(left)
    }
}

/// Waits until the container's first process, which was killed, has ended.
///
/// # Errors
/// When it does not in time.
pub(crate) fn wait_for_end(process: BorrowedFd<'_>, patience: Duration) -> Result<(), Fault> {
    let mut watch = Watch::default();
    watch.add(Some(process), PollFlags::POLLIN);
    let until = Instant::now().checked_add(patience);
    if watch.wait(until).map_err(|errno| fault("can't wait for the container's end", errno))? {
        return Ok(());
    }
    Err(Fault::new(Code::Container, "the container was killed, and does not end")
        .hint("it may wait for a disk or a network: run moat again once that answers"))
}

/// Sends a signal to a process if it still is the one that was recorded; gives it if so.
fn send(process: ProcessId, signal: Signal) -> Result<Option<OwnedFd>, Fault> {
    let what = || format!("can't end process {}", process.pid);
    let raw = i32::try_from(process.pid).map_err(|_| fault(what(), Errno::ESRCH))?;
    let pidfd = match open_pid(Pid::from_raw(raw)) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(fault(what(), errno)),
    };
    // Looked at after it was opened: from then on the pidfd can be no other's.
    if !process.is_alive() {
        return Ok(None);
    }
    signal_pidfd(pidfd.as_fd(), signal).map_err(|errno| fault(what(), errno))?;
    Ok(Some(pidfd))
}
