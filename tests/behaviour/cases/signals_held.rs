//! No signal that ends a process by default ends moat before everything is undone: each is passed
//! on, and it is the workload's own whether it ends by it.

use std::process::Command;

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Those of signal(7) that end a process, come from outside and are in no other case; then two
/// real-time ones.
const NUMBERS: [i32; 11] = [14, 16, 24, 25, 26, 27, 29, 30, 18, 40, 64];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let traps: String =
        NUMBERS.iter().map(|number| format!("trap 'echo got {number}' {number}; ")).collect();
    let script = format!("{traps} trap 'exit 7' HUP; echo ready; while true; do sleep 0.05; done");
    let mut live = space.moat(&["sh", "-c", &script])?.start()?;
    live.wait_for("ready\n")?;
    for number in NUMBERS {
        send(live.pid(), number)?;
        live.wait_for(&format!("got {number}\n"))?;
    }
    send(live.pid(), 1)?;
    let held = live.finish()?;
    held.status(7)?.stderr("")?;

    let mut live = space.moat(&["sh", "-c", "echo ready; exec sleep 300"])?.start()?;
    live.wait_for("ready\n")?;
    send(live.pid(), 14)?;
    let ended = live.finish()?;
    ended.status(128 + 14)?.stdout("ready\n")?.stderr("")?;
    Ok(vec![held, ended])
}

/// By number: nix has no names for the real-time ones.
fn send(pid: u32, number: i32) -> Result<()> {
    let line = format!("kill -{number} {pid}");
    let status = Command::new("sh").args(["-c", &line]).status()?;
    ensure!(status.success(), "{line} failed");
    Ok(())
}
