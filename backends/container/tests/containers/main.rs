//! Real containers. Each case runs this program again as a monitor, since a monitor must have one
//! thread only, gives its workload its own stdin, stdout and stderr, and may be killed.
#![allow(missing_docs)]
// Every function here is a test's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod attack;
mod bench;
mod cases;
mod disk;
mod monitor;
mod orders;
mod run;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(status) = attack::attack_if_asked() {
        return status;
    }
    if let Some(status) = monitor::be_one_if_asked() {
        return status;
    }
    if let Some(rounds) = bench::asked() {
        bench::run(rounds);
        return ExitCode::SUCCESS;
    }
    let trials = cases::all().into_iter().map(|(name, case)| {
        Trial::test(name, move || match std::panic::catch_unwind(case) {
            Ok(()) => Ok(()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(text.unwrap_or_default().into())
            }
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
