//! Instances that are kept after their workload has ended, until somebody removes them: what is
//! known of each, where it lasts.
//!
//! ```text
//! DATA/instances/.lock              held while a name is looked for and taken
//! DATA/instances/ID/lock            held by its monitor as long as that lives
//! DATA/instances/ID/instance.json   what does not change: an Identity
//! DATA/instances/ID/state.json      where it is in its life: a State
//! DATA/instances/ID/room            given back where there is no room to write down the end
//! DATA/instances/ID/log, log.1 ..   what it wrote (see `log`)
//! ```
//! Beside this, while its monitor lives, each has the directory that every instance has (see
//! `state`). Both files are replaced as a whole, so that a reader sees the old or the new one, and
//! what must outlast a power cut is on the disk before anything is said of it: the identity, and
//! the end. What is said of one without a living monitor is that it has ended, whatever was written
//! down last: the workload dies with its monitor.

mod keeper;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use moat_core::diagnose::{Code, Fault};
use moat_core::fault_point::FaultPoint;
use moat_core::lifecycle::{Mark, Phase};
use moat_core::policy::Decision;
use moat_core::sandbox::Exit;
use moat_core::spec::{Name, Resolved};
use moat_core::workload::Step;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::keeper::{Keeper, KeptJournal};
use crate::dirs;
use crate::lock;
use crate::process::ProcessId;

/// Below the data directory.
const DIRECTORY: &str = "instances";

/// Can't be an instance's directory, whose name is its id.
const NAMES_LOCK: &str = ".lock";

const LOCK: &str = "lock";
const IDENTITY: &str = "instance.json";
const STATE: &str = "state.json";
const ROOM: &str = "room";

/// As much as a state takes on any disk, in bytes.
const ROOM_SIZE: usize = 4096;

/// The most that is read of one file, in bytes: a spec may have 1 MiB.
const LIMIT: u64 = 8 << 20;

/// What does not change of a kept instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The instance's id: 12 hexadecimal digits.
    pub id: String,
    /// The workload's name, which no other instance of the project has.
    pub name: Name,
    /// The project.
    pub project: Name,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is forgotten when it has ended.
    pub removed_at_end: bool,
    /// What was asked for.
    pub requested: Resolved,
    /// What was decided, and why.
    pub decided: Decision,
    /// What was done.
    pub effective: Effective,
}

/// What was done for a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// The backend that did it, by [`Backend::name`](moat_core::workload::Backend::name).
    pub backend: String,
    /// The steps of its plan.
    pub steps: Vec<Step>,
    /// What the plan could not keep.
    pub warnings: Vec<String>,
}

/// Where a kept instance is in its life, as its monitor wrote it down last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The phase.
    pub phase: Phase,
    /// The process that stands for the workload, while there is one.
    pub process: Option<ProcessId>,
    /// When it came to run last.
    pub started: Option<Timestamp>,
    /// When it ended last.
    pub ended: Option<Timestamp>,
    /// How it ended last.
    pub exit: Option<Exit>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it was lost, or what could not be cleared, with the reasons.
    pub fault: Option<String>,
    /// Whether some of its output could not be kept.
    pub output_lost: bool,
}

impl State {
    const NEW: Self = Self {
        phase: Phase::Creating,
        process: None,
        started: None,
        ended: None,
        exit: None,
        restarts: 0,
        fault: None,
        output_lost: false,
    };

    fn take(&mut self, mark: Mark) {
        let before = std::mem::replace(&mut self.phase, mark.phase);
        match mark.phase {
            Phase::Running if before == Phase::Starting => {
                self.started = Some(Timestamp::now());
                self.process = mark.pid.and_then(ProcessId::of);
                (self.ended, self.exit) = (None, None);
            }
            Phase::Ended => {
                self.ended = Some(Timestamp::now());
                self.process = None;
                self.exit = mark.exit;
            }
            _ => {}
        }
    }
}

