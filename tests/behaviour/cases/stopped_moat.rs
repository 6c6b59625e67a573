//! A moat that is stopped, and put into the foreground again by its shell, has the terminal as
//! before; the workload has learnt the size that it got meanwhile.

use anyhow::{Context, Result, ensure};
use moat_tests::seen::Seen;
use moat_tests::terminal::Terminal;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wall::Wall;

/// A shell with job control. Like an interactive one it sets the terminal back when a job stops.
const SHELL: &str = "set -m; sh -c 'echo \"pid $$.\"; exec \"$@\"' sh \"$@\"; \
                     stty sane cols 70; echo stopped; fg; echo \"ended: $?\"";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    // A shell's read is ended by a trapped signal, so that is waited for first.
    let script = "trap 'echo interrupted; got=1' INT; echo ready; \
                  until [ \"$(stty size)\" = '24 70' ]; do sleep 0.05; done; echo resized; \
                  until [ \"$got\" ]; do sleep 0.05; done; read line; echo \"line: $line\"; exit 5";
    let args = space.run_args(&["sh", "-c", script]);
    let moat = space.through(&["sh", "-c", SHELL, "sh"], &args)?;
    let mut terminal = Terminal::start(moat, 80, 24)?;
    terminal.wait_for("ready\r\n")?;
    let shown = terminal.shown();
    let pid = shown.split_once("pid ").and_then(|(_, rest)| rest.split_once('.'));
    let pid = pid.context("the screen shows no pid")?.0.parse()?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    terminal.wait_for("stopped\r\n")?;
    terminal.wait_for("resized\r\n")?;
    ensure!(!terminal.is_cooked()?, "moat's own terminal edits lines again");
    terminal.send(b"\x03")?;
    terminal.wait_for("interrupted\r\n")?;
    terminal.send(b"typed\n")?;
    let (_, screen) = terminal.finish()?;
    ensure!(screen.contains("line: typed\r\n"), "the screen shows {screen}");
    ensure!(screen.contains("ended: 5\r\n"), "the screen shows {screen}");
    ensure!(terminal.is_cooked()?, "the terminal was not put back as it was");
    Ok(Vec::new())
}
