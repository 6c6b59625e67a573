//! On a terminal a further process has one of its own, in the workload's own /dev/pts.

use anyhow::{Result, ensure};
use moat_tests::running::Running;
use moat_tests::seen::Seen;
use moat_tests::terminal::Terminal;

use super::terminal::dialogue;
use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let running = Running::start(&space)?;
    dialogue(|script| running.verb(&["exec", "-it", "case", "sh", "-c", script]))?;

    // Found by itself, and the user's own; a key ends it.
    let moat = running.verb(&[
        "exec",
        "-u",
        "app",
        "case",
        "sh",
        "-c",
        "stat -c %u $(tty); echo up; exec sleep 60",
    ])?;
    let mut keyed = Terminal::start(moat, 80, 24)?;
    keyed.wait_for("1000\r\nup\r\n")?;
    keyed.send(b"\x03")?;
    let (status, screen) = keyed.finish()?;
    ensure!(status == 130, "status {status}, screen: {screen}");

    // None where none is wanted, or moat has none.
    let moat = running.verb(&["exec", "-T", "case", "sh", "-c", "tty; [ -t 1 ]"])?;
    let (status, screen) = Terminal::start(moat, 80, 24)?.finish()?;
    ensure!(status == 1 && screen.contains("not a tty"), "status {status}, screen: {screen}");
    running.sh("tty; [ -t 1 ]")?.status(1)?.stdout("not a tty\n")?;
    running.verb(&["exec", "-t", "case", "true"])?.run()?.refused(2, "usage")?;

    // A moat that is gone hangs up.
    let script = "trap 'echo hung up > /tmp/hup; exit' HUP; echo up; while :; do sleep 0.05; done";
    let moat = running.verb(&["exec", "case", "sh", "-c", script])?;
    let gone = Terminal::start(moat, 80, 24)?;
    gone.wait_for("up\r\n")?;
    drop(gone);
    running.sh("until [ -s /tmp/hup ]; do sleep 0.05; done; cat /tmp/hup")?.stdout("hung up\n")?;
    running.finish()?.status(0)?;
    Ok(Vec::new())
}
