//! Behind the vm wall there is no `moat exec` yet, and that is said.

use anyhow::Result;
use moat_tests::running::Running;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let running = Running::start(&space)?;
    running.exec(&["true"])?.refused(5, "unavailable")?.stderr_has("behind the vm wall")?;
    running.finish()?.status(0)?;
    Ok(Vec::new())
}
