//! Two runs of one workload at once: neither is in the other's way.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let script = "echo ready; read word; hostname; echo $word > /file; cat /file; echo $word";
    let mut first = space.moat(&["sh", "-c", script])?.stdin_open().start()?;
    first.wait_for("ready\n")?;
    let mut second = space.moat(&["sh", "-c", script])?.stdin_open().start()?;
    second.wait_for("ready\n")?;
    first.write(b"first\n")?;
    let first = first.finish()?;
    second.write(b"second\n")?;
    let second = second.finish()?;
    first.status(0)?.stdout("ready\ncase\nfirst\nfirst\n")?.stderr("")?;
    second.status(0)?.stdout("ready\ncase\nsecond\nsecond\n")?.stderr("")?;
    Ok(vec![first, second])
}
