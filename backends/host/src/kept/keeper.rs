//! The monitor's side of what is kept.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use moat_core::diagnose::Fault;
use moat_core::fault_point::FaultPoint;
use moat_core::lifecycle::{Journal, Mark, Phase};

use super::{
    IDENTITY, Identity, KeptError, LOCK, ROOM, ROOM_SIZE, STATE, State, clear, failed, replace,
};
use crate::lock;
use crate::state::FileJournal;

/// What the monitor has of what is kept of its instance.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    state: State,
    _lock: File,
}

impl Keeper {
    pub(super) fn begin(dir: &Path, identity: &Identity) -> Result<Self, KeptError> {
        let path = dir.join(LOCK);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed(&path, "made"))?;
        lock::take(&file).map_err(failed(&path, "locked"))?;
        FaultPoint::KeptLocked.reached();
        let room = dir.join(ROOM);
        fs::write(&room, [b' '; ROOM_SIZE]).map_err(failed(&room, "written"))?;
        replace(dir, IDENTITY, identity, true)?;
        FaultPoint::IdentityWritten.reached();
        Ok(Self { dir: dir.to_owned(), state: State::NEW, _lock: file })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn mark(&mut self, mark: Mark) -> Result<(), KeptError> {
        self.state.take(mark);
        self.write()
    }

    fn write(&self) -> Result<(), KeptError> {
        let ended = self.state.phase == Phase::Ended;
        let written = replace(&self.dir, STATE, &self.state, ended);
        if ended && written.is_err() {
            // Its own output may have taken all that there was.
            let _ = fs::remove_file(self.dir.join(ROOM));
            return replace(&self.dir, STATE, &self.state, ended);
        }
        written
    }

    /// Writes down what else there is to say of an instance that has ended.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn end(mut self, fault: Option<&Fault>, output_lost: bool) -> Result<(), KeptError> {
        self.state.phase = Phase::Ended;
        self.state.ended.get_or_insert_with(Timestamp::now);
        self.state.process = None;
        self.state.fault = fault.map(whole);
        self.state.output_lost |= output_lost;
        self.write()?;
        let _ = fs::remove_file(self.dir.join(ROOM));
        FaultPoint::EndWritten.reached();
        Ok(())
    }

    /// Keeps nothing of it any more.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn forget(self) -> Result<(), KeptError> {
        clear(&self.dir)
    }
}

/// A fault with its reasons, in one line.
fn whole(fault: &Fault) -> String {
    let mut text = fault.to_string();
    let mut next = std::error::Error::source(fault);
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// The journal of an instance that is kept: what is written down is written in both places.
#[derive(Debug)]
pub struct KeptJournal {
    run: FileJournal,
    keeper: Keeper,
}

impl KeptJournal {
    /// Of an instance that has begun in both.
    pub fn new(run: FileJournal, keeper: Keeper) -> Self {
        Self { run, keeper }
    }

    /// Forgets the directory of what runs, and gives what is kept.
    ///
    /// # Errors
    /// When it can't be removed; a later moat does.
    pub fn apart(self) -> (Result<(), Fault>, Keeper) {
        (self.run.forget(), self.keeper)
    }
}

impl Journal for KeptJournal {
    fn dir(&self) -> &Path {
        self.run.dir()
    }

    /// What is kept comes first: by the end of the other record a later moat has nothing to do, and
    /// how it ended must be known then.
    fn record(&mut self, mark: Mark) -> Result<(), Fault> {
        let kept = self.keeper.mark(mark);
        if matches!(mark.phase, Phase::Creating | Phase::Created | Phase::Starting) {
            kept?;
        }
        // Else it is passed over: what runs need not end because of a full disk. The end is written
        // again, and without it shows by that of the monitor.
        self.run.record(mark)
    }

    /// Nothing is kept of what never came to run.
    fn forget(self) -> Result<(), Fault> {
        let forgotten = self.run.forget();
        self.keeper.forget()?;
        forgotten
    }
}
