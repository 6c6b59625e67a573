//! `moat kernel build` where something is missing: known at once, not after minutes.

use anyhow::{Result, ensure};
use moat_tests::workspace::Workspace;

#[test]
fn without_tools() -> Result<()> {
    let space = Workspace::new(None)?;
    let data = space.path().join("data");
    let build = space.verb(&["kernel", "build"])?.env("XDG_DATA_HOME", &data);
    let seen = build.env("PATH", "/nowhere").run()?;
    // One line that installs all of them.
    seen.refused(125, "kernel")?.stderr_has(
        "hint: apt-get install -y make gcc binutils flex bison bc perl tar xz-utils\n",
    )?;
    ensure!(!data.join("moat/kernels").exists(), "a store was made");
    Ok(())
}
