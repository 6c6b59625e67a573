//! A paused workload can be stopped, killed, and cleared up after.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::running::Running;
use moat_tests::seen::Seen;
use nix::sys::signal::Signal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    if wall == Wall::Container && !host::is_root() {
        moat_tests::skip!("pausing a container takes a cgroup, which a plain user may not have");
    }
    let space = wall.workspace()?;
    space.spec("")?;
    let script = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start_with(&space, script)?;
    running.verb(&["pause", "case"])?.run()?.status(0)?;
    running.live().signal(Signal::SIGTERM)?;
    running.finish()?.status(5)?.stdout_has("heard")?;

    // The third ctrl-C ends it at once.
    let mut running = Running::start_with(&space, "trap '' INT")?;
    running.verb(&["pause", "case"])?.run()?.status(0)?;
    for _ in 0..3 {
        running.live().signal(Signal::SIGINT)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    running.finish()?.status(137)?;

    let mut running = Running::start(&space)?;
    running.verb(&["pause", "case"])?.run()?.status(0)?;
    let listed = running.verb(&["ps", "--format", "json"])?.run()?;
    let pid = listed.status(0)?.json()?[0]["pid"].as_u64().context("it has a pid")?;
    running.live().signal(Signal::SIGKILL)?;
    // It ends a moment later.
    let began = Instant::now();
    let said = loop {
        let seen = running.verb(&["ps"])?.run()?;
        seen.status(0)?;
        if !seen.stderr.is_empty() || began.elapsed() > Duration::from_secs(60) {
            break seen.err();
        }
    };
    ensure!(said.contains("cleaned up after case"), "{said}");
    // Whoever inherits orphans may not have reaped it yet.
    let left = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ensure!(left.is_empty() || left.contains("State:\tZ"), "process {pid} is left: {left}");
    Ok(Vec::new())
}
