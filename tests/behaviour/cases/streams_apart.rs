//! stdout and stderr come out apart, each whole.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const LINES: usize = 500;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let seen = space.sh(&format!(
        "i=0; while [ $i -lt {LINES} ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done; \
         printf 'no newline'; printf 'here neither' >&2"
    ))?;
    let lines = |name: &str| (0..LINES).map(|i| format!("{name} {i}\n")).collect::<String>();
    seen.status(0)?
        .stdout(&format!("{}no newline", lines("out")))?
        .stderr(&format!("{}here neither", lines("err")))?;
    Ok(vec![seen])
}
