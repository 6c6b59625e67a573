//! The workload's exit status is moat's.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// In a micro-VM, whose start takes seconds in the bed: both ends, the statuses that moat itself
/// ends with, those that a shell gives to signals, and some others.
const SPREAD: [i32; 16] = [0, 1, 2, 3, 4, 5, 42, 124, 125, 126, 127, 128, 137, 143, 254, 255];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let run = |code: i32| {
        let seen = space.sh(&format!("exit {code}"))?;
        seen.status(code)?.stdout("")?.stderr("")?;
        Ok(seen)
    };
    if wall == Wall::Container {
        (0..=255).try_for_each(|code| run(code).map(drop))?;
    }
    SPREAD.into_iter().map(run).collect()
}