/// Why what is kept can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The kernel's reason.
    #[error("{} can't be {action}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// `made`, `read`, `written`, `locked`, `removed`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The directory for all of them can't be used.
    #[error("what is kept of instances has no place")]
    Directory(#[from] dirs::DirsError),
    /// Another one has the name.
    #[error("the name {name} is taken in project {project} by {id}, which {}", if *lives { "runs" } else { "has ended" })]
    Taken {
        /// The name.
        name: Name,
        /// The project.
        project: Name,
        /// The other's id.
        id: String,
        /// Whether its monitor lives.
        lives: bool,
    },
    /// Its monitor lives, or another moat is removing it.
    #[error("{id} runs, or another moat is removing it")]
    InUse {
        /// Its id.
        id: String,
    },
}

impl From<KeptError> for Fault {
    fn from(error: KeptError) -> Self {
        let (code, hint) = match &error {
            KeptError::Taken { name, lives: true, .. } => (
                Code::InUse,
                format!("end it with `moat stop {name}`, or choose another `--project`"),
            ),
            KeptError::Taken { name, lives: false, .. } => (
                Code::InUse,
                format!("remove it with `moat rm {name}`, or choose another `--project`"),
            ),
            KeptError::InUse { id } => {
                (Code::InUse, format!("`moat stop {id}` first, or `moat rm --force {id}`"))
            }
            KeptError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                (Code::State, "free some space there".to_owned())
            }
            KeptError::File { .. } | KeptError::Directory(_) => {
                (Code::State, "see that this user may write there".to_owned())
            }
        };
        match error {
            // All is said by itself.
            KeptError::Taken { .. } | KeptError::InUse { .. } => {
                Self::new(code, error.to_string()).hint(hint)
            }
            error => Self::new(code, "what is kept of instances can't be read or written")
                .hint(hint)
                .because(error),
        }
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KeptError {
    move |source| KeptError::File { path: path.to_owned(), action, source }
}

/// What is known of a kept instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its directory.
    pub dir: PathBuf,
    /// `None` where its file is damaged.
    pub identity: Option<Identity>,
    /// What was written down last; `None` where nothing was, or the file is damaged.
    pub state: Option<State>,
    /// Whether its monitor lives.
    pub lives: bool,
}

impl Kept {
    /// `None` where nothing was kept yet, or nothing is any more.
    fn look(dir: PathBuf) -> Option<Self> {
        // In this order: who lives may yet write down that it has ended, who does not has.
        let lives = File::open(dir.join(LOCK)).and_then(|file| lock::is_taken(&file));
        let identity = match read(&dir.join(IDENTITY)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            // Damaged, or not to be read just now: it is there, and whoever clears leaves it.
            identity => identity.ok().flatten(),
        };
        let state = read(&dir.join(STATE)).ok().flatten();
        Some(Self { dir, identity, state, lives: lives.unwrap_or(false) })
    }

    /// Its id, which is its directory's name.
    pub fn id(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where it is in its life, in truth: without a monitor nothing runs.
    pub fn phase(&self) -> Phase {
        match &self.state {
            _ if !self.lives => Phase::Ended,
            Some(state) => state.phase,
            None => Phase::Creating,
        }
    }
}

/// Reads what a file holds; `None` where that makes no sense.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let mut text = Vec::new();
    File::open(path)?.take(LIMIT).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// Puts a whole file in the place of another, and both on the disk if it must last.
fn replace(dir: &Path, name: &str, value: &impl Serialize, lasts: bool) -> Result<(), KeptError> {
    let (path, new) = (dir.join(name), dir.join(format!(".{name}")));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if lasts {
            file.sync_all()?;
        }
        fs::rename(&new, &path)?;
        if lasts { File::open(dir)?.sync_all() } else { Ok(()) }
    };
    write().map_err(failed(&path, "written"))
}

/// The kept instances of one data directory.
#[derive(Debug, Clone)]
pub struct Shelf {
    instances: PathBuf,
}

