//! `moat ps`, `stats`, `pause` and `resume`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moat_tests::running::{Running, in_own_dir};
use moat_tests::seen::Seen;
use moat_tests::skip;
use moat_tests::workspace::Workspace;
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::Value;

const CONTAINER: Option<&str> = Some("container");

fn json(seen: &Seen) -> Result<Value> {
    seen.status(0)?;
    serde_json::from_slice(&seen.stdout).with_context(|| seen.shown())
}

#[test]
fn what_runs_is_listed_with_its_state() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let nothing = in_own_dir(&space, space.verb(&["ps", "--format", "json"])?)?.run()?;
    ensure!(json(&nothing)? == Value::Array(Vec::new()), "{}", nothing.shown());

    let running = Running::start(&space)?;
    let listed = json(&running.verb(&["ps", "--format", "json"])?.run()?)?;
    let row = &listed[0];
    ensure!(listed.as_array().map(Vec::len) == Some(1), "{listed}");
    ensure!(row["name"] == "case" && row["isolation"] == "container", "{row}");
    ensure!(row["state"] == "running" && row["age_seconds"].as_u64().is_some(), "{row}");
    let pid = row["pid"].as_u64().context("it has a pid")?;
    ensure!(std::fs::exists(format!("/proc/{pid}"))?, "process {pid} is not there");
    let shown = running.verb(&["ps"])?.run()?;
    shown.status(0)?.stdout_has("STATE")?.stdout_has("running")?;
    shown.stdout_has(row["id"].as_str().context("it has an id")?)?;
    running.finish()?.status(0)?;
    Ok(())
}

#[test]
fn a_paused_workload_stands_still_until_it_is_resumed() -> Result<()> {
    if !Uid::effective().is_root() {
        skip!("pausing takes a cgroup, which a plain user may not have");
    }
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    let act = |running: &Running<'_>, verb| running.verb(&[verb, "case"])?.run();
    act(&running, "pause")?.status(0)?.stdout_has("is paused")?;
    act(&running, "pause")?.status(0)?;
    running.verb(&["ps"])?.run()?.status(0)?.stdout_has("paused")?;
    // What it is told it says again only when it goes on.
    running.live().write(b"echoed\n")?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!running.live().out().contains("echoed"), "it goes on");
    act(&running, "stats")?.status(0)?.stdout_has("case")?;
    act(&running, "resume")?.status(0)?.stdout_has("is running")?;
    running.live().wait_for("echoed")?;
    act(&running, "resume")?.status(0)?;
    running.finish()?.status(0)?.stdout_has("ended")?;
    Ok(())
}

#[test]
fn a_paused_workload_can_be_stopped() -> Result<()> {
    if !Uid::effective().is_root() {
        skip!("pausing takes a cgroup, which a plain user may not have");
    }
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let mut running = Running::start_with(&space, "trap 'echo heard; exit 5' TERM")?;
    running.verb(&["pause", "case"])?.run()?.status(0)?;
    running.live().signal(Signal::SIGTERM)?;
    // The shell hears it once `cat` has ended.
    running.finish()?.status(5)?.stdout_has("heard")?;
    Ok(())
}

#[test]
fn the_next_moat_clears_up_after_a_paused_workload_whose_moat_was_killed() -> Result<()> {
    if !Uid::effective().is_root() {
        skip!("pausing takes a cgroup, which a plain user may not have");
    }
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let mut running = Running::start(&space)?;
    running.verb(&["pause", "case"])?.run()?.status(0)?;
    let listed = json(&running.verb(&["ps", "--format", "json"])?.run()?)?;
    let pid = listed[0]["pid"].as_u64().context("it has a pid")?;
    running.live().signal(Signal::SIGKILL)?;
    // It ends a moment later.
    let began = Instant::now();
    let said = loop {
        let seen = running.verb(&["ps"])?.run()?;
        seen.status(0)?;
        if !seen.stderr.is_empty() || began.elapsed() > Duration::from_secs(60) {
            break seen.err();
        }
    };
    ensure!(said.contains("cleaned up after case"), "{said}");
    // Whoever inherits orphans may not have reaped it yet.
    let left = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ensure!(left.is_empty() || left.contains("State:\tZ"), "process {pid} is left: {left}");
    Ok(())
}

#[test]
fn figures_are_in_units_that_say_what_they_are() -> Result<()> {
    if !Uid::effective().is_root() {
        skip!("figures take a cgroup, which a plain user may not have");
    }
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let running = Running::start(&space)?;
    let told = json(&running.verb(&["stats", "--format", "json"])?.run()?)?;
    let figures = &told[0]["figures"];
    let number = |key: &str| figures[key].as_u64().with_context(|| format!("{key} in {told}"));
    ensure!(number("memory_limit_bytes")? == 512 << 20, "{told}");
    ensure!((1..512 << 20).contains(&number("memory_bytes")?), "{told}");
    // The reaper, the shell and, if that has come so far, `cat`.
    ensure!((2..=3).contains(&number("pids")?), "{told}");
    ensure!(number("pids_limit")? == 512 && number("oom_kills")? == 0, "{told}");
    number("cpu_microseconds")?;
    let named = running.verb(&["stats", "case"])?.run()?;
    named.status(0)?.stdout_has("CPU TIME")?.stdout_has("of 512MiB")?;
    running.finish()?.status(0)?;
    Ok(())
}

#[test]
fn a_name_that_nothing_has_is_told_with_those_that_run() -> Result<()> {
    let space = Workspace::new(CONTAINER)?;
    space.spec("")?;
    let running = Running::start(&space)?;
    for verb in ["stats", "pause", "resume"] {
        let seen = running.verb(&[verb, "nobody"])?.run()?;
        seen.status(125)?;
        let said = seen.err();
        ensure!(said.contains("no running workload is called \"nobody\""), "{said}");
        ensure!(said.contains("these run: case ("), "{said}");
    }
    running.finish()?.status(0)?;
    Ok(())
}
