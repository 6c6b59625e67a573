//! What is known of each instance, on disk: one directory each, with a journal of its phases.
//!
//! The journal, `instance.jsonl`, is a [`Header`] on its first line and a
//! [`Mark`] on every further one. Lines are appended by one write(2) each, so that a reader sees
//! whole lines and perhaps a cut last one, which it passes over: what was not written whole did
//! not happen.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::{Journal, Mark};
use moat_core::policy::Decision;
use moat_core::spec::{Bytes, Name};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

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
            _ => Ok(Self { instances }),
        }
    }

    /// A directory and a journal for a new instance.
    ///
    /// # Errors
    /// When they can't be made; nothing is left of them.
    pub fn begin(&self, header: &Header) -> Result<FileJournal, StateError> {
        let dir = self.instances.join(&header.id);
        DirBuilder::new().mode(0o700).create(&dir).map_err(failed(&dir, "made"))?;
        FileJournal::begin(&dir, header).inspect_err(|_| {
            // Best effort: a directory without a whole header is swept by the next moat.
            let _ = fs::remove_dir_all(&dir);
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
            found.push(read(entry.path()));
        }
        Ok(found)
    }

    /// The memory promised to all that runs.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn committed_memory(&self) -> Result<Bytes, StateError> {
        let living = self.list()?.into_iter().filter_map(|found| found.header);
        let sum = living
            .filter(|header| header.monitor.is_alive())
            .fold(0u64, |sum, header| sum.saturating_add(header.memory.get()));
        Ok(Bytes::new(sum))
    }

    /// The instances whose monitor is gone, held so that no other moat sweeps them at the same
    /// time. `None` when another moat is at it.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn orphans(&self) -> Result<Option<Orphans>, StateError> {
        let all = self.list()?;
        // A directory without a header may belong to a moat that is about to write it.
        let orphaned = |found: &Found| match &found.header {
            Some(header) => !header.monitor.is_alive(),
            None => is_stale(&found.dir),
        };
        let orphans: Vec<_> = all.into_iter().filter(orphaned).collect();
        if orphans.is_empty() {
            return Ok(Some(Orphans { found: orphans, _lock: None }));
        }
        let file = File::open(&self.instances).map_err(failed(&self.instances, "opened"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                // What another moat has swept since is no orphan any more.
                let found = orphans.into_iter().filter(|found| found.dir.exists()).collect();
                Ok(Some(Orphans { found, _lock: Some(lock) }))
            }
            Err(_) => Ok(None),
        }
    }
}

/// Instances without a monitor, locked against other moats.
#[derive(Debug)]
pub struct Orphans {
    /// What was found.
    pub found: Vec<Found>,
    _lock: Option<Flock<File>>,
}

/// A header is written within microseconds of its directory; a second is ample.
fn is_stale(dir: &Path) -> bool {
    let age = fs::metadata(dir).and_then(|found| found.modified()).map(|time| time.elapsed());
    matches!(age, Ok(Ok(age)) if age.as_secs() >= 1)
}

/// Removes an instance's directory.
///
/// # Errors
/// When it can't be removed.
pub fn forget(dir: &Path) -> Result<(), StateError> {
    fs::remove_dir_all(dir).map_err(failed(dir, "removed"))
}

fn read(dir: PathBuf) -> Found {
    let mut text = String::new();
    let journal = File::open(dir.join(JOURNAL));
    // A journal that can't be read says as much as one that is not there.
    let _ = journal.map(|file| file.take(JOURNAL_LIMIT).read_to_string(&mut text));
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let header = lines.next().and_then(|line| serde_json::from_str(line).ok());
    let mark = lines.filter_map(|line| serde_json::from_str(line).ok()).next_back();
    Found { dir, header, mark }
}

/// The journal of one instance.
#[derive(Debug)]
pub struct FileJournal {
    dir: PathBuf,
    file: File,
}

impl FileJournal {
    fn begin(dir: &Path, header: &Header) -> Result<Self, StateError> {
        let path = dir.join(JOURNAL);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(failed(&path, "made"))?;
        let mut journal = Self { dir: dir.to_owned(), file };
        journal.append(header)?;
        Ok(journal)
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
        Ok(self.append(&mark)?)
    }

    fn forget(self) -> Result<(), Fault> {
        Ok(forget(&self.dir)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_core::lifecycle::Phase;

    fn header(id: &str, monitor: ProcessId) -> Header {
        let decision = serde_json::json!({
            "isolation": "container",
            "reason": { "by": "strongest" },
            "requested": "auto",
            "floor": { "isolation": "container", "by": null },
            "policy": "dev", "rules": [], "candidates": [], "warnings": [],
        });
        Header {
            id: id.to_owned(),
            name: serde_json::from_value("api".into()).unwrap(),
            backend: "container".to_owned(),
            monitor,
            memory: Bytes::mib(512),
            decision: serde_json::from_value(decision).unwrap(),
        }
    }

    fn gone() -> ProcessId {
        ProcessId { pid: std::process::id(), start_time: 1 }
    }

    #[test]
    fn a_journal_is_read_back_and_a_cut_line_is_passed_over() {
        let runtime = tempfile::tempdir().unwrap();
        let store = Store::open(runtime.path()).unwrap();
        let header = header("0123456789ab", ProcessId::own().unwrap());
        let mut journal = store.begin(&header).unwrap();
        let mark = Mark { phase: Phase::Running, pid: Some(7), exit: None };
        journal.record(mark).unwrap();
        journal.file.write_all(b"{\"phase\":\"ended\"").unwrap();

        let found = store.list().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].header, Some(header));
        assert_eq!(found[0].mark, Some(mark));
    }

    #[test]
    fn only_what_lost_its_monitor_is_an_orphan() {
        let runtime = tempfile::tempdir().unwrap();
        let store = Store::open(runtime.path()).unwrap();
        store.begin(&header("aaaaaaaaaaaa", ProcessId::own().unwrap())).unwrap();
        store.begin(&header("bbbbbbbbbbbb", gone())).unwrap();

        let orphans = store.orphans().unwrap().unwrap();
        let dirs: Vec<_> = orphans.found.iter().map(|found| found.dir.clone()).collect();
        assert_eq!(dirs, [store.instances.join("bbbbbbbbbbbb")]);
        assert!(store.orphans().unwrap().is_none(), "a second sweeper must stand back");
        assert_eq!(store.committed_memory().unwrap(), Bytes::mib(512), "orphans hold no memory");
    }

    #[test]
    fn a_truncated_or_binary_journal_is_found_without_header() {
        let runtime = tempfile::tempdir().unwrap();
        let store = Store::open(runtime.path()).unwrap();
        for (id, text) in [("a", &b"{\"id\":"[..]), ("b", b"\xff\xfe\0\n"), ("c", b"")] {
            let dir = store.instances.join(id);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(JOURNAL), text).unwrap();
        }
        let found = store.list().unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|found| found.header.is_none() && found.mark.is_none()));
    }
}
