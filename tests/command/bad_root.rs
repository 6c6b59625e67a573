//! Roots and volumes that are not what they should be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;

use crate::starters::PLAIN_USER;

const CONTAINER: Option<&str> = Some("container");

fn spec(root: &str) -> String {
    format!("[workload.case]\nrootfs = \"{root}\"\ncommand = [\"true\"]\n")
}

fn spec_with_volume(volume: &str) -> String {
    format!("{}volumes = [\"{volume}\"]\n", spec("./root"))
}

/// Runs `true` with this spec in this workspace, which must fail before it begins.
fn fails(space: &Workspace, spec: &str) -> Result<Seen> {
    let watched = Watched::new(space)?;
    space.whole_spec(spec)?;
    let seen = watched.watch(space.moat(&["true"])?).run()?;
    seen.stdout("")?.stderr_has("hint: ")?.stderr_lacks("panicked")?;
    ensure!(matches!(seen.status, 3 | 125), "{}", seen.shown());
    watched.nothing(space, &[])?;
    Ok(seen)
}

#[test]
fn a_root_that_is_not_there() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    fails(&space, &spec("./nosuch"))?.stderr_has("nosuch")?;
    // Neither is it made, nor does a dry run find it.
    ensure!(!space.path().join("nosuch").exists(), "it was made");
    let dry = space.verb(&["run", "--dry-run", "--isolation", "container", "--", "true"])?;
    dry.run()?.status(0)?;
    let dry = space.verb(&["run", "moat.toml", "--dry-run", "--isolation", "container"])?.run()?;
    ensure!(dry.status != 0, "{}", dry.shown());
    Ok(())
}

#[test]
fn a_root_that_is_a_file_or_a_loop() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.write("file", "")?;
    fails(&space, &spec("./file"))?.stderr_has("file")?;
    symlink("loop", space.path().join("loop"))?;
    fails(&space, &spec("./loop"))?.stderr_has("loop")?;
    symlink("b", space.path().join("a"))?;
    symlink("a", space.path().join("b"))?;
    fails(&space, &spec("./a/b"))?;
    Ok(())
}

#[test]
fn an_empty_root_has_no_command() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    let watched = Watched::new(&space)?;
    fs::create_dir(space.path().join("empty"))?;
    space.whole_spec(spec("./empty"))?;
    let seen = watched.watch(space.moat(&["true"])?).run()?;
    seen.refused(127, "not-found")?.stderr_has("true")?;
    watched.nothing(&space, &[])?;
    ensure!(fs::read_dir(space.path().join("empty"))?.count() == 0, "mount points were made in it");
    Ok(())
}

#[test]
fn a_root_that_only_its_owner_can_read() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("root reads everything, and only root can become a plain user");
    }
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    fs::set_permissions(space.root(), fs::Permissions::from_mode(0o700))?;
    let args = space.run_args(&["true"]);
    let seen = space.through(&PLAIN_USER, &args)?.own_runtime_dir().env("HOME", "/").run()?;
    seen.refused(3, "spec")?.stderr_has("root")?.stderr_has("may read it")?;
    Ok(())
}

#[test]
fn hostile_roots_do_not_reach_the_host() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    let outside = space.path().join("outside");
    fs::create_dir(&outside)?;
    // Every place that moat mounts over or writes to is a way out of the root, if followed.
    for place in ["proc", "sys", "dev", "tmp", "etc/hosts", "etc/resolv.conf", "etc/hostname"] {
        let path = space.root().join(place);
        let _ = fs::remove_dir_all(&path);
        symlink(&outside, &path)?;
    }
    space.spec("tmpfs = [\"/tmp/scratch\"]\nvolumes = [\"./root/bin:/tmp/bin\"]\nworking_dir = \"/tmp/work\"")?;
    let seen = space.sh("echo ran; ls /proc/self > /dev/null && echo proc")?;
    // Either it works all the same, inside the root, or it is refused; in words.
    ensure!(seen.status == 0 || seen.err().contains("error["), "{}", seen.shown());
    ensure!(fs::read_dir(&outside)?.count() == 0, "something was made outside of the root");
    Ok(())
}

#[test]
fn volumes_that_are_not_there() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    fails(&space, &spec_with_volume("./nosuch:/data"))?.stderr_has("nosuch")?;
    ensure!(!space.path().join("nosuch").exists(), "it was made");
    symlink("loop", space.path().join("loop"))?;
    fails(&space, &spec_with_volume("./loop:/data"))?.stderr_has("loop")?;
    space.write("file", "")?;
    fails(&space, &spec_with_volume("./file/below:/data"))?.stderr_has("below")?;
    Ok(())
}

#[test]
fn a_volume_where_it_can_not_be_mounted() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.write("data/file", "data\n")?;
    // A directory over a file, and a file over a directory.
    space.write("file", "")?;
    for volume in ["./data:/etc/passwd", "./file:/etc"] {
        let seen = fails(&space, &spec_with_volume(volume))?;
        ensure!(seen.err().contains("/etc"), "{}", seen.shown());
    }
    ensure!(Path::new(&space.root().join("etc/passwd")).exists(), "the root lost a file");
    Ok(())
}
