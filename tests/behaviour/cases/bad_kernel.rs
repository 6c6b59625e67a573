//! A micro-VM without a kernel, or with one that is none: one clear error, and nothing left.

use anyhow::Result;
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    let data = space.path().join("data");
    space.spec("")?;
    let args = [&["--offline"], &space.run_args(&["true"])[..]].concat();
    let args: Vec<&str> = [&["run"], &args[..1], &args[2..]].concat();
    let offline = space.verb(&args)?.env("XDG_DATA_HOME", &data);
    let offline = watched.watch(offline).run()?;
    offline.refused(125, "kernel")?.stderr_has("moat kernel install")?;
    watched.nothing(&space, &[])?;

    space.spec("vm = { kernel = \"nosuch\" }")?;
    let unknown = watched.watch(space.moat(&["true"])?.env("XDG_DATA_HOME", &data)).run()?;
    unknown.refused(125, "kernel")?.stderr_has("nosuch")?;
    watched.nothing(&space, &[])?;
    Ok(Vec::new())
}
