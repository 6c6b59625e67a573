//! Nothing left behind: moat killed with SIGKILL at every step of a container's life, and a
//! thousand runs, many at a time.

mod crowd;
mod figures;
mod kept;
mod killed;
mod odd;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use moat_tests::{host, skip};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lacks = host::lacks("container");
    if let Some(reason) = &lacks {
        skip::tell("everything that a container could leave behind", reason);
    }
    let mut trials = vec![trial("crowd".to_owned(), crowd::run)];
    trials.push(trial("odd::many_sweepers".to_owned(), odd::many_sweepers));
    trials.push(trial("odd::no_record".to_owned(), odd::no_record));
    trials.push(trial("odd::paused".to_owned(), odd::paused));
    trials.push(trial("odd::sessions".to_owned(), odd::sessions));
    trials.push(trial("odd::strangers".to_owned(), odd::strangers));
    trials.push(trial("odd::stuck".to_owned(), odd::stuck));
    trials.push(trial("release".to_owned(), release));
    // Nothing of it depends on what differs in the bed.
    for point in odd::HALTS.into_iter().filter(|_| !host::is_bed()) {
        trials.push(trial(format!("halted::{point:?}"), move || odd::halted(point)));
    }
    for kill in killed::all() {
        trials.push(trial(kill.name(), move || kill.run()));
    }
    for point in kept::points() {
        trials.push(trial(format!("kept::{point:?}"), move || kept::run(point)));
    }
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(lacks.is_some()));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn trial(name: String, run: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// A release build has no fault points.
fn release() -> anyhow::Result<()> {
    const VARIABLE: &[u8] = b"MOAT_FAULT_POINT";
    let debug = moat_tests::moat::executable()?;
    let release = debug.parent().and_then(|dir| Some(dir.parent()?.join("release/moat")));
    let Some(release) = release.filter(|release| release.exists()) else {
        moat_tests::skip!("there is no release build beside this one");
    };
    let has = |moat: &std::path::Path| -> anyhow::Result<bool> {
        let bytes = std::fs::read(moat)?;
        Ok(bytes.windows(VARIABLE.len()).any(|window| window == VARIABLE))
    };
    anyhow::ensure!(has(&debug)?, "this moat can't be ended anywhere");
    anyhow::ensure!(!has(&release)?, "{} has fault points", release.display());
    Ok(())
}