impl Shelf {
    /// Those below a data directory; makes nothing.
    pub fn below(data: &Path) -> Self {
        Self { instances: data.join(DIRECTORY) }
    }

    /// Every one.
    ///
    /// # Errors
    /// When the directory can't be read. One instance's unreadable files are no error.
    pub fn list(&self) -> Result<Vec<Kept>, KeptError> {
        Ok(self.dirs()?.into_iter().filter_map(Kept::look).collect())
    }

    /// The one that is kept in this directory.
    pub fn find(&self, dir: &Path) -> Option<Kept> {
        Kept::look(dir.to_owned())
    }

    fn dirs(&self) -> Result<Vec<PathBuf>, KeptError> {
        let entries = match fs::read_dir(&self.instances) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed(&self.instances, "read"))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed(&self.instances, "read"))?;
            if entry.file_name() != NAMES_LOCK {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Begins to keep an instance, whose monitor the calling process is.
    ///
    /// # Errors
    /// When another one of the project has the name, or it can't be written; nothing is left then.
    pub fn begin(&self, identity: &Identity) -> Result<Keeper, KeptError> {
        dirs::make_private(&self.instances)?;
        let names = self.instances.join(NAMES_LOCK);
        let names_file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&names);
        let names_file = names_file.map_err(failed(&names, "made"))?;
        lock::take(&names_file).map_err(failed(&names, "locked"))?;
        self.refuse_taken(identity)?;
        let dir = self.instances.join(&identity.id);
        DirBuilder::new().mode(0o700).create(&dir).map_err(failed(&dir, "made"))?;
        FaultPoint::KeptMade.reached();
        Keeper::begin(&dir, identity).inspect_err(|_| {
            // Best effort: what is half made is cleared by who takes the next name.
            let _ = clear(&dir);
        })
    }

    /// Looks for another of the same name, and clears what a killed moat has left half made or half
    /// removed. The caller holds the lock for that.
    fn refuse_taken(&self, new: &Identity) -> Result<(), KeptError> {
        for dir in self.dirs()? {
            match Kept::look(dir.clone()) {
                Some(Kept { identity: Some(other), lives, .. })
                    if (&other.project, &other.name) == (&new.project, &new.name) =>
                {
                    return Err(KeptError::Taken {
                        name: other.name,
                        project: other.project,
                        id: other.id,
                        lives,
                    });
                }
                Some(_) => {}
                None => drop(self.remove(&dir)),
            }
        }
        Ok(())
    }

    /// Removes what is kept of an instance that has no monitor any more; nothing happens when that
    /// was done already.
    ///
    /// # Errors
    /// [`KeptError::InUse`] when it has one; or something can't be removed.
    pub fn remove(&self, dir: &Path) -> Result<(), KeptError> {
        let path = dir.join(LOCK);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => {
                if !lock::try_take(&file).map_err(failed(&path, "locked"))? {
                    let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    return Err(KeptError::InUse { id });
                }
                // Another moat may have removed it meanwhile.
                match file.metadata().map_err(failed(&path, "read"))?.nlink() {
                    0 => Ok(()),
                    _ => clear(dir),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => clear(dir),
            Err(error) => Err(failed(&path, "opened")(error)),
        }
    }
}

/// Removes all that is in a directory, what tells of the instance before the lock on it.
fn clear(dir: &Path) -> Result<(), KeptError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(dir, "read"))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed(dir, "read"))?;
        if entry.file_name() != LOCK {
            gone(fs::remove_file(entry.path())).map_err(failed(&entry.path(), "removed"))?;
        }
    }
    FaultPoint::KeptForgotten.reached();
    let lock = dir.join(LOCK);
    gone(fs::remove_file(&lock)).map_err(failed(&lock, "removed"))?;
    gone(fs::remove_dir(dir)).map_err(failed(dir, "removed"))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
