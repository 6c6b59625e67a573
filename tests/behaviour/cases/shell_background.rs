//! `moat run ... &` on a terminal runs, without that terminal: the keys are another job's.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use moat_tests::terminal::Terminal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let script = "[ -t 0 ] || [ -t 1 ] || echo no terminal; echo ready; sleep 2; echo done; exit 6";
    let args = space.run_args(&["sh", "-c", script]);
    // Where moat has stopped, the shell's wait says so by a status of its own, or never ends.
    let shell = "set -m; \"$@\" & wait $!; echo \"ended: $?\"; read line; echo \"line: $line\"";
    let moat = space.through(&["sh", "-c", shell, "sh"], &args)?;
    let mut terminal = Terminal::start(moat, 80, 24)?;
    terminal.wait_for("ready\r\n")?;
    terminal.send(b"typed\n")?;
    let (_, screen) = terminal.finish()?;
    for shown in ["no terminal\r\nready\r\n", "done\r\n", "ended: 6\r\n", "line: typed\r\n"] {
        ensure!(screen.contains(shown), "the screen lacks {shown:?}: {screen}");
    }
    Ok(Vec::new())
}
