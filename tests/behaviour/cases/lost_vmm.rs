//! A micro-VM whose VMM is killed: moat says that it lost it, and leaves nothing.

use anyhow::{Context, Result};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    let mut live = watched.watch(space.moat(&["sh", "-c", "echo ready; sleep 1000"])?).start()?;
    live.wait_for("ready\n")?;
    let vmm = watched.pid().context("no pid is on record")?;
    kill(Pid::from_raw(vmm), Signal::SIGKILL)?;
    let lost = live.finish()?;
    lost.status(125)?.stdout("ready\n")?.stderr_has("error[microvm]: ")?.stderr_has("hint: ")?;
    watched.nothing(&space, &[])?;
    Ok(Vec::new())
}
