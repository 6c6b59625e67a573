//! A group's processes, one by one. They are known by number only, which the kernel may have given
//! to another process by the time it is used.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use moat_core::spec::Signal;
use nix::unistd::Pid;

use super::{Error, file};
use crate::sys::clone::{open_pid, signal_pidfd};

/// How often a list that grows while it is gone through is read again.
const ROUNDS: u32 = 100;

/// The processes of a group; none where the group is not there.
pub(super) fn list(dir: &Path) -> Result<Vec<Pid>, Error> {
    let text = match file::read(&dir.join("cgroup.procs")) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        text => text?,
    };
    // One of a pid namespace that is not seen from here is 0.
    let pids = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0);
    Ok(pids.map(Pid::from_raw).collect())
}

/// Kills every process of a group, until none is left that was not yet killed.
pub(super) fn kill_all(dir: &Path) -> Result<(), Error> {
    // One that forks faster than it is killed is found again, but not for ever.
    for _ in 0..ROUNDS {
        let held = hold(&list(dir)?);
        if held.is_empty() {
            return Ok(());
        }
        // One whose number is still in the group's list is the one that is held, or that one has
        // ended, and then the signal goes nowhere.
        let there = list(dir)?;
        for (_, pidfd) in held.iter().filter(|(pid, _)| there.contains(pid)) {
            // It may have ended since.
            let _ = signal_pidfd(pidfd.as_fd(), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Takes hold of those that are still there.
fn hold(pids: &[Pid]) -> Vec<(Pid, OwnedFd)> {
    pids.iter().filter_map(|pid| open_pid(*pid).ok().map(|pidfd| (*pid, pidfd))).collect()
}
