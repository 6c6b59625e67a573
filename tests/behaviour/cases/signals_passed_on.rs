//! Signals that only tell something are passed on; three SIGINTs are a way out.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use nix::sys::signal::Signal;
use std::time::Instant;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    // A shell tells of a child that SIGQUIT has ended.
    let script = "for s in INT USR1 USR2 QUIT; do trap \"echo got $s\" $s; done; \
                  trap 'echo got HUP; exit 7' HUP; \
                  echo ready; while true; do sleep 0.05; done 2> /dev/null";
    let mut live = space.moat(&["sh", "-c", script])?.start()?;
    live.wait_for("ready\n")?;
    for (signal, shown) in [
        (Signal::SIGINT, "got INT\n"),
        (Signal::SIGUSR1, "got USR1\n"),
        (Signal::SIGUSR2, "got USR2\n"),
        (Signal::SIGQUIT, "got QUIT\n"),
        (Signal::SIGHUP, "got HUP\n"),
    ] {
        live.signal(signal)?;
        live.wait_for(shown)?;
    }
    let passed = live.finish()?;
    passed.status(7)?.stderr("")?;

    let script = "trap '' INT; echo ready; while true; do sleep 0.05; done";
    let mut live = space.moat(&["sh", "-c", script])?.start()?;
    live.wait_for("ready\n")?;
    let asked = Instant::now();
    for _ in 0..3 {
        live.signal(Signal::SIGINT)?;
        // Two of the same signal that are pending are one.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let ended = live.finish()?;
    ended.status(137)?.stdout("ready\n")?;
    ensure!(asked.elapsed().as_secs() < 8, "it took {:?}", asked.elapsed());

    let default = space.moat(&["sh", "-c", "echo ready; sleep 100"])?;
    let mut live = default.start()?;
    live.wait_for("ready\n")?;
    live.signal(Signal::SIGINT)?;
    let default = live.finish()?;
    default.stdout("ready\n")?;
    Ok(vec![passed, ended, default])
}
