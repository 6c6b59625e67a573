//! `cargo xtask bench io`: a guest's disk and network, and the same done by the machine around it,
//! in the deterministic bed.

mod bed;

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::kernel::Kernel;
use super::report::{Column, Figures, Machine, Outcome, Report, Row};
use super::{Format, build};
use crate::bed::cpio::Archive;

pub(super) use bed::{Args as BedArgs, run as run_in_bed};

/// Read, write, send and receive in a micro-VM and beside it
#[derive(clap::Args)]
pub(super) struct Args {
    /// The guest kernel, with virtio-blk and virtio-net built in; else the one that `moat kernel
    /// build` keeps
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Measure this moat instead of building one
    #[arg(long, value_name = "FILE")]
    moat: Option<PathBuf>,
    /// Keep the machine's kernel log in this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const COLUMNS: [Column; 7] = [
    Column("read_mib_s", 2),
    Column("write_mib_s", 2),
    Column("read_4k_us", 1),
    Column("write_4k_us", 1),
    Column("send_mib_s", 2),
    Column("receive_mib_s", 2),
    Column("call_us", 1),
];

// The rows.
const GUEST: &str = "guest";
const HOST: &str = "host";
const RATIO: &str = "guest to host";

// What is in the room.
const XTASK: &str = "xtask";
const KERNEL: &str = "vmlinux";
const INITRAMFS: &str = "initramfs";
const MOAT: &str = "moat";
const IO: &str = "io";

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let room = build::room()?;
    let kernel = prepare(room.path(), args)?;
    let machine = Machine::here()?;
    let mut rows = in_bed(room.path(), &kernel, args)?;
    rows.extend(ratio(&rows));
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)));
    let report = Report {
        benchmark: "io",
        method: "1 vCPU, 256 MiB; a file of 64 MiB on ext4, in the host's memory, past the \
                 guest's page cache, in pieces of 1 MiB in order and of 4 KiB anywhere; 64 MiB \
                 over TCP by a tap, and by a veth to a network namespace, and calls of one byte \
                 each way; by the clock of the deterministic bed"
            .to_owned(),
        versions: vec![kernel.said],
        machine,
        rows,
    };
    report.print(&COLUMNS, args.format)?;
    Ok(ExitCode::from(u8::from(failed)))
}

/// The guest's figures divided by the host's.
fn ratio(rows: &[Row]) -> Option<Row> {
    let figures = |name: &str| {
        let row = rows.iter().find(|row| row.name == name)?;
        if let Outcome::Figures(figures) = &row.outcome { Some(figures) } else { None }
    };
    let (guest, host) = (figures(GUEST)?, figures(HOST)?);
    let both = guest.iter().filter_map(|(name, figure)| Some((name, figure / host.get(name)?)));
    let ratios: Figures = both.map(|(name, ratio)| (name.clone(), ratio)).collect();
    Some(Row { name: RATIO.to_owned(), outcome: Outcome::Figures(ratios), note: None })
}

/// Gathers everything in `room`, which the bed copies to its memory.
fn prepare(room: &Path, args: &Args) -> Result<Kernel> {
    copy(&std::env::current_exe().context("own path")?, &room.join(XTASK))?;
    let io = build::IO.compile(room)?;
    let mut archive = Archive::default();
    archive.file("init", &fs::read(&io)?)?;
    fs::write(room.join(INITRAMFS), archive.finish()?).context(INITRAMFS)?;
    let moat = args.moat.clone().map_or_else(build::moat, Ok)?;
    let kernel = Kernel::chosen(args.kernel.as_deref(), &moat)?;
    copy(&kernel.image, &room.join(KERNEL))?;
    copy(&moat, &room.join(MOAT))?;
    Ok(kernel)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| from.display().to_string())
}

/// Runs `xtask bench io-bed` in the bed; its rows.
fn in_bed(room: &Path, kernel: &Kernel, args: &Args) -> Result<Vec<Row>> {
    let xtask = room.join(XTASK);
    let mut command = Command::new(&xtask);
    command.args(["bed", "--deterministic", "--timeout", "1500", "--boot-timeout", "180"]);
    if let Some(log) = &args.log {
        command.arg("--log").arg(log);
    }
    let output = command
        .arg("--")
        .arg(&xtask)
        .args(["bench", "io-bed", "--discovery", &kernel.discovery, "--room"])
        .arg(room)
        .stderr(Stdio::inherit())
        .output()
        .context("bed")?;
    ensure!(output.status.success(), "the bed ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what the bed wrote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_what_both_have() {
        let row = |name: &str, figures: &[(&str, f64)]| Row {
            name: name.to_owned(),
            outcome: Outcome::Figures(figures.iter().map(|(n, f)| ((*n).to_owned(), *f)).collect()),
            note: None,
        };
        let rows = [row(GUEST, &[("a", 1.0), ("b", 9.0)]), row(HOST, &[("a", 2.0)])];
        let Some(Row { outcome: Outcome::Figures(figures), .. }) = ratio(&rows) else { panic!() };
        assert_eq!(figures, Figures::from([("a".to_owned(), 0.5)]));
        assert!(ratio(&rows[..1]).is_none());
    }
}
