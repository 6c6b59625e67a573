//! /sys/fs/cgroup shows the workload's own group, where it has one in the tree of cgroup v2, or
//! nothing: never the host's groups.

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Processes of another pid namespace are listed as 0 (cgroups(7)).
const SCRIPT: &str = "find /sys/fs/cgroup -name cgroup.procs | while read file; do \
                      grep -qx 0 $file && echo \"$file lists the host's\"; done; \
                      find /sys/fs/cgroup -mindepth 1 -type d; echo end";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let own = space.sh(SCRIPT)?;
    own.status(0)?.stdout("end\n")?;
    if wall == Wall::Container && host::is_root() {
        // Where a sysfs of its own is refused, the host's is shown (mount_too_revealing()).
        let covered = "mount -t tmpfs none /sys/kernel; exec \"$@\"";
        let starter = ["unshare", "--mount", "sh", "-ec", covered, "sh"];
        let copied = space.through(&starter, &space.run_args(&["sh", "-c", SCRIPT]))?.run()?;
        copied.status(0)?.stdout("end\n")?;
    }
    Ok(vec![own])
}
