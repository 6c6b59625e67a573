//! SIGINT and SIGQUIT without a terminal of the workload's: as at a terminal's keys, they reach all
//! that it runs in the foreground, and each reaches it once.

use std::time::Duration;

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use moat_tests::terminal::Terminal;
use nix::sys::signal::Signal;

use crate::wall::Wall;

/// Waits in a child, which says so itself: a shell on its way there may still miss a signal. One that
/// is told alone goes on only when its child has ended; what it says of that is of no interest.
const WAITING: &str = "exec 2> /dev/null; trap 'echo told; exit 5' INT QUIT; \
                       echo ready > /tmp/ready; cat /tmp/ready -; echo after";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let mut all = Vec::new();
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let waiting = space.moat(&["sh", "-c", WAITING])?;
        let mut live = waiting.stdin_open().timeout(Duration::from_secs(100)).start()?;
        live.wait_for("ready\n")?;
        live.signal(signal)?;
        let seen = live.finish()?;
        seen.status(5)?.stdout("ready\ntold\n")?;
        all.push(seen);
    }

    // moat's terminal tells moat's own process group, in which nobody else may pass it on.
    let script = "trap 'n=$((n + 1)); echo told $n' INT; trap 'echo in all $n; exit 6' QUIT; \
                  echo ready; while true; do sleep 0.05; done";
    let args = space.run_args(&["sh", "-c", script]);
    let moat = space.through(&["sh", "-c", "exec \"$@\" < /dev/null", "sh"], &args)?;
    let mut terminal = Terminal::start(moat, 80, 24)?;
    terminal.wait_for("ready\r\n")?;
    for told in 1..=2 {
        terminal.send(b"\x03")?;
        terminal.wait_for(&format!("told {told}\r\n"))?;
        std::thread::sleep(Duration::from_millis(300));
    }
    terminal.send(b"\x1c")?;
    let (status, screen) = terminal.finish()?;
    ensure!(status == 6 && screen.contains("in all 2"), "status {status}, screen: {screen}");
    Ok(all)
}
