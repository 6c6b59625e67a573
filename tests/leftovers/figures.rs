//! What there is of everything that a run could leave, by the kernel's own figures.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long something may take to be gone.
const SETTLED: Duration = Duration::from_secs(20);

/// All figures at one moment.
pub(crate) struct Figures {
    figures: Vec<Figure>,
    groups: BTreeSet<PathBuf>,
}

struct Figure {
    name: &'static str,
    count: usize,
    /// Whether it can be told from what else this machine does, so that it must be the same again.
    ours: bool,
}

impl Figures {
    /// All of now; files are those below `dir`.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let groups = groups();
        let mut figures = Vec::new();
        let mut add = |name, count, ours| figures.push(Figure { name, count, ours });
        add("mounts below the tests' directory", mounts(Some(dir)), true);
        add("files below it: runtime, home, tmp, root", files(dir)?, true);
        add("descriptors of the process that starts them", entries("/proc/self/fd"), true);
        add("loop devices in use", loops(), true);
        add("System V shared memory, semaphores, queues", system_v(), true);
        add("POSIX message queues", entries("/dev/mqueue"), true);
        add("cgroups of moat's", groups.len(), false);
        add("processes of moat's, zombies too", processes(), false);
        add("mounts of this machine", mounts(None), false);
        add("network namespaces with a process", network_namespaces(), false);
        add("network interfaces", lines("/proc/net/dev"), false);
        add("keys of user 0 and of containers", keys(), false);
        add("open files of this machine", open_files(), false);
        for name in ["net_namespace", "pid_namespace", "mnt_cache", "user_namespace"] {
            if let Some(count) = slab(name) {
                add(name, count, false);
            }
        }
        Ok(Self { figures, groups })
    }

    /// All of now, once what was not there before is gone or time is up: the kernel takes its time
    /// with some, and others use this machine too.
    pub(crate) fn again(&self, dir: &Path, ids: &BTreeSet<String>) -> Result<Self> {
        let until = Instant::now() + SETTLED;
        loop {
            let now = Self::take(dir)?;
            if self.compare(&now, ids).is_ok() || Instant::now() > until {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Checks that nothing is there now that was not before, and no cgroup of these instances.
    pub(crate) fn compare(&self, now: &Self, ids: &BTreeSet<String>) -> Result<()> {
        for (before, now) in self.figures.iter().zip(&now.figures).filter(|(figure, _)| figure.ours)
        {
            ensure!(now.count <= before.count, "{}: {} and {}", now.name, before.count, now.count);
        }
        let is_ours = |group: &&PathBuf| {
            group.file_name().is_some_and(|name| ids.contains(&*name.to_string_lossy()))
        };
        let left: Vec<_> = now.groups.iter().filter(is_ours).collect();
        ensure!(left.is_empty(), "cgroups are left: {left:#?}");
        Ok(())
    }

    /// Both, side by side.
    pub(crate) fn table(&self, now: &Self) -> String {
        let mut text = format!("{:<46} {:>8} {:>8}\n", "", "before", "after");
        for (before, now) in self.figures.iter().zip(&now.figures) {
            let note = if before.ours { "" } else { "  (of all that runs here)" };
            text += &format!("{:<46} {:>8} {:>8}{note}\n", now.name, before.count, now.count);
        }
        text
    }
}

fn entries(dir: &str) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn lines(file: &str) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

fn mounts(below: Option<&Path>) -> usize {
    let below = below.map(|dir| dir.display().to_string()).unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter(|line| line.contains(&below)).count()
}

fn files(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += files(&entry.path())?;
        }
    }
    Ok(count)
}

fn loops() -> usize {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices.filter(|device| device.path().join("loop/backing_file").exists()).count()
}

fn system_v() -> usize {
    ["shm", "sem", "msg"].iter().map(|kind| lines(&format!("/proc/sysvipc/{kind}"))).sum()
}

/// Every directory below one called `moat`, in all hierarchies.
fn groups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![(PathBuf::from("/sys/fs/cgroup"), false)];
    while let Some((dir, ours)) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if ours {
                    found.insert(entry.path());
                }
                open.push((entry.path(), ours || entry.file_name() == "moat"));
            }
        }
    }
    found
}

fn each_process() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().is_ok();
    entries.filter(numbers).map(|entry| entry.path())
}

fn processes() -> usize {
    let is_moat =
        |dir: &PathBuf| fs::read_to_string(dir.join("comm")).is_ok_and(|name| name == "moat\n");
    each_process().filter(is_moat).count()
}

fn network_namespaces() -> usize {
    let of = |dir: PathBuf| fs::metadata(dir.join("ns/net")).map(|found| found.ino()).ok();
    each_process().filter_map(of).collect::<BTreeSet<_>>().len()
}

/// The second field, `keys/instantiated`, of user 0 and of ids that no one has (proc(5)).
fn keys() -> usize {
    let users = fs::read_to_string("/proc/key-users").unwrap_or_default();
    let ours = users.lines().filter_map(|line| {
        let (id, rest) = line.trim().split_once(':')?;
        let id: u32 = id.trim().parse().ok()?;
        let keys = rest.split_whitespace().nth(1)?.split('/').next()?.parse::<usize>().ok()?;
        (id == 0 || id > 65535).then_some(keys)
    });
    ours.sum()
}

fn open_files() -> usize {
    let text = fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
    text.split_whitespace().next().and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// The objects in use of one kind (slabinfo(5)), where the kernel tells.
fn slab(name: &str) -> Option<usize> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
