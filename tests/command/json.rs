//! `--format json`: what moat says while it runs, one JSON value a line, and nothing else.

use anyhow::{Context, Result, ensure};
use moat_tests::workspace::Workspace;
use serde_json::Value;

#[test]
fn a_run_says_how_it_is_isolated() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    space.spec("")?;
    let args = [&space.run_args(&[])[..], &["--format", "json", "--", "echo", "hello"]].concat();
    let seen = space.verb(&args)?.run()?;
    seen.status(0)?.stdout("hello\n")?;
    let err = seen.err();
    let lines: Vec<Value> = err.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let note = lines.first().context("nothing was said")?;
    ensure!(note["isolation"] == "container", "{note}");
    ensure!(note["requested"] == "container", "{note}");
    ensure!(note["policy"] == "dev", "{note}");
    ensure!(note["reason"].is_string(), "{note}");
    Ok(())
}

#[test]
fn errors_have_code_status_causes_and_hint() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    space.spec("")?;
    let args = [&space.run_args(&[])[..], &["--format", "json", "--", "nosuch"]].concat();
    let error = space.verb(&args)?.run()?.status(127)?.json_error()?;
    ensure!(error["code"] == "not-found" && error["status"] == 127, "{error}");
    ensure!(error["hint"].is_string() && error["causes"].is_array(), "{error}");
    let error = space.verb(&["run", "nosuch.toml", "--format", "json"])?.run()?.json_error()?;
    ensure!(error["code"] == "spec" && error["status"] == 3, "{error}");
    let causes = error["causes"].to_string();
    ensure!(causes.contains("No such file"), "{error}");
    Ok(())
}

#[test]
fn warnings_are_objects() -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    space.spec("[workload.case.resources]\nmemory = \"32MiB\"")?;
    let args =
        [&space.run_args(&[])[..], &["--format", "json", "--", "tail", "/dev/zero"]].concat();
    let seen = space.verb(&args)?.run()?;
    seen.status(137)?;
    let warned = seen.err().lines().any(|line| {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        value["warning"].as_str().is_some_and(|text| text.contains("memory limit of 32MiB"))
    });
    ensure!(warned, "{}", seen.shown());
    Ok(())
}
