//! `moat doctor`: what this host can run, found out by doing, and what to do about the rest.

use anyhow::{Context, Result, ensure};
use moat_tests::host;
use moat_tests::moat::Moat;
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;
use serde_json::Value;

use crate::starters::{FALSE_KVM, NO_KVM, in_mounts};

fn rows(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("the checks are no array")
}

#[test]
fn text_and_json_say_the_same() -> Result<()> {
    let space = Workspace::new(None)?;
    let watched = Watched::new(&space)?;
    let text = watched.watch(space.verb(&["doctor"])?).run()?;
    let json = watched.watch(space.verb(&["doctor", "--format", "json"])?).run()?;
    ensure!(text.status == json.status, "{}\n{}", text.shown(), json.shown());
    let checks = json.json()?;
    let mut lacking = false;
    for isolation in ["container", "vm"] {
        let of = || rows(&checks).into_iter().flatten().filter(|row| row["isolation"] == isolation);
        ensure!(of().count() >= 3, "{isolation}: {checks}");
        let lacks = of().any(|row| row["ok"] == false && row["needed"] == true);
        let verdict = if lacks { "can't run here" } else { "can run here" };
        text.stdout_has(&format!("{isolation}: {verdict}\n"))?;
        lacking |= lacks;
    }
    for row in rows(&checks)? {
        let found = row["found"].as_str().context("a check found nothing")?;
        text.stdout_has(row["check"].as_str().context("a check has no name")?)?;
        ensure!(!found.is_empty(), "{row}");
        let hinted = row["hint"].is_string();
        ensure!(row["ok"] == true || row["needed"] == false || hinted, "no hint: {row}");
    }
    text.status(i32::from(lacking))?;
    watched.nothing(&space, &[])
}

#[test]
fn explain_and_doctor_agree() -> Result<()> {
    let checks = Moat::new(["doctor", "--format", "json"])?.run()?.json()?;
    for (isolation, has) in [("container", host::has_containers()), ("vm", host::has_vms())] {
        let of = rows(&checks)?.iter().filter(|row| row["isolation"] == isolation);
        let lacks = of.filter(|row| row["needed"] == true).any(|row| row["ok"] == false);
        ensure!(lacks != has, "{isolation}: {checks}");
    }
    Ok(())
}

#[test]
fn a_kvm_that_is_not_there_or_is_none() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can hide /dev/kvm");
    }
    let space = Workspace::new(None)?;
    for script in [NO_KVM, FALSE_KVM] {
        let watched = Watched::new(&space)?;
        let moat = space.through(&in_mounts(script), &["doctor"])?;
        let seen = watched.watch(moat).run()?;
        seen.status(1)?.stdout_has("vm: can't run here")?.stdout_has("/dev/kvm")?;
        seen.stdout_has("container: can run here")?;
    }
    Ok(())
}
