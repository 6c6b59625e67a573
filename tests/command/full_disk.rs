//! No space for moat's own state: one error, and what was begun is undone.

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;

use crate::starters::in_mounts;

/// A runtime directory that has no room for one more byte.
const NO_BYTES: &str = "mkdir -p $XDG_RUNTIME_DIR; \
    mount -t tmpfs -o size=16k,mode=700 none $XDG_RUNTIME_DIR; \
    mkdir -p $XDG_RUNTIME_DIR/moat/instances; chmod 700 $XDG_RUNTIME_DIR/moat; \
    dd if=/dev/zero of=$XDG_RUNTIME_DIR/full 2>/dev/null || true; exec \"$@\"";

/// One that has room for so many more files: each number ends moat at another step.
const FEW_FILES: &str = "mkdir -p $XDG_RUNTIME_DIR; \
    mount -t tmpfs -o nr_inodes=$FILES,mode=700 none $XDG_RUNTIME_DIR; exec \"$@\"";

/// One that can't be written at all.
const READ_ONLY: &str = "mkdir -p $XDG_RUNTIME_DIR; \
    mount -t tmpfs -o ro,mode=700 none $XDG_RUNTIME_DIR; exec \"$@\"";

fn space() -> Result<(Workspace, Watched)> {
    let space = Workspace::new(Some("container"))?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    Ok((space, watched))
}

#[test]
fn no_room_for_state() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can mount a small filesystem");
    }
    for script in [NO_BYTES, READ_ONLY] {
        let (space, watched) = space()?;
        let args = space.run_args(&["echo", "ran"]);
        let seen = watched.watch(space.through(&in_mounts(script), &args)?).run()?;
        seen.refused(125, "state")?.stderr_has("runtime")?;
        watched.nothing(&space, &[])?;
    }
    Ok(())
}

#[test]
fn no_room_at_any_step() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can mount a small filesystem");
    }
    let mut outcomes = Vec::new();
    for files in 1..12 {
        let (space, watched) = space()?;
        let args = space.run_args(&["echo", "ran"]);
        let moat = space.through(&in_mounts(FEW_FILES), &args)?.env("FILES", files.to_string());
        let seen = watched.watch(moat).run()?;
        match seen.status {
            0 => seen.stdout("ran\n")?,
            _ => seen.refused(125, "state")?,
        };
        watched.no_process()?;
        outcomes.push(seen.status);
    }
    ensure!(outcomes.first() != Some(&0) && outcomes.last() == Some(&0), "{outcomes:?}");
    Ok(())
}
