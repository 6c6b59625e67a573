//! `moat kernel install`, with a distribution's package at hand: what is shown, what stays, and what
//! is left when it is stopped at any moment.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::kernels::{Mirror, RELEASE};
use moat_tests::live::Live;
use moat_tests::moat::Moat;
use moat_tests::remains::Watched;
use moat_tests::terminal::Terminal;
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;

use crate::starters::{PLAIN_USER, in_mounts};

const INSTALL: [&str; 2] = ["kernel", "install"];

struct Place {
    space: Workspace,
    mirror: Mirror,
    data: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        let space = Workspace::new(None)?;
        let mirror = space.path().join("mirror");
        fs::create_dir(&mirror)?;
        let mirror = Mirror::of_nothing(&mirror)?;
        let data = space.path().join("data");
        Ok(Self { space, mirror, data })
    }

    fn moat(&self, args: &[&str]) -> Result<Moat> {
        Ok(self.mirror.serve(self.space.verb(args)?, &self.data))
    }

    /// Starts an installation that hangs in the middle of its download.
    fn hanging(&self, watched: &Watched) -> Result<Live> {
        let live = watched.watch(self.moat(&INSTALL)?).env("MIRROR", "hangs").start()?;
        self.until_it_hangs()?;
        Ok(live)
    }

    fn until_it_hangs(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.mirror.hangs() {
            ensure!(Instant::now() < deadline, "nothing was downloaded");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What is in the store, by name, but its lock.
    fn stored(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data.join("moat/kernels")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }
}

#[test]
fn once_and_again() -> Result<()> {
    let place = Place::new()?;
    let first = place.moat(&INSTALL)?.run()?;
    first.status(0)?.stdout("kernel 9.9-test: 9.9-test from linux-image-9.9-test 9.9-1\n")?;
    first.stderr_has("downloading linux-image-9.9-test 9.9-1\n")?.stderr_has("unpacking")?;
    ensure!(place.stored() == [RELEASE, "default"], "{:?}", place.stored());
    place.moat(&["kernel", "ls"])?.run()?.status(0)?.stdout_has("9.9-test (default)")?;

    let again = place.moat(&["--format", "json", "kernel", "install"])?.run()?;
    let value = again.status(0)?.json()?;
    ensure!(value["name"] == RELEASE && value["default"] == true, "{value}");
    ensure!(place.mirror.downloads() == 1, "what is there was downloaded again");
    for line in again.err().lines() {
        serde_json::from_str::<serde_json::Value>(line)?;
    }

    // A kernel of the right size and with wrong contents is made again.
    let kernel = place.data.join("moat/kernels").join(RELEASE).join("vmlinux");
    let whole = fs::read(&kernel)?;
    fs::write(&kernel, vec![0; whole.len()])?;
    place.moat(&INSTALL)?.run()?.status(0)?;
    ensure!(place.mirror.downloads() == 2 && fs::read(&kernel)? == whole, "it stays broken");
    Ok(())
}

#[test]
fn stopped_by_a_signal() -> Result<()> {
    let place = Place::new()?;
    let watched = Watched::new(&place.space)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let live = place.hanging(&watched)?;
        live.signal(signal)?;
        let seen = live.finish()?;
        seen.status(128 + signal as i32)?.stderr_has("interrupted")?.stderr_lacks("error")?;
        ensure!(place.stored().is_empty(), "{signal}: {:?}", place.stored());
        watched.nothing(&place.space, &[])?;
    }
    Ok(())
}

#[test]
fn stopped_on_a_terminal() -> Result<()> {
    let place = Place::new()?;
    let watched = Watched::new(&place.space)?;
    let moat = watched.watch(place.moat(&INSTALL)?).env("MIRROR", "hangs");
    let mut terminal = Terminal::start(moat, 100, 20)?;
    terminal.wait_for("downloading linux-image-9.9-test")?;
    place.until_it_hangs()?;
    terminal.wait_for("%")?;
    terminal.send(b"\x03")?;
    terminal.wait_for("interrupted")?;
    let (status, _) = terminal.finish()?;
    ensure!(status == 130, "status {status}");
    ensure!(place.stored().is_empty(), "{:?}", place.stored());
    watched.nothing(&place.space, &[])
}

