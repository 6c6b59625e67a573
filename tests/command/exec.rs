//! `moat exec` where there is nothing to enter, or not for this user.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use moat_core::workload::MAX_SESSIONS;
use moat_tests::host;
use moat_tests::moat::Moat;
use moat_tests::running::{Running, in_own_dir};
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use crate::plain_user::plain;
use crate::starters::PLAIN_USER;

const CONTAINER: Option<&str> = Some("container");

#[test]
fn what_does_not_run_is_told_with_what_does() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let none = in_own_dir(&space, space.verb(&["exec", "case", "true"])?)?;
    none.run()?.refused(125, "not-running")?.stderr_has("nothing of this user runs")?;
    let running = Running::start(&space)?;
    let other = running.verb(&["exec", "web", "true"])?.run()?;
    other.refused(125, "not-running")?.stderr_has("\"web\"")?.stderr_has("these run: case (")?;
    for args in [&["exec"][..], &["exec", "case"], &["exec", "-e", "=x", "case", "true"]] {
        running.verb(args)?.run()?.refused(2, "usage")?;
    }
    for args in [["-w", "tmp"], ["-u", ":"]] {
        running.verb(&[&["exec"], &args[..], &["case", "true"]].concat())?.run()?.status(2)?;
    }
    running.finish()?.status(0)?;
    Ok(())
}

#[test]
fn of_several_the_id_tells_one() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let first = Running::start_with(&space, "echo first > /tmp/which")?;
    let second = Running::start_with(&space, "echo second > /tmp/which")?;
    let refused = first.exec(&["true"])?;
    refused.refused(125, "not-running")?.stderr_has("2 running workloads are meant by case")?;
    let text = refused.err();
    let hint = text.lines().find_map(|line| line.split_once("by its id: ")).unwrap_or_default();
    let ids: Vec<_> = hint.1.split(", ").collect();
    ensure!(ids.len() == 2, "{text}");
    let mut which = Vec::new();
    for id in &ids {
        // The beginning is enough, unless both begin so.
        let shared = ids[0].bytes().zip(ids[1].bytes()).take_while(|(a, b)| a == b).count();
        let seen = first.verb(&["exec", &id[..=shared], "cat", "/tmp/which"])?.run()?;
        which.push(seen.status(0)?.out());
    }
    which.sort();
    ensure!(which == ["first\n", "second\n"], "{which:?}");
    first.finish()?.status(0)?;
    second.exec(&["true"])?.status(0)?;
    second.finish()?.status(0)?;
    Ok(())
}

#[test]
fn a_workload_that_ends_meanwhile_is_told() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    let mut lives = Vec::new();
    for number in 0..30 {
        if number == 15 {
            running.live().close_stdin();
        }
        lives.push(running.verb(&["exec", "case", "sleep", "0.05"])?.start()?);
    }
    let mut statuses = Vec::new();
    for live in lives {
        let seen = live.finish()?;
        // It ran, was ended with the workload, or came too late.
        let fine = matches!(seen.status, 0 | 137)
            || seen.status == 125 && seen.err().contains("error[not-running]");
        ensure!(fine, "{}", seen.shown());
        statuses.push(seen.status);
    }
    ensure!(statuses.contains(&125), "none came too late: {statuses:?}");
    running.finish()?.status(0)?;
    Ok(())
}

#[test]
fn a_moat_that_was_killed_answers_no_more() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let running = Running::start(&space)?;
    let mut kept =
        running.verb(&["exec", "case", "sh", "-c", "echo in; exec sleep 60"])?.start()?;
    kept.wait_for("in\n")?;
    // By now its moat has been told that it runs.
    running.exec(&["true"])?.status(0)?;
    let late = running.verb(&["exec", "case", "true"])?;
    let mut running = running;
    running.live().signal(Signal::SIGKILL)?;
    let _ = running.finish();
    kept.finish()?.status(137)?;
    late.run()?.refused(125, "not-running")?;
    Ok(())
}

