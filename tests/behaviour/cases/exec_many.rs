//! Fifty further processes at a time, while the workload's own goes on.

use anyhow::Result;
use moat_tests::running::Running;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    let started = (0..50)
        .map(|number| {
            // None ends before the last one has begun.
            let script = format!(
                "touch /tmp/{number}; while [ $(ls /tmp | wc -l) -lt 50 ]; do sleep 0.05; done; \
                 echo {number}; cat; exit {number}"
            );
            running.verb(&["exec", "case", "sh", "-c", &script])?.stdin(format!("{number}")).start()
        })
        .collect::<Result<Vec<_>>>()?;
    for (number, live) in started.into_iter().enumerate() {
        let status = i32::try_from(number)?;
        live.finish()?.status(status)?.stdout(&format!("{number}\n{number}"))?;
    }
    running.live().write(b"still there\n")?;
    running.live().wait_for("still there\n")?;
    // The reaper, the workload's shell and its cat, and what looks.
    running.exec(&["sh", "-c", "set -- /proc/[0-9]*; echo $#"])?.stdout("4\n")?;
    running.finish()?.status(0)?;
    Ok(Vec::new())
}
