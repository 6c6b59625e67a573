//! On a terminal the workload has one, of the same size, and what is typed reaches it.

use anyhow::{Result, ensure};
use moat_tests::moat::Moat;
use moat_tests::seen::Seen;
use moat_tests::terminal::Terminal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    dialogue(|script| space.moat(&["sh", "-c", script]))?;

    // Without a terminal there is none, whatever moat's stderr is.
    let none = space.sh("tty; [ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none; : < /dev/tty")?;
    none.stdout("not a tty\nnone\n")?;
    space.spec("tty = false")?;
    let mut refused = Terminal::start(space.moat(&["sh", "-c", "tty; [ -t 1 ]"])?, 80, 24)?;
    let (status, screen) = refused.finish()?;
    ensure!(status == 1 && screen.contains("not a tty"), "status {status}, screen: {screen}");
    Ok(vec![none])
}

/// What a shell on a terminal sees of it, and what reaches the shell. `moat` makes the command that
/// runs a script.
pub(super) fn dialogue(moat: impl FnOnce(&str) -> Result<Moat>) -> Result<()> {
    // A shell's read is ended by a trapped signal, so the size is waited for first.
    let script = "tty; stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all three; \
                  : < /dev/tty && echo controlling; trap 'echo changed' WINCH; echo ready; \
                  until [ \"$(stty size)\" = '22 77' ]; do sleep 0.05; done; trap '' WINCH; \
                  echo resized; read line; echo \"line: $line\"; cat; echo end of file; exit 9";
    let mut terminal = Terminal::start(moat(script)?, 101, 33)?;
    terminal.wait_for("ready\r\n")?;
    ensure!(!terminal.is_cooked()?, "moat's own terminal still edits lines");
    terminal.resize(77, 22)?;
    terminal.wait_for("changed\r\n")?;
    terminal.wait_for("resized\r\n")?;
    terminal.send(b"typed \x7f\n")?;
    terminal.wait_for("line: typed\r\n")?;
    terminal.send(b"\x04")?;
    let (status, screen) = terminal.finish()?;
    ensure!(status == 9, "status {status}, screen: {screen}");
    for shown in ["/dev/pts/0\r\n33 101\r\nall three\r\ncontrolling\r\n", "end of file\r\n"] {
        ensure!(screen.contains(shown), "the screen lacks {shown:?}: {screen}");
    }
    ensure!(terminal.is_cooked()?, "the terminal was not put back as it was");
    Ok(())
}
