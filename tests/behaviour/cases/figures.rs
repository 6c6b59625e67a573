//! What runs is listed, with what it uses in units that say what they are.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::running::{Running, in_own_dir};
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let nothing = in_own_dir(&space, space.verb(&["ps", "--format", "json"])?)?.run()?;
    ensure!(nothing.status(0)?.json()? == serde_json::json!([]), "{}", nothing.shown());
    let running = Running::start(&space)?;
    listed(wall, &running)?;
    if wall == Wall::Container && !host::is_root() {
        running.finish()?.status(0)?;
        moat_tests::skip!("figures of a container take a cgroup, which a plain user may not have");
    }
    let told = running.verb(&["stats", "--format", "json"])?.run()?;
    let told = told.status(0)?.json()?;
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
    Ok(Vec::new())
}

fn listed(wall: Wall, running: &Running<'_>) -> Result<()> {
    // The workload's first line may be seen before moat has written down that it runs.
    let until = Instant::now() + Duration::from_secs(20);
    let listed = loop {
        let listed = running.verb(&["ps", "--format", "json"])?.run()?;
        let listed = listed.status(0)?.json()?;
        if listed[0]["state"] != "starting" || until < Instant::now() {
            break listed;
        }
    };
    let row = &listed[0];
    ensure!(listed.as_array().map(Vec::len) == Some(1), "{listed}");
    ensure!(row["name"] == "case" && row["isolation"] == wall.name(), "{row}");
    ensure!(row["state"] == "running" && row["age_seconds"].as_u64().is_some(), "{row}");
    let pid = row["pid"].as_u64().context("it has a pid")?;
    ensure!(std::fs::exists(format!("/proc/{pid}"))?, "process {pid} is not there");
    let shown = running.verb(&["ps"])?.run()?;
    shown.status(0)?.stdout_has("STATE")?.stdout_has("running")?;
    shown.stdout_has(row["id"].as_str().context("it has an id")?)?;
    Ok(())
}
