//! `init = false`: the workload itself is PID 1, with what that means.

use anyhow::Result;
use moat_tests::seen::Seen;
use nix::sys::signal::Signal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("init = false\nstop_timeout = \"1s\"")?;
    let first = space.sh("echo $$; kill -TERM $$; echo still here; exit 7")?;
    first.status(7)?.stdout("1\nstill here\n")?.stderr("")?;
    let mut live = space
        .moat(&["sh", "-c", "trap 'exit 8' TERM; echo ready; while true; do sleep 0.05; done"])?
        .start()?;
    live.wait_for("ready\n")?;
    live.signal(Signal::SIGTERM)?;
    let stopped = live.finish()?;
    stopped.status(8)?.stdout("ready\n")?;
    let missing = space.run(&["nosuch"])?;
    missing.refused(127, "not-found")?;
    Ok(vec![first, stopped, missing])
}
