//! A workload that a signal ends gives 128 + the signal's number.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const SIGNALS: [(&str, i32); 4] = [("KILL", 9), ("SEGV", 11), ("TERM", 15), ("64", 64)];

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let run = |(name, number)| {
        // What was written before is not lost with the process.
        let seen = space.sh(&format!("echo before; kill -{name} $$; echo after"))?;
        seen.status(128 + number)?.stdout("before\n")?.stderr("")?;
        Ok(seen)
    };
    SIGNALS.into_iter().map(run).collect()
}
