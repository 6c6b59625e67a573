//! Where stdout and stderr are one pipe, what is written first comes out first.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const LINES: usize = 300;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done"
    );
    let quiet = [&["--quiet"], &space.run_args(&["sh", "-c", &script])[..]].concat();
    let seen = space.verb(&quiet)?.merged().run()?;
    let expected: String = (0..LINES).map(|i| format!("out {i}\nerr {i}\n")).collect();
    seen.status(0)?.stdout(&expected)?;
    Ok(vec![seen])
}
