//! The workload starts in its working directory, which is made if it is not there.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let look = |lines: &str| {
        space.spec(lines)?;
        space.sh("pwd; echo \"$PWD\"; stat -c %u:%g:%a .; touch here && echo writable")
    };
    let default = look("")?;
    default.status(0)?.stdout("/\n/\n0:0:755\nwritable\n")?;
    let set = look("working_dir = \"/var/tmp\"")?;
    set.status(0)?.stdout_has("/var/tmp\n/var/tmp\n")?;
    let made = look("working_dir = \"/srv/not/there\"")?;
    made.status(0)?.stdout("/srv/not/there\n/srv/not/there\n0:0:755\nwritable\n")?;
    ensure!(!space.root().join("srv").exists(), "it was made in the root's own directory");

    // On a symlink that leads out of the root, as far as the host is concerned.
    std::os::unix::fs::symlink("/etc/passwd", space.root().join("file"))?;
    space.spec("working_dir = \"/file\"")?;
    let file = space.sh("pwd")?;
    file.status(125)?;
    Ok(vec![default, set, made])
}
