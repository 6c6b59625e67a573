//! SIGTERM to moat is the stop signal to the workload, which then has time to end as it likes.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use nix::sys::signal::Signal;
use std::time::Instant;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let run = |lines: &str, trap: &str| {
        space.spec(lines)?;
        let script = format!(
            "trap 'echo stopping; exit 3' {trap}; echo ready; while true; do sleep 0.05; done"
        );
        let mut live = space.moat(&["sh", "-c", &script])?.start()?;
        live.wait_for("ready\n")?;
        let asked = Instant::now();
        live.signal(Signal::SIGTERM)?;
        let seen = live.finish()?;
        seen.status(3)?.stdout("ready\nstopping\n")?.stderr("")?;
        ensure!(asked.elapsed().as_secs() < 20, "it was let wait for {:?}", asked.elapsed());
        Ok(seen)
    };
    Ok(vec![run("stop_timeout = \"30s\"", "TERM")?, run("stop_signal = \"SIGUSR2\"", "USR2")?])
}
