//! `cargo xtask bench vm`: starts a micro-VM in each contender, in the deterministic bed: one
//! processor whose clock counts instructions.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::kernel::Kernel;
use super::report::{Column, Machine, Outcome, Report, Row, compare, version};
use super::{Format, build, guest, peers};
use crate::bed::cpio::Archive;

/// Start micro-VMs (QEMU microvm, the bare VMM, all of moat): time, memory, exits, shared files
#[derive(clap::Args)]
pub(super) struct Args {
    /// How often each is started
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The guest kernel, an ELF file with a PVH entry that finds its devices on its command line;
    /// else the one that `moat kernel build` keeps, else moat's default one
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

const COLUMNS: [Column; 11] = [
    Column("first_line_ms", 1),
    Column("to_qemu", 2),
    Column("overhead_mib", 1),
    Column("overhead_to_qemu", 2),
    Column("io_exits", 0),
    Column("exit_ms", 1),
    Column("idle_mib", 1),
    Column("read_ms", 0),
    Column("read_to_bed", 2),
    Column("walk_ms", 0),
    Column("walk_to_bed", 2),
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let room = build::room()?;
    let (kernel, absent) = prepare(room.path(), args)?;
    let machine = Machine::here()?;
    let mut rows = in_bed(room.path(), &kernel, args)?;
    rows.retain(|row| absent.iter().all(|(name, _)| *name != row.name));
    rows.extend(absent.into_iter().map(|(name, why)| Row {
        name: name.to_owned(),
        outcome: Outcome::Failed(why),
        note: None,
    }));
    compare(&mut rows, guest::QEMU, "first_line_ms", "to_qemu");
    compare(&mut rows, guest::QEMU, "overhead_mib", "overhead_to_qemu");
    compare(&mut rows, guest::BED_FILES, "read_ms", "read_to_bed");
    compare(&mut rows, guest::BED_FILES, "walk_ms", "walk_to_bed");
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)));
    let report = Report {
        benchmark: "vm",
        method: format!(
            "1 vCPU, {} MiB, the same kernel and initramfs, quiet console, no transparent huge \
             pages; virtual ms of the deterministic bed, medians of {}",
            guest::MEMORY_MIB,
            args.rounds
        ),
        versions: version("qemu-system-x86_64").into_iter().chain([kernel.said]).collect(),
        machine,
        rows,
    };
    report.print(&COLUMNS, args.format)?;
    Ok(ExitCode::from(u8::from(failed)))
}

/// The rows that can't be asked, and why.
type Absent = Vec<(&'static str, String)>;

/// Gathers everything in `room`, which the bed copies to its memory.
fn prepare(room: &Path, args: &Args) -> Result<(Kernel, Absent)> {
    let mut absent = Absent::new();
    let own = std::env::current_exe().context("own path")?;
    copy(&own, &room.join(guest::XTASK))?;
    initramfs(room)?;
    qemu(&room.join(guest::QEMU_DIRECTORY))?;
    let moat = args.moat.clone().map_or_else(build::moat, Ok);
    let kernel = match (&args.kernel, &moat) {
        (file, Ok(moat)) => Kernel::chosen(file.as_deref(), moat)?,
        (Some(file), Err(_)) => Kernel::file(file),
        (None, Err(_)) => bail!("moat does not build: say which guest kernel with --kernel"),
    };
    copy(&kernel.image, &room.join(guest::KERNEL))?;
    match moat {
        Ok(moat) => {
            copy(&moat, &room.join(guest::MOAT_FILE))?;
            workload(room)?;
            if let Err(error) = kernel.install(&moat, &room.join(guest::DATA)) {
                let why = format!("{error:#}");
                absent.extend(guest::MOAT_VMS.map(|row| (row, why.clone())));
            }
        }
        Err(error) => {
            let why = format!("{error:#}");
            absent.extend(guest::MOATS.map(|row| (row, why.clone())));
        }
    }
    Ok((kernel, absent))
}

/// What moat runs: `true`, one that waits and one that reads files, on a root that is in the bed's
/// memory too.
fn workload(room: &Path) -> Result<()> {
    let root = build::rootfs(room)?;
    build::IDLE.compile(&root.join("bin"))?;
    fs::copy(build::FILES.compile(room)?, root.join("bin/files")).context("files")?;
    fs::create_dir(root.join(guest::TREE)).context("mount point")?;
    let root = format!("{}/rootfs", guest::HOT);
    let spec = peers::spec(&root, guest::WORKLOAD_MIB, "");
    let run = |command: &str| spec.replace("\"/bin/true\"", command);
    let (hot, tree) = (guest::HOT, guest::TREE);
    let volume = format!("volumes = [\"{hot}/{tree}:/{tree}:ro\"]\nhostname");
    let files = run(&format!("\"/bin/files\", \"/{tree}\"")).replace("hostname", &volume);
    let specs =
        [(guest::IDLE_SPEC, run("\"/bin/idle\"")), (guest::FILES_SPEC, files), (guest::SPEC, spec)];
    for (name, text) in specs {
        let target = room.join(name);
        fs::write(&target, text).with_context(|| target.display().to_string())?;
    }
    Ok(())
}

fn initramfs(room: &Path) -> Result<()> {
    let init = build::GUEST.compile(room)?;
    let mut archive = Archive::default();
    archive.file("init", &fs::read(&init)?)?;
    let target = room.join(guest::INITRAMFS);
    fs::write(&target, archive.finish()?).with_context(|| target.display().to_string())
}

/// QEMU with its libraries and the microvm's firmware (the second with ACPI), so that none of them
/// comes over 9p.
fn qemu(directory: &Path) -> Result<()> {
    const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";
    const FIRMWARE: [&str; 2] = ["/usr/share/qemu/qboot.rom", "/usr/share/qemu/bios-microvm.bin"];
    fs::create_dir(directory).with_context(|| directory.display().to_string())?;
    let ldd = Command::new("ldd").arg(PROGRAM).output().context("ldd")?;
    ensure!(ldd.status.success(), "{PROGRAM} is not installed: run `cargo xtask setup`");
    let text = String::from_utf8(ldd.stdout).context("ldd's words")?;
    let libraries = text.lines().filter_map(|line| line.split_once("=> ")?.1.split(' ').next());
    for file in [PROGRAM].into_iter().chain(FIRMWARE).chain(libraries) {
        let file = Path::new(file);
        copy(file, &directory.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| from.display().to_string())
}

/// Runs `xtask bench guest` in the bed; its rows.
fn in_bed(room: &Path, kernel: &Kernel, args: &Args) -> Result<Vec<Row>> {
    let xtask = room.join(guest::XTASK);
    let mut command = Command::new(&xtask);
    command.args(["bed", "--deterministic", "--timeout", "3000", "--boot-timeout", "180"]);
    if let Some(log) = &args.log {
        command.arg("--log").arg(log);
    }
    let output = command
        .arg("--")
        .arg(&xtask)
        .args(["bench", "guest", "--rounds", &args.rounds.to_string()])
        .args(["--discovery", &kernel.discovery, "--room"])
        .arg(room)
        .stderr(Stdio::inherit())
        .output()
        .context("bed")?;
    ensure!(output.status.success(), "the bed ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what the bed wrote")
}
