//! `cargo xtask bed -- COMMAND`: runs a command in a machine with a true KVM, emulated in software.
//!
//! The machine is QEMU under TCG with an SVM-capable CPU, Debian's generic kernel, and this host's
//! own files as its root (9p, read and write). `/run` and `/run/bed` are tmpfs: hot files belong
//! there. Standard output and error are streamed, the exit status is the command's own.

pub(crate) mod cpio;
mod initrd;
mod kernel;
mod machine;

use anyhow::{Context, Result};
use kernel::Kernel;
use machine::{Ending, Machine};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// As timeout(1) says it.
pub(crate) const TIMED_OUT: u8 = 124;
const BOOT_TRIES: u32 = 3;

/// Run a command in a machine with a true KVM, emulated in software
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Count instructions instead of time (1 instruction = 1 ns): figures repeat, waits are skipped
    #[arg(long)]
    deterministic: bool,
    /// Seconds the command may take, once the machine is up
    #[arg(long, value_name = "SECS", default_value_t = 1800)]
    timeout: u64,
    /// Seconds the command may write nothing
    #[arg(long, value_name = "SECS")]
    silence: Option<u64>,
    /// Seconds a boot may take before it is tried again
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    boot_timeout: u64,
    /// Memory of the machine
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory: u32,
    /// One more variable for the command (PATH, HOME, TERM, CARGO_* and RUST_* are passed anyway)
    #[arg(long, value_name = "K=V")]
    env: Vec<OsString>,
    /// Write the machine's kernel log to this file when it has ended
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Fetches the machine's kernel, unless it is there.
pub(crate) fn prepare() -> Result<()> {
    Kernel::cached().map(|_| ())
}

/// Runs the command of `args`; its status is the answer.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let kernel = Kernel::cached()?;
    let directory = std::env::current_dir().context("current directory")?;
    let mut modules = OsString::from("MOAT_BED_MODULES=");
    modules.push(kernel.modules_dir());
    let task = initrd::Task {
        directory,
        env: initrd::environment(&[&args.env[..], &[modules]].concat()),
        argv: args.command,
        merged: same_file(),
    };
    let initrd = initrd::build(&kernel, &task)?;
    let machine = Machine {
        kernel: kernel.image(),
        initrd,
        memory_mib: args.memory,
        deterministic: args.deterministic,
        boot_limit: Duration::from_secs(args.boot_timeout),
        run_limit: Duration::from_secs(args.timeout),
        silence_limit: args.silence.map(Duration::from_secs),
    };
    for attempt in 1..=BOOT_TRIES {
        let (ending, console) = machine.run()?;
        if let Some(file) = &args.log {
            std::fs::write(file, &console).with_context(|| file.display().to_string())?;
        }
        match ending {
            Ending::Exit(status) => return Ok(ExitCode::from(status)),
            Ending::Signal(number) => return Ok(ExitCode::from(128 + number)),
            Ending::TimedOut => {
                eprintln!("bed: the command was not done after {} s: stopped", args.timeout);
                show_tail(&console);
                return Ok(ExitCode::from(TIMED_OUT));
            }
            Ending::Silent => {
                eprintln!("bed: the command wrote nothing for too long: stopped");
                show_tail(&console);
                return Ok(ExitCode::from(TIMED_OUT));
            }
            Ending::Died => {
                show_tail(&console);
                anyhow::bail!("the bed's machine ended before the command did");
            }
            Ending::NoBoot(why) => {
                eprintln!("bed: boot {attempt} of {BOOT_TRIES} failed: {why}");
                show_tail(&console);
            }
        }
    }
    anyhow::bail!("the bed does not boot; its kernel log's last lines are above")
}

/// The last lines of the kernel's log, on standard error.
fn show_tail(console: &[u8]) {
    const LINES: usize = 30;
    let text = String::from_utf8_lossy(console);
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        eprintln!("  | {line}");
    }
}

/// Whether standard output and error are one file: then the machine keeps their lines in order.
fn same_file() -> bool {
    match (nix::sys::stat::fstat(std::io::stdout()), nix::sys::stat::fstat(std::io::stderr())) {
        (Ok(out), Ok(err)) => (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino),
        _ => false,
    }
}
