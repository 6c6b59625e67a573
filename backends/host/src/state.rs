//! What is known of each instance, on disk: one directory each, with a journal of its phases.
//!
//! The journal, `instance.jsonl`, is a [`Header`] on its first line and a
//! [`Mark`] on every further one. Lines are appended by one write(2) each, so that a reader sees
//! whole lines and perhaps a cut last one, which it passes over: what was not written whole did
//! not happen.
//!
//! The monitor holds the journal's lock as long as it lives. Who gets that lock may clear what is
//! left of the instance, and holds it meanwhile. The journal is the first file that is made in the
//! directory, and the last one that is removed: without one, nothing is owned.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use moat_core::diagnose::{Code, Fault};
use moat_core::fault_point::FaultPoint;
use moat_core::lifecycle::{Journal, Mark};
use moat_core::policy::Decision;
use moat_core::spec::{Bytes, Name};
use serde::{Deserialize, Serialize};

use crate::living::{self, Living};
use crate::lock;
use crate::process::ProcessId;

const JOURNAL: &str = "instance.jsonl";

/// The most that is read of one journal, in bytes; a real one has a few thousand.
const JOURNAL_LIMIT: u64 = 1 << 20;

/// What does not change while an instance lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The instance's id: 12 hexadecimal digits.
    pub id: String,
    /// The workload's name.
    pub name: Name,
    /// The project that it has its name in, if it is kept after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// The backend that made it, by [`Backend::name`](moat_core::workload::Backend::name).
    pub backend: String,
    /// The process that owns it.
    pub monitor: ProcessId,
    /// The memory promised to it.
    pub memory: Bytes,
    /// What was requested and decided, and why.
    pub decision: Decision,
}

/// What a directory of an instance says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The instance's directory.
    pub dir: PathBuf,
    /// Its header; `None` when moat was killed before it was written whole.
    pub header: Option<Header>,
    /// The last phase that was written down.
    pub mark: Option<Mark>,
    /// Whether its monitor lives, or another moat is clearing up after it.
    pub owned: bool,
}

/// Why state can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be {action}", path.display())]
pub struct StateError {
    path: PathBuf,
    action: &'static str,
    source: io::Error,
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Self {
        let full = error.source.kind() == io::ErrorKind::StorageFull;
        let hint =
            if full { "free some space there" } else { "see that this user may write there" };
        Self::new(Code::State, "moat's state can't be kept").hint(hint).because(error)
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError { path: path.to_owned(), action, source }
}

/// The instances of one runtime directory.
#[derive(Debug, Clone)]
pub struct Store {
    runtime: PathBuf,
    instances: PathBuf,
}

impl Store {
    /// The store below a runtime directory, which is there.
    ///
    /// # Errors
    /// When its own directory can't be made.
    pub fn open(runtime: &Path) -> Result<Self, StateError> {
        let instances = runtime.join("instances");
        match fs::create_dir(&instances) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed(&instances, "made")(error))
            }
            _ => Ok(Self { runtime: runtime.to_owned(), instances }),
        }
    }

    /// A directory and a journal for a new instance.
    ///
    /// # Errors
    /// When they can't be made; nothing is left of them.
    pub fn begin(&self, header: &Header) -> Result<FileJournal, StateError> {
        let dir = self.instances.join(&header.id);
        make(&dir)?;
        let begun = FileJournal::claim(&dir).and_then(|mut journal| {
            journal.append(header)?;
            FaultPoint::HeaderWritten.reached();
            journal._living = living::announce(&self.runtime, &header.id);
            Ok(journal)
        });
        begun.inspect_err(|_| {
            // Best effort: a directory without a whole header is swept by the next moat.
            let _ = forget(&dir);
        })
    }

    /// Every instance that has a directory.
    ///
    /// # Errors
    /// When the directory can't be read. One instance's unreadable journal is no error: it is
    /// found without header.
    pub fn list(&self) -> Result<Vec<Found>, StateError> {
        let entries = fs::read_dir(&self.instances).map_err(failed(&self.instances, "read"))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed(&self.instances, "read"))?;
            found.push(Found::look(entry.path()));
        }
        Ok(found)
    }

    /// The memory promised to all that runs.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn committed_memory(&self) -> Result<Bytes, StateError> {
        let living = self.list()?.into_iter().filter(|found| found.owned);
        let sum = living
            .filter_map(|found| found.header)
            .fold(0u64, |sum, header| sum.saturating_add(header.memory.get()));
        Ok(Bytes::new(sum))
    }

    /// The instances whose monitor is gone, one after the other, each locked against other moats
    /// from the moment that it is given. One that another moat is clearing up is not among them.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn orphans(&self) -> Result<impl Iterator<Item = Orphan>, StateError> {
        let entries = fs::read_dir(&self.instances).map_err(failed(&self.instances, "read"))?;
        let living = Living::look(&self.runtime);
        // One that can't be looked at now is found by a later moat.
        Ok(entries.filter_map(move |entry| {
            let entry = entry.ok()?;
            let lives = entry.file_name().to_str().is_some_and(|name| living.has(name));
            if lives { None } else { Orphan::claim(entry.path()).ok()? }
        }))
    }
}

