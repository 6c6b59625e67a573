//! A command that is not there: 127, and the same words on both walls.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let run = |program: &str| {
        let seen = space.run(&[program, "argument"])?;
        seen.refused(127, "not-found")?.stderr_has(program)?;
        Ok(seen)
    };
    ["nosuch", "/no/such/path", "./relative"].into_iter().map(run).collect()
}
