//! `moat stats`, `pause` and `resume` of what does not run.

use anyhow::{Result, ensure};
use moat_tests::running::Running;
use moat_tests::workspace::Workspace;

const CONTAINER: Option<&str> = Some("container");

#[test]
fn a_name_that_nothing_has_is_told_with_those_that_run() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let running = Running::start(&space)?;
    for verb in ["stats", "pause", "resume"] {
        let seen = running.verb(&[verb, "nobody"])?.run()?;
        seen.status(125)?;
        let said = seen.err();
        ensure!(said.contains("no running workload is called \"nobody\""), "{said}");
        ensure!(said.contains("these run: case ("), "{said}");
    }
    running.finish()?.status(0)?;
    Ok(())
}
