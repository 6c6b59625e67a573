//! Signals to `moat exec` reach the further process; when moat is killed that goes on, and it ends
//! with the workload.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moat_tests::running::Running;
use moat_tests::seen::Seen;
use nix::sys::signal::Signal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let mut running = Running::start(&space)?;

    let script = "for s in HUP INT QUIT USR1 USR2 TERM; do trap \"echo $s\" $s; done; \
                  trap 'exit 8' CONT; echo ready; while :; do sleep 0.02; done";
    let mut live = running.verb(&["exec", "case", "sh", "-c", script])?.start()?;
    live.wait_for("ready\n")?;
    for (signal, shown) in [
        (Signal::SIGHUP, "HUP\n"),
        (Signal::SIGINT, "INT\n"),
        (Signal::SIGQUIT, "QUIT\n"),
        (Signal::SIGUSR1, "USR1\n"),
        (Signal::SIGUSR2, "USR2\n"),
        (Signal::SIGTERM, "TERM\n"),
    ] {
        live.signal(signal)?;
        live.wait_for(shown)?;
    }
    live.signal(Signal::SIGCONT)?;
    live.finish()?.status(8)?;

    // One that takes none of them is ended by the third ctrl-C.
    let script = "trap '' INT; echo ready; while :; do sleep 0.02; done";
    let mut live = running.verb(&["exec", "case", "sh", "-c", script])?.start()?;
    live.wait_for("ready\n")?;
    for _ in 0..3 {
        live.signal(Signal::SIGINT)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    live.finish()?.status(137)?;

    // Killed, moat takes nothing with it; the workload's end takes all.
    let mark = format!("sleep 14{}", std::process::id());
    let script = format!("echo ready; exec {mark}");
    let mut orphan = running.verb(&["exec", "case", "sh", "-c", &script])?.start()?;
    orphan.wait_for("ready\n")?;
    let mut kept = running.verb(&["exec", "case", "sh", "-c", &script])?.start()?;
    kept.wait_for("ready\n")?;
    orphan.signal(Signal::SIGKILL)?;
    let count = format!("sleep 0.2; ps -o args | grep -v grep | grep -c '{mark}'");
    running.sh(&count)?.stdout("2\n")?;
    running.live().close_stdin();
    kept.finish()?.status(137)?.stderr("")?;
    running.finish()?.status(0)?;
    ensure!(!is_running(&mark)?, "{mark} is left");
    Ok(Vec::new())
}

fn is_running(mark: &str) -> Result<bool> {
    let entries = std::fs::read_dir("/proc").context("/proc")?.flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    Ok(lines.any(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim() == mark))
}
