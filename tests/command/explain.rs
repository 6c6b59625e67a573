//! `moat explain`: what would happen and why, as text and as JSON; nothing is done.

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;

#[test]
fn as_text() -> Result<()> {
    let space = Workspace::new(None)?;
    space.spec("command = [\"touch\", \"/data/ran\"]\nvolumes = [\"./root:/data\"]\n[workload.case.vm]\nvcpus = 2")?;
    let watched = Watched::new(&space)?;
    let seen = watched.watch(space.verb(&["explain"])?).run()?;
    seen.status(0)?;
    for told in [
        "case\n",
        "isolation: container (rule trusted-prefers-container)",
        "trust:     trusted",
        "floor:     container (nobody set one)",
        "candidate: container",
        "candidate: vm",
        "rule:      trusted-prefers-container of policy dev: matched",
        "inert:     vm.vcpus means nothing in a container",
    ] {
        seen.stdout_has(told)?;
    }
    ensure!(seen.stderr.is_empty(), "{}", seen.shown());
    ensure!(!space.root().join("ran").exists(), "it ran");
    watched.nothing(&space, &[])
}

#[test]
fn as_json() -> Result<()> {
    let space = Workspace::new(None)?;
    space.whole_spec(
        "[workload.a]\nrootfs = \"root\"\ncommand = [\"true\"]\n\
         [workload.b]\nrootfs = \"root\"\ncommand = [\"true\"]\ntrust = \"untrusted\"\n",
    )?;
    let seen = space.verb(&["explain", "--format", "json"])?.run()?;
    let told = seen.status(0)?.json()?;
    ensure!(told.as_array().map(Vec::len) == Some(2), "{told}");
    ensure!(told[0]["workload"]["name"] == "a", "{told}");
    ensure!(told[0]["decision"]["isolation"] == "container", "{told}");
    ensure!(told[0]["decision"]["requested"] == "auto", "{told}");
    ensure!(told[1]["workload"]["trust"] == "untrusted", "{told}");
    let one = space.verb(&["explain", "moat.toml", "b", "--format", "json"])?.run()?.json()?;
    ensure!(one.as_array().map(Vec::len) == Some(1), "{one}");
    Ok(())
}

#[test]
fn a_refusal_is_a_result_with_the_status_that_run_would_have() -> Result<()> {
    if host::has_vms() {
        moat_tests::skip!("this host can run micro-VMs");
    }
    let space = Workspace::new(None)?;
    space.spec("command = [\"true\"]")?;
    let text = space.verb(&["explain", "--isolation", "vm"])?.run()?;
    text.status(5)?.stdout_has("refused:")?;
    let json = space.verb(&["explain", "--isolation", "vm", "--format", "json"])?.run()?;
    let told = json.status(5)?.json()?;
    ensure!(told[0]["message"].as_str().is_some_and(|text| text.contains("vm")), "{told}");
    ensure!(told[0]["decision"].is_null(), "{told}");
    Ok(())
}
