//! Volumes as a user meets them: what is kept between runs of different workloads, first use by
//! many at once, and refusals before anything starts.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::moat::{Moat, executable};
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;

use crate::plain_user::plain_through;
use crate::starters::in_mounts;

const TWO: &str = "[workload.writer]\nrootfs = \"root\"\nvolumes = [\"notes:/notes\"]\n\
    command = [\"sh\", \"-c\", \"echo $(hostname) was here >> /notes/log\"]\n\
    [workload.reader]\nrootfs = \"root\"\nvolumes = [\"notes:/srv/notes:ro\"]\n\
    command = [\"cat\", \"/srv/notes/log\"]\n";

fn moat(space: &Workspace, args: &[&str]) -> Result<Moat> {
    Ok(space.verb(args)?.env("XDG_DATA_HOME", space.data_home()?))
}

#[test]
fn a_volume_is_kept_and_shared_by_name() -> Result<()> {
    let space = Workspace::new(None)?;
    space.whole_spec(TWO)?;
    let watched = Watched::new(&space)?;
    for _ in 0..2 {
        let seen = watched.watch(moat(&space, &["run", "moat.toml", "writer"])?).run()?;
        seen.status(0)?;
    }
    let kept = space.path().join("share/moat/volumes/notes/log");
    ensure!(fs::read_to_string(&kept)? == "writer was here\nwriter was here\n");
    let seen = watched.watch(moat(&space, &["run", "moat.toml", "reader"])?).run()?;
    seen.status(0)?.stdout("writer was here\nwriter was here\n")?;
    watched.nothing(&space, &[])?;
    ensure!(kept.exists(), "what was kept is gone");
    Ok(())
}

#[test]
fn explaining_and_planning_make_nothing() -> Result<()> {
    let space = Workspace::new(None)?;
    space.whole_spec(TWO)?;
    moat(&space, &["explain"])?.run()?.status(0)?;
    let args = ["run", "moat.toml", "writer", "--dry-run"];
    moat(&space, &args)?.run()?.status(0)?.stdout_has("made on first use")?;
    ensure!(!space.path().join("share/moat/volumes").exists(), "it was made");
    Ok(())
}

#[test]
fn many_may_be_the_first_at_once_whatever_their_umask() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    space.spec("volumes = [\"fresh:/fresh\"]")?;
    let moat = executable()?.display().to_string();
    let start = |number: u32| {
        let script = format!("stat -c '%u %a' /fresh; echo {number} > /fresh/{number}");
        let run = ["sh", "-c", &script];
        let args = [&["-c", "umask 077; exec \"$@\"", "sh", &moat], &space.run_args(&run)[..]];
        let moat = Moat::program("sh", args.concat()).dir(space.path());
        moat.env("XDG_DATA_HOME", space.data_home()?).start()
    };
    let started: Vec<_> = (0..8).map(start).collect::<Result<_>>()?;
    for run in started {
        run.finish()?.status(0)?.stdout("0 755\n")?;
    }
    let volumes = space.path().join("share/moat/volumes");
    ensure!(fs::read_dir(volumes.join("fresh"))?.count() == 8, "some wrote elsewhere");
    ensure!(fs::read_dir(&volumes)?.count() == 1, "something else is left in volumes/");
    ensure!(fs::metadata(&volumes)?.mode() & 0o777 == 0o700);
    Ok(())
}

#[test]
fn a_data_directory_that_is_not_ones_own_is_refused() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    let watched = Watched::new(&space)?;
    space.spec("volumes = [\"v:/v\"]")?;
    let elsewhere = space.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    std::os::unix::fs::symlink(&elsewhere, space.data_home()?.join("moat/volumes"))?;
    let args = space.run_args(&["true"]);
    let seen = watched.watch(moat(&space, &args)?).run()?;
    seen.refused(125, "state")?.stderr_has("volume v can't be made")?;
    ensure!(fs::read_dir(&elsewhere)?.count() == 0, "a symlink was followed");
    watched.nothing(&space, &[])
}

/// A plain user's mounts are copies that the kernel itself made followers of the host's.
#[test]
fn a_plain_user_can_follow_mounts_too() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can mount something for the workload to see or not");
    }
    const HOST: &str = "mount -t tmpfs none shared; mount --make-shared shared; \
        mkdir -m 777 shared/up; mkdir shared/late; \"$@\" & \
        until [ -e shared/up/ready ]; do kill -0 $! || exit 1; sleep 0.05; done; \
        mount -t tmpfs none shared/late; echo late > shared/late/file; touch shared/go; wait $!";
    const WORKLOAD: &str = "touch /v/up/ready; until [ -e /v/go ]; do sleep 0.05; done; \
        cat /v/late/file || echo nothing";
    for (volume, seen) in [("./shared:/v:rslave", "late\n"), ("./shared:/v", "nothing\n")] {
        let space = Workspace::new(Some("container"))?;
        fs::create_dir(space.path().join("shared"))?;
        space.spec(&format!("volumes = [\"{volume}\"]"))?;
        let args = space.run_args(&["sh", "-c", WORKLOAD]);
        let starter = ["unshare", "--mount", "sh", "-c", HOST, "sh"];
        plain_through(&space, &starter, &args)?.run()?.status(0)?.stdout(seen)?;
    }
    Ok(())
}

#[test]
fn following_a_private_mount_is_refused() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can make a mount private");
    }
    let space = Workspace::new(Some("container"))?;
    let watched = Watched::new(&space)?;
    space.write("data/file", "")?;
    space.spec("volumes = [\"./data:/data:ro,rslave\"]")?;
    let private = "mount -t tmpfs none data; mount --make-private data; exec \"$@\"";
    let args = [space.run_args(&[]), vec!["--dry-run"]].concat();
    let seen = watched.watch(space.through(&in_mounts(private), &args)?).run()?;
    seen.refused(3, "spec")?.stderr_has("is on a private mount")?.stderr_has("--make-rshared")?;
    let shared = "mount -t tmpfs none data; mount --make-shared data; exec \"$@\"";
    let seen = watched.watch(space.through(&in_mounts(shared), &args)?).run()?;
    seen.status(0)?.stdout_has("with what the host mounts below it later")?;
    seen.stderr_has("warning: /data is read-only, but what the host mounts below it later")?;
    watched.nothing(&space, &[])
}
