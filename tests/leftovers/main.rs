//! Nothing left behind: moat killed with SIGKILL at every step of a container's life, and a
//! thousand runs, many at a time.

mod crowd;
mod figures;
mod killed;

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
    for kill in killed::all() {
        trials.push(trial(kill.name(), move || kill.run()));
    }
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(lacks.is_some()));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn trial(name: String, run: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}
