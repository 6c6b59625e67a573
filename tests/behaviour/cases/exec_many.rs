//! Fifty further processes at a time, while the workload's own goes on.

use anyhow::Result;
use moat_tests::running::Running;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    let mut all = Vec::new();
    for number in 0..50 {
        let script = format!("echo in; cat; exit {number}");
        all.push(running.verb(&["exec", "case", "sh", "-c", &script])?.stdin_open().start()?);
    }
    // None ends before the last one has begun.
    all.iter_mut().try_for_each(|live| live.wait_for("in\n"))?;
    for (number, mut live) in all.into_iter().enumerate() {
        live.write(format!("{number}").as_bytes())?;
        live.close_stdin();
        live.finish()?.status(i32::try_from(number)?)?.stdout(&format!("in\n{number}"))?;
    }
    running.live().write(b"still there\n")?;
    running.live().wait_for("still there\n")?;
    // The reaper, the workload's shell and its cat, and what looks.
    running.exec(&["sh", "-c", "set -- /proc/[0-9]*; echo $#"])?.stdout("4\n")?;
    running.finish()?.status(0)?;
    Ok(Vec::new())
}
