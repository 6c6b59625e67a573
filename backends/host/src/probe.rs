//! What was found out about this machine, kept until something changes that could change the
//! answer: a probe that runs a tiny guest is no part of a container's start.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use moat_core::diagnose::Missing;
use moat_core::fault_point::FaultPoint;
use serde::{Deserialize, Serialize};

use crate::procfs;

/// The most that is read of a kept answer, in bytes.
const LIMIT: u64 = 64 << 10;

/// Answers of probes, in the runtime directory.
#[derive(Debug, Clone)]
pub struct ProbeCache {
    dir: PathBuf,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    missing: Vec<Missing>,
}

impl ProbeCache {
    /// The answers kept below a runtime directory, good for this boot and this executable alone.
    pub fn new(runtime: &Path) -> Self {
        Self { dir: runtime.to_owned(), key: key() }
    }

    /// The kept answer, or a new one from `probe`. `extra` is what else the answer depends on.
    pub fn get(
        &self,
        name: &str,
        extra: &str,
        probe: impl FnOnce() -> Vec<Missing>,
    ) -> Vec<Missing> {
        let key = format!("{} {extra}", self.key);
        let path = self.dir.join(format!("probe-{name}.json"));
        if let Some(kept) = read(&path).filter(|kept| kept.key == key) {
            return kept.missing;
        }
        let kept = Kept { key, missing: probe() };
        // An answer that can't be kept is found out again the next time.
        let _ = Self::keep(&path, &kept);
        kept.missing
    }

    /// In place, so that no other file can be left behind. One that is cut short, or that two moats
    /// have written at once, is no JSON: then the answer is found out again.
    fn keep(path: &Path, kept: &Kept) -> std::io::Result<()> {
        let mut file = File::create(path)?;
        FaultPoint::ProbeBegun.reached();
        file.write_all(&serde_json::to_vec(kept)?)
    }
}

fn read(path: &Path) -> Option<Kept> {
    let known = fs::metadata(path).ok()?;
    if known.len() > LIMIT {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn key() -> String {
    let boot = procfs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let exe = fs::metadata("/proc/self/exe")
        .map(|exe| format!("{}:{}:{}:{}", exe.dev(), exe.ino(), exe.mtime(), exe.mtime_nsec()))
        .unwrap_or_default();
    format!("{} {exe}", boot.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_until_what_it_depends_on_changes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ProbeCache::new(dir.path());
        let answer = |what: &str| vec![Missing { what: what.to_owned(), hint: String::new() }];
        assert_eq!(cache.get("vm", "1", || answer("first")), answer("first"));
        assert_eq!(cache.get("vm", "1", || answer("second")), answer("first"));
        assert_eq!(cache.get("vm", "2", || answer("third")), answer("third"));
        fs::write(dir.path().join("probe-vm.json"), b"{").unwrap();
        assert_eq!(cache.get("vm", "2", || answer("fourth")), answer("fourth"));
    }
}
