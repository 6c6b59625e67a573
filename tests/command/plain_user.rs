//! moat started by a plain user: the same main job, with the one user that it has.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::moat::{Moat, executable};
use moat_tests::workspace::Workspace;

use crate::starters::PLAIN_USER;

const UID: u32 = 54321;

/// moat as a plain user with a home and a runtime directory in the workspace. It is a copy: the
/// built one may lie where only root can look.
fn plain(space: &Workspace, args: &[&str]) -> Result<Moat> {
    let copy = space.path().join("moat");
    if !copy.exists() {
        fs::copy(executable()?, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    }
    for dir in ["home", "run"] {
        let dir = space.path().join(dir);
        fs::create_dir_all(&dir)?;
        chown(&dir, Some(UID), Some(UID))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    }
    let copy = copy.display().to_string();
    let args = [&PLAIN_USER[1..], &[&copy], args].concat();
    let moat = Moat::program(PLAIN_USER[0], args).dir(space.path());
    Ok(moat.env("HOME", space.path().join("home")).env("XDG_RUNTIME_DIR", space.path().join("run")))
}

#[test]
fn hello_from_both_roots() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("all other tests run as a plain user already");
    }
    let space = Workspace::new(Some("container"))?;
    let script = "id -u; echo hello; echo err >&2; exit 3";
    let args = space.run_args(&["sh", "-c", script]);
    for host in [false, true] {
        let spec = if host { Workspace::host_spec } else { Workspace::spec };
        spec(&space, "")?;
        let seen = plain(&space, &args)?.run()?;
        seen.status(3)?.stdout("0\nhello\n")?.stderr_has("err\n")?;
        // Nobody has delegated a cgroup to this user, and that is not kept from them.
        seen.stderr_has("warning: memory, cpus and pids are not limited")?;
    }
    Ok(())
}

#[test]
fn volumes_are_the_users_own() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("all other tests run as a plain user already");
    }
    let space = Workspace::new(Some("container"))?;
    let data = space.path().join("data");
    fs::create_dir(&data)?;
    chown(&data, Some(UID), Some(UID))?;
    space.spec("volumes = [\"./data:/data\"]")?;
    let args = space.run_args(&["sh", "-c", "stat -c %u /data; echo made > /data/made"]);
    plain(&space, &args)?.run()?.status(0)?.stdout("0\n")?;
    let made = fs::metadata(data.join("made"))?;
    ensure!(made.uid() == UID && made.gid() == UID, "{made:?}");
    Ok(())
}

#[test]
fn named_volumes_are_in_the_users_home() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("all other tests run as a plain user already");
    }
    let space = Workspace::new(Some("container"))?;
    space.spec("volumes = [\"cache:/cache\"]")?;
    let args = space.run_args(&["sh", "-c", "stat -c '%u %a' /cache; echo kept >> /cache/file"]);
    for _ in 0..2 {
        plain(&space, &args)?.run()?.status(0)?.stdout("0 755\n")?;
    }
    let kept = space.path().join("home/.local/share/moat/volumes/cache/file");
    ensure!(fs::read_to_string(&kept)? == "kept\nkept\n", "it was not kept");
    ensure!(fs::metadata(&kept)?.uid() == UID, "{:?}", fs::metadata(&kept)?);
    Ok(())
}

#[test]
fn another_user_is_refused_in_words() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("all other tests run as a plain user already");
    }
    let space = Workspace::new(Some("container"))?;
    space.spec("user = \"1000\"")?;
    let args = space.run_args(&["id", "-u"]);
    let seen = plain(&space, &args)?.run()?;
    // One id is all that a plain user's namespace can have.
    ensure!(seen.status != 0, "{}", seen.shown());
    seen.stdout("")?.stderr_has("error[")?.stderr_has("hint: ")?.stderr_has("1000")?;
    Ok(())
}
