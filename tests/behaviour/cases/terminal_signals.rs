//! Ctrl-C, Ctrl-\ and Ctrl-Z on a terminal are the workload's; a terminal that hangs up ends it.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use moat_tests::terminal::Terminal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let script = "trap 'echo interrupted' INT; trap 'echo quit; exit 4' QUIT; echo ready; \
                  while true; do sleep 0.05; done";
    let mut terminal = Terminal::start(space.moat(&["sh", "-c", script])?, 80, 24)?;
    terminal.wait_for("ready\r\n")?;
    terminal.send(b"\x03")?;
    terminal.wait_for("interrupted\r\n")?;
    terminal.send(b"\x1c")?;
    let (status, screen) = terminal.finish()?;
    ensure!(status == 4, "status {status}, screen: {screen}");
    ensure!(terminal.is_cooked()?, "the terminal was not put back as it was");

    let mut terminal =
        Terminal::start(space.moat(&["sh", "-c", "echo ready; sleep 100"])?, 80, 24)?;
    terminal.wait_for("ready\r\n")?;
    terminal.send(b"\x03")?;
    let (status, screen) = terminal.finish()?;
    ensure!(status == 130, "status {status}, screen: {screen}");
    Ok(Vec::new())
}
