//! moat started by a plain user: the same main job, with the one user that it has.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::moat::{Moat, executable};
use moat_tests::workspace::Workspace;

use crate::starters::PLAIN_USER;

const UID: u32 = 54321;

/// moat as a plain user with a home and a runtime directory in the workspace. It is a copy: the
/// built one may lie where only root can look.
pub(crate) fn plain(space: &Workspace, args: &[&str]) -> Result<Moat> {
    plain_through(space, &[], args)
}

/// As [`plain`], started by a command that runs what follows it, as root.
pub(crate) fn plain_through(space: &Workspace, starter: &[&str], args: &[&str]) -> Result<Moat> {
    let copy = space.path().join("moat");
    if !copy.exists() {
        // In a process aside: one that another test forks meanwhile would hold the copy open for
        // writing, and what is can't be executed.
        let own = UID.to_string();
        let install = ["-m", "755", "-o", &own, "-g", &own];
        let made = Command::new("install").args(install).arg(executable()?).arg(&copy).status()?;
        ensure!(made.success(), "install: {made}");
    }
    for dir in ["home", "run"] {
        let dir = space.path().join(dir);
        fs::create_dir_all(&dir)?;
        chown(&dir, Some(UID), Some(UID))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    }
    let copy = copy.display().to_string();
    let command = [starter, &PLAIN_USER, &[&copy], args].concat();
    let moat = Moat::program(command[0], &command[1..]).dir(space.path());
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

/// A part of the tree of cgroup v2 that is this user's, and a group in it to start moat in.
struct Delegated(PathBuf);

impl Delegated {
    /// `None` where the limits are in trees of cgroup v1.
    fn make(space: &Workspace) -> Result<Option<Self>> {
        let root = Path::new("/sys/fs/cgroup");
        let has = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if !["memory", "cpu", "pids"].iter().all(|one| has.split_whitespace().any(|it| it == *one))
        {
            return Ok(None);
        }
        let name = space.path().file_name().unwrap_or_default().to_string_lossy();
        let top = root.join(format!("moat-test{}", name.replace('.', "-")));
        fs::write(root.join("cgroup.subtree_control"), "+memory +cpu +pids")?;
        fs::create_dir(&top)?;
        let delegated = Self(top);
        fs::write(delegated.0.join("cgroup.subtree_control"), "+memory +cpu +pids")?;
        fs::create_dir(delegated.start())?;
        for dir in [&delegated.0, &delegated.start()] {
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(dir.join(file), Some(UID), Some(UID))?;
            }
        }
        Ok(Some(delegated))
    }

    fn start(&self) -> PathBuf {
        self.0.join("start")
    }

    /// What is below that of moat's.
    fn left(&self) -> Vec<PathBuf> {
        let dir = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        dir(&self.0.join("moat")).map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in self.left().into_iter().chain([self.0.join("moat"), self.start()]) {
            let _ = fs::remove_dir(dir);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn limits_bite_where_cgroups_are_delegated() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("root alone can delegate");
    }
    let space = Workspace::new(Some("container"))?;
    let Some(delegated) = Delegated::make(&space)? else {
        moat_tests::skip!("the controllers are not those of cgroup v2: run it in the bed");
    };
    space.spec("resources = { memory = \"64MiB\", pids = 8 }")?;
    let run = |script: &str| -> Result<_> {
        // Makes the copy and its directories.
        let args = space.run_args(&["sh", "-c", script]);
        drop(plain(&space, &args)?);
        let copy = space.path().join("moat").display().to_string();
        let procs = delegated.start().join("cgroup.procs").display().to_string();
        let first = ["-ec", "echo $$ > $0; exec \"$@\"", &procs];
        let all = [&first[..], &PLAIN_USER, &[&copy], &args].concat();
        let moat =
            Moat::program("sh", all).dir(space.path()).env("HOME", space.path().join("home"));
        moat.env("XDG_RUNTIME_DIR", space.path().join("run")).run()
    };
    run("echo fine")?.status(0)?.stdout("fine\n")?.stderr_lacks("not limited")?;
    // A string of so many bytes is in memory, wherever it is kept.
    let hog = run("x=x; while :; do x=$x$x; done")?;
    hog.status(137)?.stderr_has("the memory limit of 64MiB was reached")?;
    let bomb = run("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo started")?;
    bomb.stderr_has("fork")?;
    ensure!(delegated.left().is_empty(), "left: {:?}", delegated.left());
    Ok(())
}

#[test]
fn moats_own_program_is_out_of_reach_of_exec() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("all other tests run as a plain user already");
    }
    let space = Workspace::new(Some("container"))?;
    space.spec("")?;
    let script = space.root().join("script");
    fs::write(&script, "#!/proc/self/exe\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    // Whoever else is there and opens what a new process runs, which is not the root's own busybox.
    let attack = "echo ready; while :; do for p in /proc/[0-9]*; do \
        case $(readlink $p/exe) in */moat*) chmod 4777 $p/exe && echo changed;; esac; done; done";
    let mut live = plain(&space, &space.run_args(&["sh", "-c", attack]))?.start()?;
    live.wait_for("ready")?;
    let exec = |command: &'static str| plain(&space, &["exec", "case", command])?.run();
    for _ in 0..10 {
        let seen = exec("/script")?;
        ensure!(seen.status == 127, "{}", seen.shown());
    }
    exec("/proc/self/exe")?.status(126)?.stderr_has("it is moat's own program")?;
    exec("/no/such")?.status(127)?.stderr_has("command not found")?;
    exec("true")?.status(0)?;
    live.signal(nix::sys::signal::Signal::SIGKILL)?;
    let found = fs::metadata(space.path().join("moat"))?;
    ensure!(found.mode() & 0o7777 == 0o755, "{found:?}: {}", live.out());
    Ok(())
}
