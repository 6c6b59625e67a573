//! Floors can't be undercut, and nothing gets weaker in silence.

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::moat::Moat;
use moat_tests::workspace::Workspace;

/// What would show that the workload ran all the same.
const COMMAND: &str =
    "command = [\"sh\", \"-c\", \"echo ran > /data/ran\"]\nvolumes = [\"./data:/data\"]\n";

fn space(lines: &str) -> Result<Workspace> {
    let space = Workspace::new(None)?;
    space.write("data/here", "")?;
    space.spec(&format!("{COMMAND}{lines}"))?;
    Ok(space)
}

fn did_not_run(space: &Workspace) -> Result<()> {
    ensure!(space.read("data/ran").is_err(), "it ran all the same");
    Ok(())
}

#[test]
fn the_authors_floor_stands_above_the_command_line() -> Result<()> {
    let space = space("[workload.case.isolation]\nmin = \"vm\"")?;
    let seen = space.verb(&["run", "moat.toml", "--isolation", "container"])?.run()?;
    seen.refused(4, "denied")?.stderr_has("isolation.min of the spec")?;
    let seen = space.verb(&["explain", "moat.toml", "--isolation", "container"])?.run()?;
    seen.status(4)?.stdout_has("isolation.min of the spec")?;
    did_not_run(&space)
}

#[test]
fn a_policys_floor_stands_above_spec_and_command_line() -> Result<()> {
    let space = space("trust = \"untrusted\"\n[workload.case.isolation]\nlevel = \"container\"")?;
    for args in [
        &["run", "moat.toml", "--policy", "security"][..],
        &["run", "moat.toml", "--policy", "security", "--isolation", "container"],
    ] {
        let seen = space.verb(args)?.run()?;
        seen.refused(4, "denied")?.stderr_has("rule untrusted-needs-vm")?;
    }
    did_not_run(&space)
}

#[test]
fn trust_can_be_lowered_on_the_command_line() -> Result<()> {
    let space = space("")?;
    let args = ["run", "moat.toml", "--policy", "security", "--trust", "untrusted"];
    let args = [&args[..], &["--isolation", "container"]].concat();
    space.verb(&args)?.run()?.refused(4, "denied")?;
    did_not_run(&space)
}

#[test]
fn a_floor_that_this_host_can_not_reach_is_a_refusal() -> Result<()> {
    if host::has_vms() {
        moat_tests::skip!("this host can run micro-VMs");
    }
    let space = space("[workload.case.isolation]\nmin = \"vm\"")?;
    for flags in [&[][..], &["--isolation", "auto"], &["--isolation", "vm"]] {
        let args = [&["run", "moat.toml"], flags].concat();
        space.verb(&args)?.run()?.refused(5, "unavailable")?;
    }
    did_not_run(&space)
}

#[test]
fn a_fallback_that_policy_allows_is_named() -> Result<()> {
    if host::has_vms() {
        moat_tests::skip!("this host can run micro-VMs, and needs no fallback");
    }
    let space = space("trust = \"untrusted\"")?;
    let seen = space.verb(&["run", "moat.toml"])?.run()?;
    seen.status(0)?.stderr_has("warning: policy dev prefers vm")?;
    seen.stderr_has("isolation: container")?;
    ensure!(space.read("data/ran")? == "ran\n", "it did not run");
    // A warning is no chatter.
    let args = ["run", "moat.toml", "--quiet"];
    space.verb(&args)?.run()?.status(0)?.stderr_has("warning: policy dev prefers vm")?;
    Ok(())
}

#[test]
fn an_explicit_ask_is_no_wish() -> Result<()> {
    if host::has_vms() {
        moat_tests::skip!("this host can run micro-VMs");
    }
    let space = space("[workload.case.isolation]\nlevel = \"vm\"")?;
    let seen = space.verb(&["run", "moat.toml"])?.run()?;
    seen.refused(5, "unavailable")?.stderr_has("--isolation container")?;
    did_not_run(&space)
}

#[test]
fn a_memory_budget_denies() -> Result<()> {
    let seen = Moat::new(["explain", "--policy", "density", "--", "true"])?.run()?;
    seen.status(0)?;
    let space = space("[workload.case.resources]\nmemory = \"60TiB\"")?;
    let seen = space.verb(&["run", "moat.toml", "--policy", "density"])?.run()?;
    seen.refused(4, "denied")?.stderr_has("memory-budget")?;
    did_not_run(&space)
}
