//! Limits can't be lifted by cgroup files.

use std::fs::{self, OpenOptions};

use crate::cases::Case;
use crate::inside::{Tries, number};

pub(super) const CASE: Case = Case::new(
    "cgroup_files",
    "makes a cgroup, moves into it, and writes limits, in whatever hierarchy is below /sys/fs/cgroup",
    attack,
);

/// Of v1, of hybrid, and of v2.
const TOPS: [&str; 3] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// What is in the group that the workload is in itself, where that is shown.
const OWN: [&str; 4] = ["cgroup.procs", "memory.max", "pids.max", "cgroup.kill"];

fn attack(tries: &Tries, _: &[&str]) {
    let name = format!("moat-attack-{}", std::process::id());
    let made = TOPS.map(|top| (top, fs::create_dir(format!("{top}/{name}"))));
    let Some((top, _)) = made.iter().find(|(_, made)| made.is_ok()) else {
        let [_, _, (_, refusal)] = made;
        let refusal = refusal.map_err(|error| number(&error));
        tries.of("make a group", refusal.map(|()| "made"));
        let files = TOPS.into_iter().flat_map(|top| OWN.map(|file| format!("{top}/{file}")));
        let open = |file: &String| OpenOptions::new().write(true).open(file).is_ok();
        match files.filter(open).collect::<Vec<_>>().as_slice() {
            [] => tries.refused("write its files", "none can be opened for writing"),
            open => tries.got("write its files", open.join(", ")),
        }
        return;
    };
    // One of the test's own, and nothing else is touched.
    let group = format!("{top}/{name}");
    tries.got("make a group", top);
    tries.apart("write its files", |tries| {
        let joined = fs::write(format!("{group}/cgroup.procs"), "0");
        let joined = joined.map_err(|error| number(&error));
        tries.of("write its files", joined.map(|()| "joined it"));
    });
    // Its one process has ended.
    let _ = fs::remove_dir(&group);
}
