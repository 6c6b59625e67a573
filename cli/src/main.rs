//! The moat command.

#![deny(unsafe_code)]

mod args;
mod decision;
mod host;
mod interrupt;
mod monitor;
mod output;
mod progress;
mod select;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use moat_core::diagnose::Fault;
use moat_core::spec::Problems;

use crate::args::{Cli, Verb};
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

fn main() -> ExitCode {
    // clap ends with 0 after --help and 2 on what it does not understand, as documented.
    let cli = Cli::parse();
    let output = Output::new(cli.format, cli.quiet);
    if let Some(filter) = &cli.log {
        log_to_stderr(filter);
    }
    let status = match cli.verb {
        Verb::Run(run) => verbs::run::run(output, &run),
        Verb::Explain(explain) => verbs::explain::explain(output, &explain),
        Verb::Doctor => verbs::doctor::doctor(output),
        Verb::Schema => verbs::schema::schema(output),
        Verb::Kernel(kernel) => verbs::kernel::kernel(output, &kernel),
    };
    ExitCode::from(status.unwrap_or_else(|failure| report(output, &failure)))
}

fn report(output: Output, failure: &Failure) -> u8 {
    match failure {
        Failure::Fault(fault) => {
            output.error(fault);
            fault.code.exit_status()
        }
        Failure::Spec(problems) => {
            output.problems(problems);
            moat_core::diagnose::Code::Spec.exit_status()
        }
    }
}

fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::new(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
