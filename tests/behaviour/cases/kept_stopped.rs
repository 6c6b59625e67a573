//! A workload in the background ends as it is asked to: by its stop signal, within its time, by any
//! signal, or at once.

use anyhow::{Result, ensure};
use moat_tests::kept::Kept;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    // Longer than any of this may take: who waits for it fails.
    space.spec("stop_signal = \"SIGUSR1\"\nstop_timeout = \"1000s\"")?;
    let kept = Kept::new(&space)?;
    let wait = "echo ready; while :; do sleep 0.05; done";

    let asked = format!("trap 'echo asked; exit 5' USR1; {wait}");
    kept.start(&[], &asked)?;
    ready(&kept)?;
    kept.ask(&["rm", "case"])?.refused(125, "in-use")?.stderr_has("moat stop")?;
    let stopped = kept.ask(&["stop", "case"])?;
    stopped.status(0)?.stdout_has("has ended with 5")?;
    let said = kept.ask(&["logs", "case"])?;
    said.status(0)?.stdout("ready\nasked\n")?;
    kept.ask(&["rm", "case"])?.status(0)?;

    let deaf = format!("trap '' USR1; {wait}");
    kept.start(&[], &deaf)?;
    ready(&kept)?;
    let stopped = kept.ask(&["stop", "--timeout", "300ms", "case"])?;
    stopped.status(0)?.stdout_has("has ended with 137")?;
    kept.ask(&["rm", "case"])?.status(0)?;

    let heard = format!("trap 'echo heard; exit 6' HUP; {wait}");
    kept.start(&[], &heard)?;
    ready(&kept)?;
    kept.ask(&["kill", "-s", "hup", "case"])?.status(0)?.stdout("")?;
    let ended = kept.ask(&["wait", "case"])?;
    ended.status(6)?;
    kept.ask(&["kill", "case"])?.refused(125, "not-running")?;
    kept.ask(&["rm", "case"])?.status(0)?;

    kept.start(&[], &deaf)?;
    ready(&kept)?;
    kept.ask(&["rm", "--force", "case"])?.status(0)?;
    ensure!(kept.dirs().is_empty(), "something is kept");
    Ok(vec![said, ended])
}

/// Waits until the workload has set its traps.
fn ready(kept: &Kept<'_>) -> Result<()> {
    let mut follow = kept.verb(&["logs", "--follow", "case"])?.start()?;
    follow.wait_for("ready\n")
}
