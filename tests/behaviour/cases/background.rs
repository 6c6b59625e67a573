//! The workload's end is its first process's: what it leaves in the background neither keeps the
//! run alive nor lives on, and what dies before it is reaped.

use std::time::Instant;

use anyhow::{Result, ensure};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    let started = Instant::now();
    // It holds stdout and stderr open, and has left its parent.
    let script = "(setsid sleep 1000 &); sleep 1000 & echo out; exit 5";
    let left = watched.watch(space.moat(&["sh", "-c", script])?).run()?;
    left.status(5)?.stdout("out\n")?.stderr("")?;
    ensure!(started.elapsed().as_secs() < 60, "it was kept alive for {:?}", started.elapsed());
    watched.nothing(&space, &[])?;

    let orphans = space.sh("for i in 1 2 3 4 5 6 7 8; do (sleep 0.1 &); done; (sleep 1000 & \
         echo $! > /tmp/orphan); sleep 1; awk '{ print $4 }' /proc/$(cat /tmp/orphan)/stat; \
         grep -c '^State:.Z' /proc/[0-9]*/status | grep -vc ':0$'")?;
    orphans.stdout("1\n0\n")?.stderr("")?;
    Ok(vec![left, orphans])
}
