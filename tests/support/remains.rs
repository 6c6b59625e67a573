//! What a run has on the host, and may leave behind: processes, mounts, cgroups, state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::moat::Moat;
use crate::workspace::Workspace;

/// The variable by which a process is known to belong to a test's moat: whatever moat forks keeps
/// its environment, and the spec gives it to the workload.
const KEY: &str = "MOAT_TEST_MARK";

/// How long the kernel may take to end what lost its moat.
const SETTLED: Duration = Duration::from_secs(10);

/// A moat with a runtime directory of its own, whose processes can be told from all others.
#[derive(Debug)]
pub struct Watched {
    mark: String,
    runtime: PathBuf,
}

impl Watched {
    /// A runtime directory in this workspace.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new(space: &Workspace) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime = space.path().join("runtime");
        fs::create_dir_all(&runtime)?;
        Ok(Self { mark, runtime })
    }

    /// The line of a spec by which its workload is known, too.
    pub fn spec_line(&self) -> String {
        format!("env = {{ {KEY} = \"{}\" }}", self.mark)
    }

    /// This moat, with the runtime directory and the mark.
    #[must_use]
    pub fn watch(&self, moat: Moat) -> Moat {
        moat.env("XDG_RUNTIME_DIR", &self.runtime).env(KEY, &self.mark)
    }

    /// The ids of the instances that have a directory.
    pub fn instances(&self) -> Vec<String> {
        let entries = fs::read_dir(self.runtime.join("moat/instances"));
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Whether an instance had its record before its moat was killed: else nothing was made yet, of
    /// which there could be something to say.
    pub fn has_begun(&self, id: &str) -> bool {
        let journal = self.runtime.join("moat/instances").join(id).join("instance.jsonl");
        fs::read_to_string(journal).is_ok_and(|text| text.contains('\n'))
    }

    /// The pid that stands for the one workload that runs: by its journal, the container's first
    /// process or the micro-VM's VMM.
    pub fn pid(&self) -> Option<i32> {
        let instances = self.runtime.join("moat/instances");
        let journal = instances.join(self.instances().first()?).join("instance.jsonl");
        let text = fs::read_to_string(journal).ok()?;
        let marks = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let pid = marks.filter_map(|mark| mark["pid"].as_i64()).next_back()?;
        i32::try_from(pid).ok()
    }

    /// The processes that are left, by pid and command line. Zombies hold nothing, and count no
    /// more.
    pub fn processes(&self) -> Vec<String> {
        let wanted = format!("{KEY}={}", self.mark);
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let marked = entries.filter(|entry| {
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        });
        let shown = marked.map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            format!("{} {line}", entry.file_name().to_string_lossy())
        });
        shown.collect()
    }

    /// Checks that no process is left, giving the kernel a moment.
    ///
    /// # Errors
    /// When there is one.
    pub fn no_process(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLED;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "processes are left: {left:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Checks that nothing at all is left: no process, no state, no mount on the host, no cgroup
    /// of these instances.
    ///
    /// # Errors
    /// When there is something.
    pub fn nothing(&self, space: &Workspace, instances: &[String]) -> Result<()> {
        self.no_process()?;
        let state = self.instances();
        ensure!(state.is_empty(), "state is left: {state:?}");
        let mounts = mounts_below(space.path());
        ensure!(mounts.is_empty(), "mounts are left: {mounts:#?}");
        for id in instances {
            let groups = cgroups_named(id);
            ensure!(groups.is_empty(), "cgroups are left: {groups:#?}");
        }
        Ok(())
    }
}

/// This mount namespace's mounts that have to do with this directory.
fn mounts_below(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned).collect()
}

/// The cgroups, of any hierarchy, with this in their name.
pub fn cgroups_named(part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(part) {
                found.push(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}
