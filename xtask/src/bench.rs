//! `cargo xtask bench container | vm`: moat against its peers, in one run, on one machine.
//!
//! What is compared, and what the figures can't say, is in docs/performance.md.

mod build;
mod container;
mod guest;
mod kernel;
mod oci;
mod peers;
mod report;
mod start;
mod vm;

use anyhow::Result;
use std::process::ExitCode;

/// Measure moat against its peers
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Container(container::Args),
    Vm(vm::Args),
    #[command(hide = true)]
    Guest(guest::Args),
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Measures what `args` say and prints the report.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Container(args) => container::run(&args),
        What::Vm(args) => vm::run(&args),
        What::Guest(args) => guest::run(&args),
    }
}
