//! moat killed with SIGKILL, at any moment: its workload ends with it, and what it could not
//! remove the next run removes, and says so.

use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;

    // The first run may find out things about this machine that later ones remember.
    watched.watch(space.moat(&["true"])?).run()?.status(0)?;
    let started = Instant::now();
    let mut live = watched.watch(space.moat(&["sh", "-c", "echo ready; sleep 1000"])?).start()?;
    live.wait_for("ready\n")?;
    let start = started.elapsed();
    kill(&space, &watched, live, true)?;

    // At moments spread over a start, and a little beyond it.
    let rounds = match wall {
        Wall::Container => 12,
        Wall::Vm => 5,
    };
    for round in 0..rounds {
        let live = watched.watch(space.moat(&["sleep", "1000"])?).start()?;
        thread::sleep(start.mul_f64(1.2) * round / rounds);
        kill(&space, &watched, live, false)?;
    }
    Ok(Vec::new())
}

fn kill(
    space: &Workspace,
    watched: &Watched,
    live: moat_tests::live::Live,
    running: bool,
) -> Result<()> {
    live.signal(Signal::SIGKILL)?;
    let killed: Seen = live.finish()?;
    ensure!(killed.status == 137, "{}", killed.shown());
    watched.no_process()?;
    let left = watched.instances();
    ensure!(!running || left.len() == 1, "its state should still be there: {left:?}");
    let begun: Vec<_> = left.iter().filter(|id| watched.has_begun(id)).collect();
    let next = watched.watch(space.moat(&["true"])?).run()?;
    next.status(0)?.stdout("")?;
    match begun.as_slice() {
        [] => next.stderr("")?,
        [id, ..] => next.stderr_has("cleaned up after")?.stderr_has(id)?,
    };
    watched.nothing(space, &left)
}
