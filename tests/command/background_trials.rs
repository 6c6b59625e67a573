//! `moat run -d` where something is in its way: no room, no rights, others that want the same, and a
//! command that is interrupted.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::kept::Kept;
use moat_tests::moat::executable;
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::plain_user::plain;
use crate::starters::in_mounts;

const CONTAINER: Option<&str> = Some("container");

/// A data directory that has no room for one more byte.
const NO_BYTES: &str = "mount -t tmpfs -o size=16k,mode=700 none $XDG_DATA_HOME; \
    dd if=/dev/zero of=$XDG_DATA_HOME/full 2>/dev/null || true; exec \"$@\"";

/// One that can't be written at all.
const READ_ONLY: &str = "mount -t tmpfs -o ro,mode=700 none $XDG_DATA_HOME; exec \"$@\"";

/// One that has room for the records and some output.
const LITTLE: &str = "mount -t tmpfs -o size=200k,mode=700 none $XDG_DATA_HOME; \"$@\" > /dev/null; \
    $MOAT wait case > /dev/null || exit 1; $MOAT logs --tail 1 case >&2; exec $MOAT inspect case";

#[test]
fn no_room_for_what_is_kept() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can mount a small filesystem");
    }
    for script in [NO_BYTES, READ_ONLY] {
        let space = Workspace::new(CONTAINER)?;
        let watched = Watched::new(&space)?;
        space.spec(&watched.spec_line())?;
        let data = space.data_home()?;
        let args = [&["run", "-d"][..], &space.run_args(&["sleep", "1000"])[1..]].concat();
        let moat = space.through(&in_mounts(script), &args)?.env("XDG_DATA_HOME", data);
        watched.watch(moat).run()?.refused(125, "state")?.stderr_has("share/moat/instances")?;
        watched.nothing(&space, &[])?;
    }
    Ok(())
}

#[test]
fn no_room_for_its_output() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can mount a small filesystem");
    }
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let kept = Kept::new(&space)?;
    let script = "yes | head -c 1000000; exit 0";
    let args = [&["run", "-d"][..], &space.run_args(&["sh", "-c", script])[1..]].concat();
    let moat = space.through(&in_mounts(LITTLE), &args)?.env("XDG_DATA_HOME", space.data_home()?);
    let watched = Watched::new(&space)?;
    let seen = watched.watch(moat).env("MOAT", executable()?).run()?;
    let told = seen.status(0)?.json()?;
    ensure!(told["output_lost"] == true, "nothing was lost: {told}");
    ensure!(told["state"] == "ended" && told["status"] == 0, "{told}");
    seen.stderr_has("y\n")?;
    drop(kept);
    Ok(())
}

#[test]
fn a_plain_user_has_it_too() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("all other tests run as a plain user already");
    }
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let moat = |args: &[&str]| -> Result<Seen> {
        plain(&space, args)?.env("XDG_DATA_HOME", space.path().join("home/share")).run()
    };
    let args = space.run_args(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
    let started = moat(&[&["run", "-d", "-q"], &args[1..]].concat())?;
    let id = started.status(0)?.out().trim_end().to_owned();
    moat(&["wait", &id])?.status(3)?;
    moat(&["logs", "case"])?.status(0)?.stdout("out\n")?.stderr("err\n")?;
    moat(&["rm", "case"])?.status(0)?;
    moat(&["ps", "-a"])?.status(0)?.stdout_lacks(&id)?;
    Ok(())
}

#[test]
fn of_many_that_want_a_name_one_gets_it() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let kept = Kept::new(&space)?;
    let started: Vec<_> =
        (0..6).map(|_| kept.moat(&[], "sleep 1000")?.start()).collect::<Result<_>>()?;
    let mut got = 0;
    for live in started {
        let seen = live.finish()?;
        match seen.status {
            0 => got += 1,
            _ => drop(seen.refused(125, "in-use")?),
        }
    }
    ensure!(got == 1 && kept.dirs().len() == 1, "{got} got the name: {:?}", kept.dirs());
    kept.ask(&["rm", "-f", "case"])?.status(0)?;
    Ok(())
}

#[test]
fn a_command_that_is_interrupted_takes_the_workload_along() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    let kept = Kept::new(&space)?;
    let moat = watched.watch(kept.moat(&[], "sleep 1000")?);
    let live = moat.env("MOAT_FAULT_POINT", "HeardStarted:halt").start()?;
    let began = Instant::now();
    let soon = |what: &str| -> Result<()> {
        ensure!(began.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(5));
        Ok(())
    };
    let monitor = loop {
        match monitor(&space).filter(|pid| is(*pid, 'T')) {
            Some(pid) => break pid,
            None => soon("the monitor never stood still")?,
        }
    };
    live.signal(Signal::SIGINT)?;
    let command = i32::try_from(live.pid())?;
    while !is(command, 'Z') {
        soon("the command was not interrupted")?;
    }
    kill(Pid::from_raw(monitor), Signal::SIGCONT)?;
    live.finish()?.status(130)?;
    watched.no_process()?;
    ensure!(kept.dirs().is_empty(), "something is kept: {:?}", kept.dirs());
    watched.nothing(&space, &[])
}

/// The monitor, by its journal.
fn monitor(space: &Workspace) -> Option<i32> {
    let instances = fs::read_dir(space.path().join("runtime/moat/instances")).ok()?;
    let dir = instances.flatten().next()?.path();
    let journal = fs::read_to_string(dir.join("instance.jsonl")).ok()?;
    let header: Value = serde_json::from_str(journal.lines().next()?).ok()?;
    i32::try_from(header["monitor"]["pid"].as_i64()?).ok()
}

/// Whether a process is in this state (proc(5)).
fn is(pid: i32, state: char) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains(&format!("State:\t{state}"))
}
