//! A paused workload stands still, takes no process, tells what it uses, and goes on with a clock that
//! is right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::running::Running;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// How long it stands still: longer than a clock may be off.
const LONG: Duration = Duration::from_secs(4);

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    if wall == Wall::Container && !host::is_root() {
        moat_tests::skip!("pausing a container takes a cgroup, which a plain user may not have");
    }
    let space = wall.workspace()?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    let act = |running: &Running<'_>, verb| running.verb(&[verb, "case"])?.run();
    clock_is_right(&running)?;
    act(&running, "pause")?.status(0)?.stdout_has("is paused")?;
    act(&running, "pause")?.status(0)?;
    running.verb(&["ps"])?.run()?.status(0)?.stdout_has("paused")?;
    // What it is told it says again only when it goes on.
    running.live().write(b"echoed\n")?;
    std::thread::sleep(LONG);
    ensure!(!running.live().out().contains("echoed"), "it goes on");
    let stats = act(&running, "stats")?;
    stats.status(0)?.stdout_has("case")?.stdout_has("of 512MiB")?.stderr("")?;
    let refused =
        running.verb(&["exec", "case", "true"])?.timeout(Duration::from_secs(60)).run()?;
    refused.refused(125, "not-running")?.stderr_has("is paused")?.stderr_has("moat resume")?;
    act(&running, "resume")?.status(0)?.stdout_has("is running")?;
    running.live().wait_for("echoed")?;
    act(&running, "resume")?.status(0)?;
    clock_is_right(&running)?;
    running.finish()?.status(0)?.stdout_has("ended")?.stderr("")?;
    Ok(Vec::new())
}

/// Its clock is the host's, give or take what asking takes.
fn clock_is_right(running: &Running<'_>) -> Result<()> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs());
    let before = now()?;
    let told = running.exec(&["date", "+%s"])?;
    let after = now()?;
    let told: u64 = told.status(0)?.out().trim().parse().context("date says no number")?;
    ensure!((before - 1..=after + 1).contains(&told), "{told} is not in {before} to {after}");
    Ok(())
}
