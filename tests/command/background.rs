//! `moat run -d`, and what acts on what is kept: names, projects, faults, logs.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moat_tests::kept::Kept;
use moat_tests::running::Running;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CONTAINER: Option<&str> = Some("container");

fn space() -> Result<Workspace> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    Ok(space)
}

#[test]
fn a_name_is_taken_in_its_project_until_it_is_removed() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    let first = kept.start(&["-p", "shop"], "sleep 1000")?;
    let refused = kept.moat(&["-p", "shop"], "true")?.run()?;
    refused.refused(125, "in-use")?.stderr_has(&first)?.stderr_has("moat stop case")?;
    // In the foreground there may be as many as ever.
    space.run(&["true"])?.status(0)?;
    let second = kept.start(&["-p", "bank"], "sleep 1000")?;
    let refused = kept.ask(&["stop", "case"])?;
    refused.refused(125, "not-running")?.stderr_has(&first)?.stderr_has(&second)?;
    kept.ask(&["stop", "-p", "bank", "-t", "0s", "case"])?.status(0)?;
    let refused = kept.ask(&["inspect", "case"])?;
    refused.refused(125, "not-running")?.stderr_has("(project shop)")?;
    ensure!(kept.inspect(&first)?["state"] == "running", "the other was stopped");
    kept.moat(&["-p", "bank"], "true")?
        .run()?
        .refused(125, "in-use")?
        .stderr_has("moat rm case")?;
    kept.ask(&["rm", "-p", "bank", "case"])?.status(0)?;
    kept.start(&["-p", "bank"], "true")?;
    kept.ask(&["rm", "-p", "none", "case"])?
        .refused(125, "not-running")?
        .stderr_has("project none")?;
    Ok(())
}

#[test]
fn the_project_is_the_specs_directory() -> Result<()> {
    let space = space()?;
    space.write(
        "My Shop/moat.toml",
        "[workload.web]\nrootfs = \"../root\"\ncommand = [\"true\"]\n",
    )?;
    let kept = Kept::new(&space)?;
    let seen = kept.ask(&[
        "run",
        "-d",
        "--format",
        "json",
        "My Shop/moat.toml",
        "--isolation",
        "container",
    ])?;
    let told = seen.status(0)?.json()?;
    ensure!(told["project"] == "my-shop" && told["name"] == "web", "{told}");
    Ok(())
}

#[test]
fn what_can_not_start_fails_in_the_foreground_and_is_not_kept() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    let with = |command: &[&str]| -> Result<Seen> {
        let mut args = space.run_args(command);
        args.insert(1, "--detach");
        kept.ask(&args)
    };
    with(&["/no/such"])?.refused(127, "not-found")?;
    with(&["/etc/passwd"])?.status(126)?;
    kept.ask(&["run", "-d", "none.toml"])?.refused(3, "spec")?;
    for args in [&["run", "--rm"][..], &["run", "-p", "x"], &["run", "-d", "--dry-run"]] {
        kept.ask(args)?.refused(2, "usage")?;
    }
    ensure!(kept.dirs().is_empty(), "something is kept");
    let listed = kept.ask(&["ps", "-a", "--format", "json"])?.status(0)?.json()?;
    ensure!(listed == serde_json::json!([]), "{listed}");
    Ok(())
}

#[test]
fn its_monitor_leaves_all_that_was_the_commands() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    // A pipe that whoever started moat waits for the end of.
    let (mut reader, writer) = std::io::pipe()?;
    let writer = OwnedFd::from(writer);
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty()))?;
    kept.start(&[], "sleep 1000")?;
    drop(writer);
    reader.read_to_end(&mut Vec::new())?;

    let monitor = kept.monitor("case")?;
    let stat = fs::read_to_string(format!("/proc/{monitor}/stat"))?;
    let fields: Vec<_> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    // Group, session and terminal (proc(5)).
    ensure!(fields[2] == monitor.to_string() && fields[3] == monitor.to_string(), "{stat}");
    ensure!(fields[4] == "0", "{stat}");
    ensure!(fs::read_link(format!("/proc/{monitor}/cwd"))?.as_os_str() == "/", "its directory");
    for number in 0..=2 {
        let to = fs::read_link(format!("/proc/{monitor}/fd/{number}"))?;
        ensure!(to.as_os_str() == "/dev/null", "{number} is {}", to.display());
    }
    ensure!(reader.as_raw_fd() > 2, "no descriptor of the test's is one of these");
    Ok(())
}

