//! The monitor of a workload in the background killed at each fault point: its workload ends with it,
//! what is said of it afterwards is true, it can be removed, and its name taken again.

use anyhow::{Context, Result, ensure};
use moat_core::fault_point::FaultPoint::{self, *};
use moat_tests::host;
use moat_tests::kept::Kept;
use moat_tests::moat::Moat;
use moat_tests::remains::Watched;
use moat_tests::workspace::Workspace;

use crate::killed::{ELSEWHERE, place};

/// What only an instance in the background comes to.
pub(crate) const OWN: [FaultPoint; 5] =
    [KeptMade, KeptLocked, IdentityWritten, EndWritten, KeptForgotten];

/// What is the monitor's own work, but for what takes more to be reached: that is no other in the
/// background.
pub(crate) fn points() -> Vec<FaultPoint> {
    if host::is_bed() {
        // Nothing of it depends on what differs there.
        return Vec::new();
    }
    let not_here = [DevicesMade, MarkedStopping, SessionMade, SessionHeard, Gathered, Frozen];
    let all = FaultPoint::ALL.iter().copied();
    let of_a_life =
        all.filter(|point| (place(KeptMade)..place(OrphanLocked)).contains(&place(*point)));
    of_a_life.filter(|point| !not_here.contains(point) && !ELSEWHERE.contains(point)).collect()
}

pub(crate) fn run(point: FaultPoint) -> Result<()> {
    let space = Workspace::new(Some("container"))?;
    let watched = Watched::new(&space)?;
    std::fs::create_dir(space.path().join("data"))?;
    space.spec(&format!("volumes = [\"./data:/data\"]\n{}", watched.spec_line()))?;
    let kept = Kept::new(&space)?;
    // What the probes find out is kept: they are no part of the life that is looked at.
    watched.watch(kept.verb(&space.run_args(&["true"]))?).run()?.status(0)?;
    let armed = |moat: Moat| watched.watch(moat).env("MOAT_FAULT_POINT", format!("{point:?}"));
    // What runs on when it should not is found.
    let ends = place(point) > place(MarkedStopping);
    let script = if ends { "exit 3" } else { "sleep 1000" };
    // Otherwise what is kept is forgotten by who removes it.
    let options: &[&str] = if point == KeptForgotten { &["--rm"] } else { &[] };
    let started = armed(kept.moat(options, script)?).run()?;
    if place(point) <= place(HeardStarted) {
        started.refused(125, "state").context("the command does not say that it was killed")?;
    }
    watched.no_process()?;
    let ids = watched.instances();

    let listed = kept.ask(&["ps", "--all", "--format", "json"])?;
    let rows = listed.status(0)?.json()?;
    let rows = rows.as_array().context("ps gives no list")?;
    ensure!(rows.len() <= 1, "{rows:?}");
    for row in rows {
        ensure!(row["state"] == "ended" && row["pid"].is_null(), "{row}");
        let known = row["status"].as_u64();
        // Nobody makes up how it ended, and nobody forgets it.
        let told = place(point) >= place(MarkedEnded);
        ensure!(known == told.then_some(3), "{row}");
        kept.ask(&["rm", "case"])?.status(0)?;
    }
    let has_identity = place(point) >= place(IdentityWritten) && point != KeptForgotten;
    ensure!(rows.len() == usize::from(has_identity), "{rows:?}");
    // The name can be taken again, and what was half made is gone with that.
    kept.start(&["--rm"], "true")?;
    kept.ask(&["wait", "case"]).map(drop)?;
    let began = std::time::Instant::now();
    while !kept.dirs().is_empty() {
        ensure!(began.elapsed().as_secs() < 30, "something is kept: {:?}", kept.dirs());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    watched.nothing(&space, &ids)
}