#[test]
fn not_stopped_by_what_is_ignored() -> Result<()> {
    let place = Place::new()?;
    let moat = Moat::through(&["nohup"], INSTALL)?.dir(place.space.path()).env("MIRROR", "slow");
    let live = place.mirror.serve(moat, &place.data).start()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while place.mirror.downloads() == 0 {
        ensure!(Instant::now() < deadline, "nothing was downloaded");
        thread::sleep(Duration::from_millis(10));
    }
    live.signal(Signal::SIGHUP)?;
    live.finish()?.status(0)?;
    ensure!(place.stored() == [RELEASE, "default"], "{:?}", place.stored());
    Ok(())
}

#[test]
fn killed() -> Result<()> {
    let place = Place::new()?;
    let watched = Watched::new(&place.space)?;
    let live = place.hanging(&watched)?;
    live.signal(Signal::SIGKILL)?;
    live.finish()?.status(137)?;
    watched.no_process()?;
    let left = place.stored();
    ensure!(left.len() == 1 && left[0].starts_with(".draft-"), "{left:?}");
    place.moat(&["kernel", "ls"])?.run()?.status(0)?.stdout_has("moat kernel install")?;
    let next = place.moat(&INSTALL)?.run()?;
    next.status(0)?.stderr_has("removing what a moat that was killed has left")?;
    ensure!(place.stored() == [RELEASE, "default"], "{:?}", place.stored());
    Ok(())
}

#[test]
fn two_at_once() -> Result<()> {
    let place = Place::new()?;
    let start = || place.moat(&INSTALL)?.env("MIRROR", "slow").start();
    let (one, other) = (start()?, start()?);
    let (one, other) = (one.finish()?, other.finish()?);
    one.status(0)?.stdout(&other.out())?;
    other.status(0)?;
    ensure!(place.mirror.downloads() == 1, "both downloaded");
    let waited = [&one, &other].iter().filter(|seen| seen.err().contains("waiting for")).count();
    ensure!(waited == 1, "{}\n{}", one.shown(), other.shown());
    Ok(())
}

/// A data directory of so much, and what is in the store at the end.
const SMALL: &str = "mkdir -p $XDG_DATA_HOME; mount -t tmpfs -o size=$SIZE,mode=700 none $XDG_DATA_HOME; \
    set +e; \"$@\"; status=$?; ls -A $XDG_DATA_HOME/moat/kernels >&2; exit $status";

#[test]
fn no_room() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can mount a small filesystem");
    }
    let place = Place::new()?;
    let mut outcomes = Vec::new();
    // For a half of the package, for it and a half of what is in it, and so on: it is the kernel,
    // which is stored as it is everywhere.
    let kernel = fs::metadata("/bin/busybox")?.len();
    for halves in [1, 3, 5, 9] {
        let moat = place.space.through(&in_mounts(SMALL), &INSTALL)?;
        let moat = moat.env("SIZE", (kernel * halves / 2).to_string());
        let seen = place.mirror.serve(moat, &place.data).run()?;
        match seen.status {
            0 => seen.stderr_has(RELEASE)?,
            _ => seen.refused(125, "kernel")?.stderr_has("free some disk space")?,
        };
        seen.stderr_lacks(".draft-")?;
        outcomes.push(seen.status);
    }
    ensure!(outcomes.first() == Some(&125) && outcomes.last() == Some(&0), "{outcomes:?}");
    Ok(())
}

#[test]
fn no_network_and_no_apt() -> Result<()> {
    let place = Place::new()?;
    let away = place.moat(&INSTALL)?.env("MIRROR", "away").run()?;
    away.refused(125, "kernel")?.stderr_has("resolving")?.stderr_has("moat kernel import")?;
    let seen = place.moat(&INSTALL)?.env("PATH", "/nowhere").run()?;
    seen.refused(125, "kernel")?.stderr_has("apt-cache is not there")?;
    ensure!(place.stored().is_empty(), "{:?}", place.stored());
    Ok(())
}

#[test]
fn as_a_plain_user() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("the other tests here do it");
    }
    let place = Place::new()?;
    let home = place.space.path().join("home");
    fs::create_dir(&home)?;
    chown(&home, Some(54321), Some(54321))?;
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(place.space.path().join("mirror"), open)?;
    let moat = place.space.through(&PLAIN_USER, &INSTALL)?.own_runtime_dir().env("HOME", &home);
    let moat = place.mirror.serve(moat, &home.join(".local/share"));
    moat.run()?.status(0)?;
    let kernels = home.join(".local/share/moat/kernels");
    ensure!(is_private(&kernels)? && kernels.join(RELEASE).is_dir(), "no bundle is there");
    Ok(())
}

fn is_private(dir: &Path) -> Result<bool> {
    Ok(fs::metadata(dir)?.permissions().mode() & 0o077 == 0)
}
