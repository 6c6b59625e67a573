//! `moat run --dry-run`: the plan's steps, none of which is taken.

use anyhow::{Context, Result, ensure};
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;

#[test]
fn steps_are_shown_and_not_taken() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    space.write("data/here", "")?;
    space.spec("volumes = [\"./data:/data\"]\nhostname = \"dry\"\ntmpfs = [\"/scratch:1MiB\"]")?;
    let watched = Watched::new(&space)?;
    let args = ["run", "moat.toml", "--isolation", "container", "--dry-run"];
    let args = [&args[..], &["--", "touch", "/data/ran"]].concat();
    let seen = watched.watch(space.verb(&args)?).run()?;
    seen.status(0)?.stderr_has("isolation: container (asked on the command line)")?;
    for told in ["  1  ", "  2  ", "/data", "/scratch", "dry", "touch"] {
        seen.stdout_has(told)?;
    }
    ensure!(space.read("data/ran").is_err(), "it ran");
    watched.nothing(&space, &[])?;

    let json = [&["--format", "json"], &args[..]].concat();
    let seen = watched.watch(space.verb(&json)?).run()?;
    let steps = seen.status(0)?.json()?;
    let steps = steps.as_array().context("the steps are no array")?;
    ensure!(steps.len() > 5, "only {steps:?}");
    for step in steps {
        ensure!(step["action"].is_string() && step["detail"].is_string(), "{step}");
    }
    Ok(())
}

#[test]
fn what_could_not_be_run_is_refused_as_well() -> Result<()> {
    let space = Workspace::new(None)?;
    space.spec("command = [\"true\"]\n[workload.case.isolation]\nmin = \"vm\"")?;
    let args = ["run", "moat.toml", "--dry-run", "--isolation", "container"];
    space.verb(&args)?.run()?.refused(4, "denied")?;
    Ok(())
}
