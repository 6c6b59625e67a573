//! `cargo xtask VERB`: what developers of moat run besides cargo itself. One file per verb.
// xtask is a command for people: it prints.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod bed;
mod bench;
mod fuzz;
mod order;
mod setup;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Helpers for developing moat.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Bed(bed::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Order(order::Args),
    Setup(setup::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().verb {
        Verb::Bed(args) => bed::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Order(args) => order::run(&args),
        Verb::Setup(args) => setup::run(&args),
        Verb::Test(args) => test::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(125)
    })
}