/// What is left of an instance whose monitor is gone.
#[derive(Debug)]
pub struct Orphan {
    /// What was found.
    pub found: Found,
    /// Whether there may be more than a directory: its moat was killed after it had begun.
    pub begun: bool,
    _journal: Option<File>,
}

impl Orphan {
    /// Takes hold of what is in `dir`; `None` when it is owned, or gone.
    fn claim(dir: PathBuf) -> io::Result<Option<Self>> {
        let path = dir.join(JOURNAL);
        let journal = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(journal) => journal,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::bare(dir),
            Err(error) => return Err(error),
        };
        // What another moat has swept since is no orphan any more.
        if !lock::try_take(&journal)? || journal.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        FaultPoint::OrphanLocked.reached();
        let found = Found::read(dir, &journal, false);
        let begun = found.header.is_some() || fs::read_dir(&found.dir)?.count() > 1;
        Ok(Some(Self { found, begun, _journal: Some(journal) }))
    }

    /// Without journal its monitor has not begun, or has ended, or its record was damaged.
    fn bare(dir: PathBuf) -> io::Result<Option<Self>> {
        loop {
            // A monitor that was about to begin makes its directory again.
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => return Ok(None),
            }
            if fs::exists(dir.join(JOURNAL))? {
                return Ok(None);
            }
            // What was in the way may have been a journal that came and went: only what is there
            // without one remains of somebody.
            match fs::read_dir(&dir).map(|mut entries| entries.next().transpose()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                entry => match entry?? {
                    None => {}
                    Some(entry) if entry.file_name() == JOURNAL => return Ok(None),
                    Some(_) => break,
                },
            }
        }
        let found = Found { dir, header: None, mark: None, owned: false };
        Ok(Some(Self { found, begun: true, _journal: None }))
    }
}

/// Makes an instance's directory, for this user alone.
fn make(dir: &Path) -> Result<(), StateError> {
    DirBuilder::new().mode(0o700).create(dir).map_err(failed(dir, "made"))?;
    FaultPoint::DirectoryMade.reached();
    Ok(())
}

/// Removes an instance's directory, its journal last: until then whoever holds its lock owns what
/// is in there.
///
/// # Errors
/// When something can't be removed.
pub fn forget(dir: &Path) -> Result<(), StateError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(dir, "read"))?,
    };
    for entry in entries {
        let entry = entry.map_err(failed(dir, "read"))?;
        let path = entry.path();
        if entry.file_name() == JOURNAL {
            continue;
        }
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        gone(removed).map_err(failed(&path, "removed"))?;
    }
    FaultPoint::RecordsRemoved.reached();
    let journal = dir.join(JOURNAL);
    gone(fs::remove_file(&journal)).map_err(failed(&journal, "removed"))?;
    FaultPoint::JournalRemoved.reached();
    gone(fs::remove_dir(dir)).map_err(failed(dir, "removed"))?;
    FaultPoint::DirectoryRemoved.reached();
    Ok(())
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl Found {
    /// What is in `dir`. A journal that can't be read says as much as one that is not there.
    fn look(dir: PathBuf) -> Self {
        match File::open(dir.join(JOURNAL)) {
            Ok(journal) => {
                let owned = lock::is_taken(&journal).unwrap_or(false);
                Self::read(dir, &journal, owned)
            }
            Err(_) => Self { dir, header: None, mark: None, owned: false },
        }
    }

    fn read(dir: PathBuf, journal: &File, owned: bool) -> Self {
        let mut text = String::new();
        let _ = journal.take(JOURNAL_LIMIT).read_to_string(&mut text);
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let header = lines.next().and_then(|line| serde_json::from_str(line).ok());
        let mark = lines.filter_map(|line| serde_json::from_str(line).ok()).next_back();
        Self { dir, header, mark, owned }
    }
}

/// The journal of one instance, locked.
#[derive(Debug)]
pub struct FileJournal {
    dir: PathBuf,
    file: File,
    /// Spares others a look at this one's lock.
    _living: Option<File>,
}

impl FileJournal {
    /// Makes the journal of a new directory its own. Another moat may have taken either for
    /// another's remains before they were locked: then they are made again.
    fn claim(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(JOURNAL);
        loop {
            let file = match OpenOptions::new().append(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make(dir)?;
                    continue;
                }
                file => file.map_err(failed(&path, "made"))?,
            };
            FaultPoint::JournalMade.reached();
            lock::take(&file).map_err(failed(&path, "locked"))?;
            FaultPoint::JournalLocked.reached();
            if file.metadata().map_err(failed(&path, "read"))?.nlink() > 0 {
                return Ok(Self { dir: dir.to_owned(), file, _living: None });
            }
        }
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), StateError> {
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        written.map_err(failed(&self.dir.join(JOURNAL), "written"))
    }
}

impl Journal for FileJournal {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn record(&mut self, mark: Mark) -> Result<(), Fault> {
        self.append(&mark)?;
        FaultPoint::marked(mark.phase).reached();
        Ok(())
    }

    fn forget(self) -> Result<(), Fault> {
        Ok(forget(&self.dir)?)
    }
}

#[cfg(test)]
mod tests;
