//! An environment near the kernel's limit arrives whole; one beyond it is refused in plain words.
//!
//! execve(2): arguments and environment together may take a quarter of the stack's limit, which
//! is 2 MiB of 8 MiB.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const LENGTH: usize = 120 << 10;

/// In a file, which may have 1 MiB.
const VARIABLES: usize = 5;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let line = |file: usize, i: usize| format!("LARGE_{file}_{i}={}\n", "x".repeat(LENGTH));
    for file in 0..4 {
        let text: String = (0..VARIABLES).map(|i| line(file, i)).collect();
        space.write(&format!("{file}.env"), text)?;
    }
    let rlimits = "rlimits = { stack = \"8MiB\" }";

    space.spec(&format!("env_file = [\"0.env\", \"1.env\", \"2.env\"]\n{rlimits}"))?;
    let mut whole = space.run(&["env"])?;
    whole.status(0)?.stderr("")?;
    for (file, i) in (0..3).flat_map(|file| (0..VARIABLES).map(move |i| (file, i))) {
        whole.stdout_has(&line(file, i))?;
    }
    // The rest, for comparison and for eyes.
    whole.stdout =
        whole.out().lines().filter(|line| !line.contains("xxx")).collect::<String>().into();

    space.spec(&format!("env_file = [\"0.env\", \"1.env\", \"2.env\", \"3.env\"]\n{rlimits}"))?;
    let beyond = space.run(&["env"])?;
    beyond.refused(126, "not-executable")?;
    Ok(vec![whole, beyond])
}
