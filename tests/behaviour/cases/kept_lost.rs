//! The monitor of a workload in the background is killed: the workload ends with it, all that is said
//! of it is true, and it can be removed.

use anyhow::{Result, ensure};
use moat_tests::kept::Kept;
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    let kept = Kept::new(&space)?;
    let moat = watched.watch(kept.moat(&[], "echo ready; sleep 1000")?);
    let started = moat.run()?;
    let id = started.status(0)?.out().trim_end().to_owned();
    kept.verb(&["logs", "--follow", "case"])?.start()?.wait_for("ready\n")?;
    kill(Pid::from_raw(kept.monitor("case")?), Signal::SIGKILL)?;
    watched.no_process()?;

    let listed = kept.ask(&["ps", "--all", "--format", "json"])?;
    listed.status(0)?.stderr_has("cleaned up after")?;
    let one = &listed.json()?[0];
    ensure!(
        one["id"] == id.as_str() && one["state"] == "ended" && one["status"].is_null(),
        "{one}"
    );
    let waited = kept.ask(&["wait", "case"])?;
    waited.refused(125, "state")?.stderr_has("is not known")?;
    let logs = kept.ask(&["logs", "case"])?;
    logs.status(0)?.stdout("ready\n")?;
    kept.moat(&[], "true")?.run()?.refused(125, "in-use")?.stderr_has("moat rm case")?;
    kept.ask(&["rm", "case"])?.status(0)?;
    ensure!(kept.dirs().is_empty(), "something is kept");
    watched.nothing(&space, &[id])?;
    Ok(vec![logs])
}
