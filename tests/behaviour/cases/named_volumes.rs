//! Named volumes: made when first used and not before, the workload's user 0's own, kept when the
//! workload ends, seen by all that name it, and not to be confused with anything else that is there.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::moat::Moat;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;
use nix::unistd::Uid;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let volumes = space.data_home()?.join("moat/volumes");
    space.spec("volumes = [\"cache:/var/cache\", \"other:/deep/er/other:ro\"]")?;
    let dry = [space.run_args(&[]), vec!["--dry-run"]].concat();
    let dry = moat(&space, &dry)?.run()?;
    dry.status(0)?.stdout_has("volume cache, ")?.stdout_has("made on first use")?;
    ensure!(!volumes.exists(), "a dry run made {}", volumes.display());

    let first = sh(
        &space,
        "stat -c '%u:%g %a %F' /var/cache /deep/er/other; ls -A /var/cache | wc -l; \
         umask 022; mkdir /var/cache/dir; echo kept > /var/cache/dir/file; \
         echo x > /deep/er/other/file",
    )?;
    first.status(1)?.stdout("0:0 755 directory\n0:0 755 directory\n0\n")?;
    first.stderr("sh: can't create /deep/er/other/file: Read-only file system\n")?;
    let made = fs::metadata(volumes.join("cache/dir/file"))?;
    ensure!(made.uid() == Uid::effective().as_raw(), "it is not moat's user's: {made:?}");
    ensure!(fs::metadata(&volumes)?.mode() & 0o777 == 0o700, "others of the host can look");

    space.spec("volumes = [\"cache:/again\"]\nread_only = true")?;
    let dry = [space.run_args(&[]), vec!["--dry-run"]].concat();
    moat(&space, &dry)?.run()?.status(0)?.stdout_lacks("made on first use")?;
    let second = sh(&space, "cat /again/dir/file; echo more >> /again/dir/file")?;
    second.status(0)?.stdout("kept\n")?.stderr("")?;
    ensure!(fs::read_to_string(volumes.join("cache/dir/file"))? == "kept\nmore\n", "not written");

    let mut all = vec![first, second];
    if host::is_root() {
        let owners = sh(&space, "chown 1000:1000 /again/dir/file && chown 1000 /again")?;
        owners.status(0)?.stderr("")?;
        space.spec("volumes = [\"cache:/again\"]\nuser = \"app\"")?;
        let user = sh(
            &space,
            "id -u; echo own >> /again/dir/file; echo x > /again/new; \
                               stat -c %u:%g /again /again/dir/file /again/new; touch /again/dir/x",
        )?;
        user.status(1)?.stdout("1000\n1000:0\n1000:1000\n1000:1000\n")?;
        user.stderr("touch: /again/dir/x: Permission denied\n")?;
        all.extend([owners, user]);
    }
    fs::write(volumes.join("file"), "a file\n")?;
    symlink("/etc", volumes.join("link"))?;
    for name in ["file", "link"] {
        space.spec(&format!("volumes = [\"{name}:/v\"]"))?;
        let refused = sh(&space, "ls /v")?;
        refused.refused(125, "state")?.stderr_has(&format!("volume {name} can't be used"))?;
    }
    Ok(all)
}

fn moat(space: &Workspace, args: &[&str]) -> Result<Moat> {
    Ok(space.verb(args)?.env("XDG_DATA_HOME", space.data_home()?))
}

fn sh(space: &Workspace, script: &str) -> Result<Seen> {
    moat(space, &space.run_args(&["sh", "-c", script]))?.run()
}