#[test]
fn its_monitor_rests_in_little_memory() -> Result<()> {
    // 2 MB, for the build that users have; this one has twice the code.
    const MOST: u64 = 4 << 10;
    let space = space()?;
    let kept = Kept::new(&space)?;
    kept.start(&[], "echo out; sleep 1000")?;
    kept.ask(&["exec", "case", "true"])?.status(0)?;
    let status = format!("/proc/{}/status", kept.monitor("case")?);
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(&status)?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let size: u64 = line.trim().trim_end_matches(" kB").parse()?;
        if size < MOST {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "{size} KiB");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn with_rm_nothing_is_kept_after_the_end() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    kept.start(&["--rm"], "exit 3")?;
    let waiting =
        kept.start(&["--rm", "-p", "other"], "while ! [ -e /go ]; do sleep 0.05; done; exit 4")?;
    let wait = kept.verb(&["wait", &waiting])?.start()?;
    kept.ask(&["exec", &waiting, "touch", "/go"])?.status(0)?;
    let waited = wait.finish()?;
    ensure!(waited.status == 4 || waited.err().contains("no workload"), "{}", waited.shown());
    let began = Instant::now();
    while !kept.dirs().is_empty() {
        ensure!(began.elapsed().as_secs() < 60, "something is kept: {:?}", kept.dirs());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn logs_are_cut_as_asked() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    kept.start(&[], "for i in 1 2 3; do echo line $i; done; printf end")?;
    kept.ask(&["wait", "case"])?.status(0)?;
    let logs = |args: &[&str]| kept.ask(&[&["logs", "case"], args].concat());
    logs(&[])?.status(0)?.stdout("line 1\nline 2\nline 3\nend")?;
    logs(&["--tail", "2"])?.status(0)?.stdout("line 3\nend")?;
    logs(&["--tail", "0"])?.status(0)?.stdout("")?;
    logs(&["--tail", "100", "--since", "10m"])?.stdout_has("line 1")?;
    logs(&["--since", "0s"])?.status(0)?.stdout("")?;
    logs(&["--since", "2200-01-01T00:00:00Z", "--follow"])?.status(0)?.stdout("")?;
    logs(&["--since", "yesterday"])?.refused(2, "usage")?;
    let stamped = logs(&["--timestamps"])?;
    let line = stamped.status(0)?.out().lines().next().unwrap_or_default().to_owned();
    let (time, text) = line.split_once(' ').context("no time")?;
    ensure!(text == "line 1" && time.starts_with("20") && time.ends_with('Z'), "{line}");
    let json = logs(&["--format", "json", "--tail", "2"])?;
    let lines: Vec<serde_json::Value> =
        json.out().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 2 && lines[0]["text"] == "line 3", "{lines:?}");
    ensure!(lines[1]["whole"] == false && lines[1]["stream"] == "stdout", "{lines:?}");
    Ok(())
}

#[test]
fn more_output_than_is_kept_is_no_trouble() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    // 40 MiB; 30 are kept.
    kept.start(
        &[],
        "yes 0123456789012345678901234567890123456789 | head -c 41943040; echo; echo last",
    )?;
    kept.ask(&["wait", "case"])?.status(0)?;
    kept.ask(&["logs", "--tail", "1", "case"])?.stdout("last\n")?;
    let dir = kept.dirs().pop().context("nothing is kept")?;
    let mut size = 0;
    for entry in fs::read_dir(&dir)? {
        size += entry?.metadata()?.len();
    }
    ensure!((20 << 20..32 << 20).contains(&size), "{size} bytes are kept");
    ensure!(kept.inspect("case")?["output_lost"] == false, "some was lost");
    Ok(())
}

#[test]
fn a_terminal_that_nobody_looks_at_does_not_end() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("tty = true")?;
    let kept = Kept::new(&space)?;
    kept.start(&[], "stty size; tty; read word")?;
    let mut follow = kept.verb(&["logs", "-f", "case"])?.start()?;
    follow.wait_for("/dev/pts/0")?;
    ensure!(follow.out().starts_with("24 80"), "{}", follow.out());
    ensure!(kept.inspect("case")?["state"] == "running", "it has ended");
    kept.ask(&["rm", "-f", "case"])?.status(0)?;
    Ok(())
}

#[test]
fn a_monitor_that_stands_still_is_removed_with_its_workload() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    let id = kept.start(&[], "sleep 1000")?;
    let pid = kept.inspect("case")?["pid"].as_i64().context("it has no pid")?;
    kill(Pid::from_raw(kept.monitor("case")?), Signal::SIGSTOP)?;
    let removed = kept.ask(&["rm", "--force", "case"])?;
    removed.status(0)?.stderr_has("cleaned up after")?.stderr_has(&id)?;
    ensure!(kept.dirs().is_empty(), "something is kept");
    let left = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ensure!(left.is_empty() || left.contains("State:\tZ"), "process {pid} is left: {left}");
    Ok(())
}

#[test]
fn what_is_damaged_is_listed_and_can_be_removed() -> Result<()> {
    let space = space()?;
    let kept = Kept::new(&space)?;
    let id = kept.start(&[], "true")?;
    kept.ask(&["wait", "case"])?.status(0)?;
    let dir = kept.dirs().pop().context("nothing is kept")?;
    fs::write(dir.join("instance.json"), "{\"id\":\"0")?;
    fs::write(dir.join("state.json"), "")?;
    kept.ask(&["ps", "-a"])?.status(0)?.stdout_has(&id)?;
    kept.ask(&["inspect", &id])?.status(0)?;
    kept.ask(&["wait", &id])?.refused(125, "state")?;
    kept.ask(&["rm", &id])?.status(0)?;
    ensure!(kept.dirs().is_empty(), "something is kept");
    Ok(())
}

#[test]
fn a_workload_in_the_foreground_is_stopped_and_waited_for_too() -> Result<()> {
    let space = space()?;
    let running = Running::start(&space)?;
    running
        .verb(&["logs", "case"])?
        .run()?
        .refused(125, "not-running")?
        .stderr_has("in the foreground")?;
    running.verb(&["rm", "case"])?.run()?.refused(125, "in-use")?;
    let wait = running.verb(&["wait", "case"])?.start()?;
    let told = running.verb(&["inspect", "case"])?.run()?.status(0)?.json()?;
    ensure!(told["requested"].is_null() && told["decided"]["isolation"] == "container", "{told}");
    running.verb(&["stop", "case"])?.run()?.status(0)?.stdout_has("has ended with 143")?;
    // It may have come too late: nothing is kept of what was in the foreground.
    let waited = wait.finish()?;
    ensure!(waited.out() == "143\n" || waited.err().contains("no workload"), "{}", waited.shown());
    running.finish()?.status(143)?;
    Ok(())
}
