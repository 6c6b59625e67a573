//! The moat command.

#![deny(unsafe_code)]
#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

mod args;
mod background;
mod capture;
mod console;
mod control;
mod decision;
mod deferred;
mod detach;
mod disposition;
#[cfg(all(target_env = "gnu", not(test)))]
mod entry;
#[cfg(debug_assertions)]
mod fault_point;
mod host;
mod instance;
mod interrupt;
mod known;
mod monitor;
mod output;
mod plain;
mod progress;
mod resident;
mod select;
mod stdio;
mod verbs;

use clap::Parser;
use clap::error::ErrorKind::{
    DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
};
use moat_core::diagnose::{Code, Fault};
use moat_core::spec::Problems;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::args::{Cli, Format, Verb};
use crate::deferred::Deferred;
use crate::output::Output;

/// How a verb fails.
#[derive(Debug)]
enum Failure {
    /// Something went wrong.
    Fault(Fault),
    /// A spec is wrong.
    Spec(Problems),
}

impl<F: Into<Fault>> From<F> for Failure {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

/// Where another C library does not hand over the arguments by itself.
#[cfg(not(all(target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(moat())
}

/// Does what the command line says; gives moat's exit status.
fn moat() -> u8 {
    #[cfg(debug_assertions)]
    if fault_point::install().is_err() {
        return 1;
    }
    let cli = match plain::understood(std::env::args_os()).map_or_else(Cli::try_parse, Ok) {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    let output = Output::new(cli.format, cli.quiet);
    if let Some(targets) = cli.log {
        log_to_stderr(targets);
    }
    let status = match cli.verb {
        Verb::Run(Deferred(run)) => verbs::run::run(output, &run),
        Verb::Exec(Deferred(exec)) => verbs::exec::exec(output, &exec),
        Verb::Ps(Deferred(ps)) => verbs::ps::ps(output, &ps),
        Verb::Logs(Deferred(logs)) => verbs::logs::logs(output, &logs),
        Verb::Stop(Deferred(stop)) => verbs::stop::stop(output, &stop),
        Verb::Kill(Deferred(kill)) => verbs::kill::kill(output, &kill),
        Verb::Wait(Deferred(named)) => verbs::wait::wait(output, &named),
        Verb::Rm(Deferred(rm)) => verbs::rm::rm(output, &rm),
        Verb::Inspect(Deferred(named)) => verbs::inspect::inspect(output, &named),
        Verb::Stats(Deferred(stats)) => verbs::stats::stats(output, &stats),
        Verb::Pause(Deferred(named)) => verbs::pause::pause(output, &named),
        Verb::Resume(Deferred(named)) => verbs::resume::resume(output, &named),
        Verb::Explain(Deferred(explain)) => verbs::explain::explain(output, &explain),
        Verb::Doctor => verbs::doctor::doctor(output),
        Verb::Schema => verbs::schema::schema(output),
        Verb::Kernel(Deferred(kernel)) => verbs::kernel::kernel(output, &kernel),
        Verb::Microvm(Deferred(microvm)) => verbs::microvm::microvm(output, &microvm),
    };
    status.unwrap_or_else(|failure| report(output, &failure))
}

/// Shows the help that was asked for, or says what makes no sense as every other error is said.
fn misunderstood(error: &clap::Error) -> u8 {
    if matches!(
        error.kind(),
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // Whoever asked for it may be gone.
        let _ = error.print();
        return u8::try_from(error.exit_code()).unwrap_or(u8::MAX);
    }
    // A paragraph of what, then tips, then the usage.
    let text = error.to_string();
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" "))
        .collect();
    let what = paragraphs.first().map_or("", |what| what.trim_start_matches("error: "));
    let tip = paragraphs.iter().find_map(|paragraph| paragraph.strip_prefix("tip: "));
    let fault =
        Fault::new(Code::Usage, what).hint(tip.unwrap_or("`moat --help` shows what there is"));
    report(Output::new(Format::asked_for(), false), &Failure::Fault(fault))
}

fn report(output: Output, failure: &Failure) -> u8 {
    match failure {
        Failure::Fault(fault) => {
            output.error(fault);
            fault.code.exit_status()
        }
        Failure::Spec(problems) => {
            output.problems(problems);
            Code::Spec.exit_status()
        }
    }
}

fn log_to_stderr(targets: Targets) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}
