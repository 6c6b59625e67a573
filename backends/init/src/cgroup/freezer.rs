//! All processes of a group stopped at once, and let go on: by the group itself on v2
//! (cgroup-v2.rst, `cgroup.freeze`), on v1 by a group in a tree of its own (freezer-subsystem.rst),
//! which is made when it is first needed: joining it from the start would cost every start.

use std::path::Path;
use std::time::{Duration, Instant};

use moat_core::cgroup::Version;
use moat_core::fault_point::FaultPoint;

use super::{Cgroup, Error, above, file, process};

/// How long processes may take to stop. One that waits for a disk stops only then.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a group's processes are to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Frozen,
    Thawed,
}

impl Cgroup {
    /// Says where groups that stop processes are made in v1. It is of no use to a group that has a
    /// directory in v2.
    pub fn set_freezer(&mut self, parent: &Path) {
        if self.of_version(Version::V2).next().is_none() {
            self.freezer = Some(parent.join(&self.name));
        }
    }

    /// Whether its processes can be stopped without [`set_freezer`](Self::set_freezer), or since.
    pub fn can_freeze(&self) -> bool {
        self.freezer.is_some() || self.of_version(Version::V2).next().is_some()
    }

    /// Stops all its processes, those that they are just making too.
    ///
    /// # Errors
    /// When there is no way to, or some do not stop within five seconds; all go on then.
    pub fn freeze(&self) -> Result<(), Error> {
        let frozen = match (self.of_version(Version::V2).next(), &self.freezer) {
            (Some(dir), _) => order_v2(&dir, State::Frozen),
            (None, Some(freezer)) => self.gather(freezer).and_then(|()| {
                FaultPoint::Gathered.reached();
                order_v1(freezer, State::Frozen)
            }),
            (None, None) => return Err(Error::NoFreezer),
        };
        FaultPoint::Frozen.reached();
        if frozen.is_err() {
            // What failed first is what the user should hear of.
            let _ = self.thaw();
        }
        frozen
    }

    /// Lets its processes go on; those of a group that is not stopped do already.
    ///
    /// # Errors
    /// A file that can't be written. A group that is not there has no processes.
    pub fn thaw(&self) -> Result<(), Error> {
        let thawed = match (self.of_version(Version::V2).next(), &self.freezer) {
            (Some(dir), _) => order_v2(&dir, State::Thawed),
            (None, Some(freezer)) => order_v1(freezer, State::Thawed),
            (None, None) => Ok(()),
        };
        match thawed {
            Err(error) if error.is_not_found() => Ok(()),
            thawed => thawed,
        }
    }

    /// Brings all processes into the group that will stop them, until no new one shows up.
    fn gather(&self, freezer: &Path) -> Result<(), Error> {
        file::make(freezer)?;
        let Some(members) = self.members() else { return Ok(()) };
        // One that is about to end can't be moved any more, and takes its time on a busy machine.
        until(freezer, || {
            let there = process::list(freezer)?;
            let mut missing = process::list(&members)?;
            missing.retain(|pid| !there.contains(pid));
            for pid in &missing {
                // It may have ended since.
                let _ = file::write(&freezer.join("cgroup.procs"), &pid.to_string());
            }
            Ok(missing.is_empty())
        })?;
        spare_strangers(freezer, &members)
    }
}

/// Lets go of a process that was given the number of one that had just ended.
fn spare_strangers(freezer: &Path, members: &Path) -> Result<(), Error> {
    let there = process::list(freezer)?;
    let ours = process::list(members)?;
    let root = above(above(freezer)?)?.join("cgroup.procs");
    for pid in there.iter().filter(|pid| !ours.contains(pid)) {
        // It may have ended since.
        let _ = file::write(&root, &pid.to_string());
    }
    Ok(())
}

fn order_v2(dir: &Path, state: State) -> Result<(), Error> {
    let value = if state == State::Frozen { "1" } else { "0" };
    file::write(&dir.join("cgroup.freeze"), value)?;
    if state == State::Thawed {
        return Ok(());
    }
    let events = dir.join("cgroup.events");
    until(dir, || Ok(file::value(&file::read(&events)?, "frozen") == Some(1)))
}

fn order_v1(freezer: &Path, state: State) -> Result<(), Error> {
    let path = freezer.join("freezer.state");
    let value = if state == State::Frozen { "FROZEN" } else { "THAWED" };
    // `FREEZING` until the last has stopped, which only reading finds out. A process that was just
    // being made may have missed the order, and takes the next.
    until(freezer, || {
        file::write(&path, value)?;
        Ok(file::read(&path)?.trim() == value)
    })
}

/// Waits until it is so.
fn until(dir: &Path, is_so: impl Fn() -> Result<bool, Error>) -> Result<(), Error> {
    let began = Instant::now();
    let mut pause = Duration::from_micros(100);
    while !is_so()? {
        if began.elapsed() > PATIENCE {
            return Err(Error::NotFrozen { path: dir.to_owned() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}
