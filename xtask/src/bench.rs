//! `cargo xtask bench container | vm | io | workloads`: moat against its peers, and a guest against its host,
//! in one run, on one machine.
//!
//! What is compared, and what the figures can't say, is in docs/performance.md.

pub(crate) mod build;
mod container;
mod files;
mod guest;
mod kernel;
mod oci;
pub(crate) mod peers;
mod report;
mod start;
mod throughput;
mod vm;
mod watch;
mod workloads;

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
    Io(throughput::Args),
    Workloads(workloads::Args),
    #[command(hide = true)]
    Guest(guest::Args),
    #[command(hide = true)]
    IoBed(throughput::BedArgs),
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
        What::Io(args) => throughput::run(&args),
        What::Workloads(args) => workloads::run(&args),
        What::IoBed(args) => throughput::run_in_bed(&args),
    }
}
