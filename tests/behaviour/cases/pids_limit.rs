//! `resources.pids`: no more processes than that, and the same number on both walls.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

const LIMIT: usize = 20;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec(&format!("[workload.case.resources]\npids = {LIMIT}"))?;
    // The shell ends itself when it can't fork.
    let seen = space.sh("while true; do sleep 100 & echo forked; done")?;
    seen.status(2)?.stderr_has("can't fork: Resource temporarily unavailable")?;
    let forked = seen.out().lines().count();
    // All but the shell and moat's reaper.
    ensure!((LIMIT - 3..LIMIT).contains(&forked), "{forked} processes of {LIMIT}");
    Ok(vec![seen])
}