#[test]
fn clients_that_say_nothing_or_nonsense_hold_nobody_up() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    // From now on its socket is there.
    running.sh("true")?.status(0)?;
    let instances = space.path().join("runtime/moat/instances");
    let instance = std::fs::read_dir(instances)?.next().context("no instance")??.path();
    let address = UnixAddr::new(&instance.join("control"))?;
    let client = || -> Result<OwnedFd> {
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(socket)
    };
    let say = |socket: &OwnedFd, bytes: &[u8]| {
        send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
    };
    // More than are served at a time, and some in the middle of a message.
    let silent = (0..300).map(|_| client()).collect::<Result<Vec<_>>>()?;
    for socket in silent.iter().skip(200) {
        let _ = say(socket, &[&[2, 1][..], &[0; 1000]].concat());
    }
    for nonsense in [&b""[..], b"x", b"\x01\x00", b"\x02\x00\xff\xff\xff", b"\x02\x02"] {
        let socket = client()?;
        let _ = say(&socket, nonsense);
    }
    // An order to start a process, but without its streams; and one that does not hear the answer.
    for _ in 0..50 {
        let _ = say(&client()?, b"\x02\x00\x00\x01\x04true\x00\x00\x00\x00");
    }
    running.sh("echo served")?.status(0)?.stdout("served\n")?;
    running.live().write(b"and the workload too\n")?;
    running.live().wait_for("and the workload too\n")?;
    drop(silent);
    running.finish()?.status(0)?;
    Ok(())
}

#[test]
fn a_plain_user_enters_what_is_their_own() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("all other tests run as a plain user already");
    }
    for lines in ["", "init = false"] {
        let space = Workspace::new(CONTAINER)?;
        space.spec(lines)?;
        let script = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; \
                      grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status; \
                      cat /proc/self/uid_map; ls /proc/self/fd | wc -l";
        let own = format!("({script}) < /dev/null > /dev/shm/own 2>&1; echo ready; cat");
        let live = plain(&space, &space.run_args(&["sh", "-c", &own]))?.stdin_open().start()?;
        let mut running = Running::wait(&space, live)?;
        let further = plain(&space, &["exec", "case", "sh", "-c", script])?.run()?;
        let own = plain(&space, &["exec", "case", "cat", "/dev/shm/own"])?.run()?;
        further.status(0)?;
        ensure!(further.out() == own.out(), "own: {}\nfurther: {}", own.shown(), further.shown());
        plain(&space, &["exec", "case", "sh", "-c", "exit 6"])?.run()?.status(6)?;

        // Nobody else comes in, and root's own they can't even see.
        let stranger = Moat::program("setpriv", ["--reuid=54322", "--regid=54322"])
            .arg("--clear-groups")
            .arg(space.path().join("moat"))
            .env("XDG_RUNTIME_DIR", space.path().join("run"))
            .env("HOME", "/")
            .dir(space.path());
        let stranger = ["exec", "case", "true"].into_iter().fold(stranger, Moat::arg).run()?;
        stranger.status(125)?.stdout("")?.stderr_has("error[")?;
        running.live().close_stdin();
        running.finish()?.status(0)?;
    }
    ensure!(PLAIN_USER[0] == "setpriv", "the same program starts them");
    Ok(())
}

#[test]
fn as_many_as_a_workload_may_have_and_no_more() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    let start = || running.verb(&["exec", "case", "sh", "-c", "echo in; exec sleep 1000"])?.start();
    let mut clients = (0..MAX_SESSIONS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    clients.iter_mut().try_for_each(|client| client.wait_for("in\n"))?;
    running.exec(&["true"])?.refused(125, "state")?.stderr_has("128 further processes")?;
    // They go on without those who began them.
    drop(clients);
    running.exec(&["true"])?.refused(125, "state")?.stderr_has("they go on when")?;
    running.live().write(b"and the workload too\n")?;
    running.live().wait_for("and the workload too\n")?;
    running.finish()?.status(0)?;
    Ok(())
}
