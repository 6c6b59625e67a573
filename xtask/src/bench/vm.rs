//! `cargo xtask bench vm`: starts a micro-VM in each contender, in the deterministic bed: one
//! processor whose clock counts instructions.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::report::{Column, Machine, Outcome, Report, Row, compare};
use super::{Format, build, guest};
use crate::bed::cpio::Archive;

/// Start a micro-VM to its first line: QEMU microvm, moat's VMM, all of moat
#[derive(clap::Args)]
pub(super) struct Args {
    /// How often each is started
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The guest kernel, an ELF file with a PVH entry; else the one that `moat kernel build` keeps
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Measure this moat instead of building one
    #[arg(long, value_name = "FILE")]
    moat: Option<PathBuf>,
    /// Measure this VMM (moat-microvm's example `boot`) instead of building one
    #[arg(long, value_name = "FILE")]
    vmm: Option<PathBuf>,
    /// Keep the machine's kernel log in this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const COLUMNS: [Column; 5] = [
    Column("first_line_ms", 1),
    Column("to_qemu", 2),
    Column("overhead_mib", 1),
    Column("overhead_to_qemu", 2),
    Column("exit_ms", 1),
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let room = build::room()?;
    let absent = prepare(room.path(), args)?;
    let machine = Machine::here()?;
    let mut rows = in_bed(room.path(), args)?;
    rows.retain(|row| absent.iter().all(|(name, _)| *name != row.name));
    rows.extend(absent.into_iter().map(|(name, why)| Row {
        name: name.to_owned(),
        outcome: Outcome::Failed(why),
        note: None,
    }));
    compare(&mut rows, guest::QEMU, "first_line_ms", "to_qemu");
    compare(&mut rows, guest::QEMU, "overhead_mib", "overhead_to_qemu");
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)));
    let report = Report {
        benchmark: "vm",
        method: format!(
            "1 vCPU, {} MiB, the same kernel and initramfs, quiet console, no transparent huge \
             pages; virtual ms of the deterministic bed, medians of {}",
            guest::MEMORY_MIB,
            args.rounds
        ),
        machine,
        rows,
    };
    report.print(&COLUMNS, args.format)?;
    Ok(ExitCode::from(u8::from(failed)))
}

/// The rows that can't be asked, and why.
type Absent = Vec<(&'static str, String)>;

/// Gathers everything in `room`, which the bed copies to its memory.
fn prepare(room: &Path, args: &Args) -> Result<Absent> {
    let mut absent = Absent::new();
    let own = std::env::current_exe().context("own path")?;
    copy(&own, &room.join(guest::XTASK))?;
    initramfs(room)?;
    qemu(&room.join(guest::QEMU_DIRECTORY))?;
    match args.vmm.clone().map_or_else(build::bare_vmm, Ok) {
        Ok(file) => copy(&file, &room.join(guest::VMM_FILE))?,
        Err(error) => absent.push((guest::VMM, format!("{error:#}"))),
    }
    let moat = args.moat.clone().map_or_else(build::moat, Ok);
    let kernel = match (&args.kernel, &moat) {
        (Some(kernel), _) => kernel.clone(),
        (None, Ok(moat)) => own_kernel(moat)?,
        (None, Err(_)) => bail!("moat does not build: say which guest kernel with --kernel"),
    };
    let at = room.join(guest::KERNEL);
    copy(&kernel, &at)?;
    match moat {
        Ok(moat) => {
            copy(&moat, &room.join(guest::MOAT_FILE))?;
            if let Err(error) = bundle(&moat, room, &at) {
                absent.push((guest::MOAT_VM, format!("{error:#}")));
            }
        }
        Err(error) => {
            let why = format!("{error:#}");
            absent.extend([guest::MOAT_VM, guest::MOAT_CONTAINER].map(|row| (row, why.clone())));
        }
    }
    Ok(absent)
}

fn initramfs(room: &Path) -> Result<()> {
    let init = build::GUEST.compile(room)?;
    let mut archive = Archive::default();
    archive.file("init", &fs::read(&init)?)?;
    let target = room.join(guest::INITRAMFS);
    fs::write(&target, archive.finish()?).with_context(|| target.display().to_string())
}

/// QEMU with its libraries and the microvm's firmware, so that none of them comes over 9p.
fn qemu(directory: &Path) -> Result<()> {
    const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";
    const FIRMWARE: &str = "/usr/share/qemu/qboot.rom";
    fs::create_dir(directory).with_context(|| directory.display().to_string())?;
    let ldd = Command::new("ldd").arg(PROGRAM).output().context("ldd")?;
    ensure!(ldd.status.success(), "{PROGRAM} is not installed: run `cargo xtask setup`");
    let text = String::from_utf8(ldd.stdout).context("ldd's words")?;
    let libraries = text.lines().filter_map(|line| line.split_once("=> ")?.1.split(' ').next());
    for file in [PROGRAM, FIRMWARE].into_iter().chain(libraries) {
        let file = Path::new(file);
        copy(file, &directory.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The kernel that `moat kernel build` keeps.
fn own_kernel(moat: &Path) -> Result<PathBuf> {
    let output = Command::new(moat)
        .args(["kernel", "ls", "--format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .context("moat kernel ls")?;
    let bundles: Value = serde_json::from_slice(&output.stdout).context("moat kernel ls")?;
    bundles
        .as_array()
        .into_iter()
        .flatten()
        .find(|bundle| bundle["manifest"]["name"] == "moat")
        .and_then(|bundle| bundle["dir"].as_str())
        .map(|path| Path::new(path).join("vmlinux"))
        .context("no kernel of moat's own: run `moat kernel build`, or say which with --kernel")
}

/// Makes the same kernel moat's default one, in a data directory in `room`.
fn bundle(moat: &Path, room: &Path, kernel: &Path) -> Result<()> {
    let output = Command::new(moat)
        .args(["kernel", "import"])
        .arg(kernel)
        .args(["--discovery", "cmdline"])
        .env("XDG_DATA_HOME", room.join(guest::DATA))
        .output()
        .context("moat kernel import")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("without a word");
    ensure!(output.status.success(), "moat kernel import: {said}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| from.display().to_string())
}

/// Runs `xtask bench guest` in the bed; its rows.
fn in_bed(room: &Path, args: &Args) -> Result<Vec<Row>> {
    let xtask = room.join(guest::XTASK);
    let mut command = Command::new(&xtask);
    command.args(["bed", "--deterministic", "--timeout", "1500"]);
    if let Some(log) = &args.log {
        command.arg("--log").arg(log);
    }
    let output = command
        .arg("--")
        .arg(&xtask)
        .args(["bench", "guest", "--rounds", &args.rounds.to_string(), "--room"])
        .arg(room)
        .stderr(Stdio::inherit())
        .output()
        .context("bed")?;
    ensure!(output.status.success(), "the bed ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what the bed wrote")
}
