//! A workload in the background: what it writes is kept, it can be acted on, and its end is known
//! until it is removed.

use anyhow::{Result, ensure};
use moat_tests::kept::Kept;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Says so, and goes on when it is told to.
const SCRIPT: &str = "echo out; echo err >&2; printf begun; while ! [ -e /go ]; do sleep 0.1; done
    echo ' and ended'; exit 7";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let kept = Kept::new(&space)?;
    let id = kept.start(&["--project", "shop"], SCRIPT)?;
    ensure!(id.len() == 12, "{id:?} is no id");

    let listed = kept.ask(&["ps", "--format", "json"])?.status(0)?.json()?;
    ensure!(listed[0]["id"] == id.as_str() && listed[0]["state"] == "running", "{listed}");
    ensure!(listed[0]["project"] == "shop" && listed[0]["status"].is_null(), "{listed}");
    let told = kept.inspect("case")?;
    ensure!(told["isolation"] == wall.name() && told["exit"].is_null(), "{told}");
    ensure!(
        told["requested"]["name"] == "case" && told["effective"]["steps"][0].is_object(),
        "{told}"
    );
    let follow = kept.verb(&["logs", "--follow", "case"])?.start()?;
    kept.ask(&["exec", "case", "touch", "/go"])?.status(0)?;

    let waited = kept.ask(&["wait", "case"])?;
    waited.status(7)?.stdout("7\n")?;
    let followed = follow.finish()?;
    followed.status(0)?.stdout("out\nbegun and ended\n")?.stderr("err\n")?;
    let logs = kept.ask(&["logs", "case"])?;
    logs.status(0)?.stdout("out\nbegun and ended\n")?.stderr("err\n")?;
    // It has ended for good, and is told of until it is removed.
    ensure!(
        kept.ask(&["ps", "--format", "json"])?.json()? == serde_json::json!([]),
        "it is listed"
    );
    let listed = kept.ask(&["ps", "--all", "--format", "json"])?.status(0)?.json()?;
    ensure!(listed[0]["state"] == "ended" && listed[0]["status"] == 7, "{listed}");
    let told = kept.inspect(&id)?;
    ensure!(told["status"] == 7 && told["fault"].is_null() && told["pid"].is_null(), "{told}");
    ensure!(told["started"].as_str() < told["ended"].as_str(), "{told}");
    let again = kept.ask(&["wait", "case"])?;
    again.status(7)?.stdout("7\n")?;
    kept.ask(&["stop", "case"])?.status(0)?;
    kept.ask(&["rm", "case"])?.status(0)?.stdout("")?.stderr("")?;
    kept.ask(&["logs", "case"])?.refused(125, "not-running")?;
    ensure!(kept.dirs().is_empty(), "something is kept");
    Ok(vec![waited, followed, logs, again])
}
