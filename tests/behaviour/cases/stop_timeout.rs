//! A workload that ignores its stop signal is killed when its time is over.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use nix::sys::signal::Signal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("stop_timeout = \"1s\"")?;
    let script = "trap '' TERM; echo ready; while true; do sleep 0.05; done";
    let mut live = space.moat(&["sh", "-c", script])?.start()?;
    live.wait_for("ready\n")?;
    let asked = Instant::now();
    live.signal(Signal::SIGTERM)?;
    let seen = live.finish()?;
    let took = asked.elapsed();
    seen.status(137)?.stdout("ready\n")?;
    ensure!(took >= Duration::from_secs(1), "it had only {took:?}");
    ensure!(took < Duration::from_secs(8), "it was let live for {took:?}");
    Ok(vec![seen])
}
