//! A guest that answers nobody holds nobody: who asks it is told so, and a stop ends its VMM.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use moat_tests::running::Running;
use moat_tests::seen::Seen;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("stop_timeout = \"1s\"")?;
    let mut running = Running::start(&space)?;
    let listed = running.verb(&["ps", "--format", "json"])?.run()?;
    let pid = listed.status(0)?.json()?[0]["pid"].as_i64().context("it has a pid")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGSTOP)?;
    let silent = running.verb(&["stats", "case"])?.run()?;
    silent.status(125)?.stderr_has("the guest does not say what it uses")?;
    // Its monitor serves others meanwhile.
    let listed = running.verb(&["ps"])?.run()?;
    listed.status(0)?.stdout_has("running")?;
    let asked = Instant::now();
    running.live().signal(Signal::SIGTERM)?;
    running.finish()?.status(137)?;
    ensure!(asked.elapsed().as_secs() < 60, "it took {:?}", asked.elapsed());
    ensure!(!std::fs::exists(format!("/proc/{pid}"))?, "process {pid} is left");
    Ok(Vec::new())
}
