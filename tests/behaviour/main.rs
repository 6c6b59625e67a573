//! The same behaviour on both walls: each case file is run on every wall that this machine has,
//! and what it saw on one is compared with what it saw on the other.
//!
//! `cargo xtask test` runs this natively and in the bed. Where a wall can't be had, its cases are
//! ignored with the reason.

mod cases;
mod wall;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use moat_tests::moat::Seen;

use crate::wall::Wall;

/// What each case saw, by its name, on the walls that ran so far.
type Sightings = Arc<Mutex<BTreeMap<&'static str, (&'static str, Vec<Seen>)>>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let sightings = Sightings::default();
    let mut trials = Vec::new();
    for wall in Wall::ALL {
        let lacks = wall.lacks();
        if let Some(reason) = &lacks {
            eprintln!("skipped: all cases on {}: {reason}", wall.name());
        }
        for case in cases::ALL {
            let sightings = Arc::clone(&sightings);
            let trial = Trial::test(format!("{}::{}", wall.name(), case.name), move || {
                run(wall, case, &sightings).map_err(|error| Failed::from(format!("{error:#}")))
            });
            trials.push(trial.with_ignored_flag(lacks.is_some()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(wall: Wall, case: &cases::Case, sightings: &Sightings) -> anyhow::Result<()> {
    let seen = (case.run)(wall)?;
    let mut sightings = sightings.lock().map_err(|_| anyhow::anyhow!("another case panicked"))?;
    if let Some((other, theirs)) = sightings.get(case.name) {
        for (ours, theirs) in seen.iter().zip(theirs) {
            let alike = ours.status == theirs.status
                && ours.stdout == theirs.stdout
                && ours.workload_stderr() == theirs.workload_stderr();
            anyhow::ensure!(
                alike,
                "the walls differ\n--- {other}\n{}\n--- {}\n{}",
                theirs.shown(),
                wall.name(),
                ours.shown()
            );
        }
        anyhow::ensure!(seen.len() == theirs.len(), "the walls ran a different number of times");
    }
    sightings.insert(case.name, (wall.name(), seen));
    Ok(())
}
