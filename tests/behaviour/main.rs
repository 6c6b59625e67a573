//! The same behaviour on both walls: each case file is run on every wall that this machine has,
//! and what it saw on one is compared with what it saw on the other.
//!
//! `cargo xtask test` runs this natively and in the bed. Where a wall can't be had, its cases are
//! ignored with the reason.

mod cases;
mod wall;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use moat_tests::seen::Seen;
use moat_tests::skip;

use crate::wall::Wall;

/// What each case saw, by its name, on the walls that ran so far.
type Sightings = Arc<Mutex<BTreeMap<&'static str, (&'static str, Vec<Seen>)>>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let sightings = Sightings::default();
    let (share, shares) = share();
    let mut trials = Vec::new();
    for wall in Wall::ALL {
        let lacks = wall.lacks();
        if let Some(reason) = &lacks {
            skip::tell(&format!("all cases on {}", wall.name()), reason);
        }
        let cases = cases::ALL.iter().enumerate().filter(|(at, _)| at % shares == share);
        for (_, case) in cases.filter(|(_, case)| case.walls.contains(&wall)) {
            let sightings = Arc::clone(&sightings);
            let trial = Trial::test(format!("{}::{}", wall.name(), case.name), move || {
                run(wall, case, &sightings).map_err(|error| Failed::from(format!("{error:#}")))
            });
            trials.push(trial.with_ignored_flag(lacks.is_some()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Which of how many equal shares of the cases to run, from 0 on; `MOAT_SHARE=0/2` is the first of
/// two. Everything, when it is not set.
fn share() -> (usize, usize) {
    let value = std::env::var("MOAT_SHARE").unwrap_or_default();
    let parts = value.split_once('/');
    let parse = |(share, shares): (&str, &str)| {
        Some((share.parse().ok()?, shares.parse().ok().filter(|shares| *shares > 0)?))
    };
    parts.and_then(parse).unwrap_or((0, 1))
}

fn run(wall: Wall, case: &cases::Case, sightings: &Sightings) -> Result<()> {
    let seen = (case.run)(wall)?;
    let mut sightings = sightings.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((other, theirs)) = sightings.get(case.name) {
        compare((wall.name(), &seen), (other, theirs))?;
    }
    sightings.insert(case.name, (wall.name(), seen));
    Ok(())
}

/// Holds what one wall showed against what the other did. A case that was skipped, or whose runs
/// differ by nature, gives nothing to compare.
fn compare(ours: (&str, &[Seen]), theirs: (&str, &[Seen])) -> Result<()> {
    let ((our_wall, ours), (their_wall, theirs)) = (ours, theirs);
    if ours.is_empty() || theirs.is_empty() {
        return Ok(());
    }
    for (ours, theirs) in ours.iter().zip(theirs) {
        let alike = ours.status == theirs.status
            && ours.stdout == theirs.stdout
            && ours.workload_stderr() == theirs.workload_stderr();
        ensure!(
            alike,
            "the walls differ\n--- {their_wall}\n{}\n--- {our_wall}\n{}",
            theirs.shown(),
            ours.shown()
        );
    }
    ensure!(ours.len() == theirs.len(), "the walls ran a different number of times");
    Ok(())
}
