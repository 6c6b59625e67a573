//! The workload's exit status is moat's.

use anyhow::Result;
use moat_tests::moat::Seen;

use crate::wall::Wall;

pub fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let codes = [0, 1, 2, 3, 42, 124, 125, 126, 127, 128, 137, 254, 255];
    codes
        .into_iter()
        .map(|code| {
            let seen = space.sh(&format!("exit {code}"))?;
            seen.status(code)?.stdout("")?.stderr("")?;
            Ok(seen)
        })
        .collect()
}
