//! The half of `cargo xtask bench vm` that runs in the bed: starts every contender whose files are
//! in the room, and writes its rows as JSON.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::report::{Figures, Outcome, Row, quantile};
use super::{files, watch};

/// The guest's memory, in a row's name where it is another.
pub(super) const MEMORY_MIB: u64 = 256;
const LARGE_MIB: u64 = 1024;
/// What a workload gets of a guest of `MEMORY_MIB`: moat adds 96 MiB and 1/64 for its kernel.
pub(super) const WORKLOAD_MIB: u32 = 156;

// The rows.
pub(super) const QEMU: &str = "QEMU microvm";
pub(super) const VMM: &str = "moat microvm boot";
pub(super) const VMM_LARGE: &str = "moat microvm boot, 1 GiB";
pub(super) const MOAT_VM: &str = "moat run, vm";
pub(super) const MOAT_IDLE: &str = "moat run, vm, idle";
pub(super) const MOAT_CONTAINER: &str = "moat run, container";
pub(super) const BED_FILES: &str = "files, the bed itself";
pub(super) const VM_FILES: &str = "files, moat run, vm";
/// All that need moat, and those that need its guest kernel in its store.
pub(super) const MOATS: [&str; 6] = [VMM, VMM_LARGE, MOAT_VM, MOAT_IDLE, MOAT_CONTAINER, VM_FILES];
pub(super) const MOAT_VMS: [&str; 3] = [MOAT_VM, MOAT_IDLE, VM_FILES];

// What is in the room.
pub(super) const XTASK: &str = "xtask";
pub(super) const KERNEL: &str = "vmlinux";
pub(super) const INITRAMFS: &str = "initramfs";
pub(super) const QEMU_DIRECTORY: &str = "qemu";
pub(super) const MOAT_FILE: &str = "moat";
pub(super) const SPEC: &str = "moat.toml";
pub(super) const IDLE_SPEC: &str = "idle.toml";
pub(super) const FILES_SPEC: &str = "files.toml";
/// `programs/files.c`, on the bed's side; and what it reads, made in the bed.
pub(super) const FILES: &str = "files";
pub(super) const TREE: &str = "shared";
pub(super) const DATA: &str = "data";

/// What `programs/guest.c` writes.
const LINE: &str = "bench: the guest's first line";

/// QEMU's guest is told what moat tells its own, as far as it makes a start faster.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests \
                       random.trust_cpu=on percpu_alloc=page noreplace-smp";

/// How long a workload that waits has waited when its memory is looked at.
const SETTLE: Duration = Duration::from_millis(500);

const BED: &str = "/run/bed";
/// In memory, in the bed.
pub(super) const HOT: &str = "/run/bed/bench";

/// The half of `bench vm` that runs in the bed
#[derive(clap::Args)]
pub(super) struct Args {
    #[arg(long)]
    rounds: u32,
    /// How the kernel finds its devices: `acpi` or `cmdline`
    #[arg(long)]
    discovery: String,
    #[arg(long)]
    room: PathBuf,
}

/// How far a contender is measured.
#[derive(Clone, Copy)]
enum Until {
    /// The guest's first line, in so many MiB of guest memory.
    FirstLine(u64),
    Exit,
    /// The workload's first line, and a while more.
    Idle,
    /// The exit of `programs/files.c`, which says how long it took. Once.
    Files,
}

struct Contender {
    name: &'static str,
    /// Passed over when it is not in the room.
    file: &'static str,
    args: Vec<String>,
    until: Until,
    note: Option<&'static str>,
}

/// Starts them all in turn, `rounds` times after one that is not counted.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        Path::new(BED).is_dir(),
        "`bench guest` is the half of `bench vm` that runs in the bed"
    );
    tool(&["cp", "-a", &args.room.display().to_string(), HOT])?;
    // What moat reads of /etc would come over 9p, and the clock jumps while the processor waits.
    let etc = format!("{HOT}/etc");
    tool(&["cp", "-a", "/etc", &etc])?;
    tool(&["mount", "--bind", &etc, "/etc"])?;
    let hot = Path::new(HOT);
    tool(&["mount", "-t", "debugfs", "none", "/sys/kernel/debug"])?;
    files::make(&Path::new(HOT).join(TREE))?;
    let contenders: Vec<Contender> =
        contenders(&args.discovery).into_iter().filter(|one| hot.join(one.file).exists()).collect();
    let mut outcomes: Vec<Result<Vec<Figures>>> = contenders.iter().map(|_| Ok(vec![])).collect();
    for round in 0..=args.rounds {
        for (contender, outcome) in contenders.iter().zip(&mut outcomes) {
            let Ok(starts) = outcome else { continue };
            if matches!(contender.until, Until::Files) && round > 1 {
                continue;
            }
            match start(contender) {
                Ok(figures) if round > 0 => starts.push(figures),
                Ok(_) => {}
                Err(error) => *outcome = Err(error.context(format!("round {round}"))),
            }
        }
    }
    let rows: Vec<Row> = contenders
        .iter()
        .zip(outcomes)
        .map(|(contender, outcome)| Row {
            name: contender.name.to_owned(),
            outcome: match outcome {
                Ok(starts) => Outcome::Figures(medians(&starts)),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            },
            note: contender.note.map(str::to_owned),
        })
        .collect();
    println!("{}", serde_json::to_string(&rows)?);
    Ok(ExitCode::SUCCESS)
}

fn tool(line: &[&str]) -> Result<()> {
    let [program, args @ ..] = line else { return Ok(()) };
    let status = Command::new(program).args(args).status().with_context(|| program.to_string())?;
    ensure!(status.success(), "`{}` failed", line.join(" "));
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn hot(file: &str) -> String {
    format!("{HOT}/{file}")
}

fn qemu(acpi: bool) -> Vec<String> {
    // The clock too that QEMU's tables promise: a kernel with ACPI looks for it for a second.
    let with = if acpi { "on" } else { "off" };
    let mut args = words(&format!(
        "-M microvm,acpi={with},x-option-roms=off,rtc={with} -accel kvm -cpu host -smp 1 \
         -m {MEMORY_MIB} -nodefaults -no-user-config -display none -no-reboot -serial stdio -L {} \
         -kernel {} -initrd {} -append",
        hot(QEMU_DIRECTORY),
        hot(KERNEL),
        hot(INITRAMFS)
    ));
    args.push(CMDLINE.to_owned());
    args
}

fn bare(discovery: &str, memory_mib: u64) -> Vec<String> {
    // Told, since finding out means reading the whole kernel: moat's store knows it too.
    words(&format!(
        "microvm boot --kernel {} --discovery {discovery} --initramfs {} \
         --memory {memory_mib}MiB --cmdline quiet",
        hot(KERNEL),
        hot(INITRAMFS)
    ))
}

fn contenders(discovery: &str) -> Vec<Contender> {
    let moat =
        |isolation: &str, spec: &str| words(&format!("run --isolation {isolation} {}", hot(spec)));
    let moats = |name, args, until, note| Contender { name, file: MOAT_FILE, args, until, note };
    let alone = Some("no jail, no shared directory, no agent channel, as QEMU above");
    let whole =
        Some("`moat run --isolation vm SPEC` to the exit of `true`: jail, shared root and all");
    vec![
        Contender {
            name: QEMU,
            file: "qemu/qemu-system-x86_64",
            args: qemu(discovery == "acpi"),
            until: Until::FirstLine(MEMORY_MIB),
            note: None,
        },
        moats(VMM, bare(discovery, MEMORY_MIB), Until::FirstLine(MEMORY_MIB), alone),
        moats(VMM_LARGE, bare(discovery, LARGE_MIB), Until::FirstLine(LARGE_MIB), None),
        moats(MOAT_VM, moat("vm", SPEC), Until::Exit, whole),
        moats(
            MOAT_IDLE,
            moat("vm", IDLE_SPEC),
            Until::Idle,
            Some("memory of moat, its VMM and the guest, once its workload waits"),
        ),
        moats(
            MOAT_CONTAINER,
            moat("container", SPEC),
            Until::Exit,
            Some("the same with `--isolation container`"),
        ),
        Contender {
            name: BED_FILES,
            file: FILES,
            args: vec![hot(TREE)],
            until: Until::Files,
            note: Some("1 GiB read from its start to its end; 50,000 files looked at; cold"),
        },
        moats(VM_FILES, moat("vm", FILES_SPEC), Until::Files, None),
    ]
}

fn start(contender: &Contender) -> Result<Figures> {
    let mut command = Command::new(Path::new(HOT).join(contender.file));
    command
        .args(&contender.args)
        .env("LD_LIBRARY_PATH", Path::new(HOT).join(QEMU_DIRECTORY))
        .env("XDG_DATA_HOME", Path::new(HOT).join(DATA))
        .current_dir(HOT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command.spawn().context(contender.file)?;
    let figures = match contender.until {
        Until::FirstLine(memory_mib) => first_line(&mut child, begun, memory_mib),
        Until::Idle => idle(&mut child),
        Until::Exit => return to_exit(child, begun),
        Until::Files => return to_files(child),
    };
    let _ = child.kill();
    let output = child.wait_with_output().context("wait")?;
    figures.with_context(|| last_word(&output.stderr))
}

/// Reads what is written until it contains `line`.
fn await_line(child: &mut Child, line: &str) -> Result<()> {
    let mut stdout = child.stdout.take().context("no standard output")?;
    let mut console = Vec::new();
    let mut block = [0; 4096];
    while !String::from_utf8_lossy(&console).contains(line) {
        let count = stdout.read(&mut block).context("console")?;
        ensure!(count > 0, "the guest never wrote its line, but began {:?}", head(&console));
        console.extend_from_slice(&block[..count]);
    }
    // Whoever writes more must not be stopped by it.
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    Ok(())
}

/// Until the guest has written its line; then the exits that it took, and what the VMM has in
/// memory besides the guest's own.
fn first_line(child: &mut Child, begun: Instant, memory_mib: u64) -> Result<Figures> {
    await_line(child, LINE)?;
    let elapsed = begun.elapsed();
    let exits = watch::exits()?;
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", child.id())).context("smaps")?;
    Ok(Figures::from([
        ("first_line_ms".to_owned(), elapsed.as_secs_f64() * 1e3),
        ("io_exits".to_owned(), exits),
        ("overhead_mib".to_owned(), watch::overhead_mib(&smaps, memory_mib)?),
    ]))
}

/// What all of moat has in memory while its workload waits.
fn idle(child: &mut Child) -> Result<Figures> {
    await_line(child, "idle")?;
    std::thread::sleep(SETTLE);
    let figures = Figures::from([("idle_mib".to_owned(), watch::family_mib(child.id())?)]);
    // moat takes the machine apart.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    child.wait()?;
    Ok(figures)
}

fn to_files(child: Child) -> Result<Figures> {
    let output = child.wait_with_output().context("wait")?;
    ensure!(output.status.success(), "{}: {}", output.status, last_word(&output.stderr));
    files::figures(&String::from_utf8_lossy(&output.stdout))
}

fn to_exit(child: Child, begun: Instant) -> Result<Figures> {
    let output = child.wait_with_output().context("wait")?;
    let elapsed = begun.elapsed();
    ensure!(output.status.success(), "{}: {}", output.status, last_word(&output.stderr));
    Ok(Figures::from([("exit_ms".to_owned(), elapsed.as_secs_f64() * 1e3)]))
}

fn medians(starts: &[Figures]) -> Figures {
    let mut columns: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in starts.iter().flatten() {
        columns.entry(name).or_default().push(*value);
    }
    columns.into_iter().map(|(name, values)| (name.clone(), quantile(&values, 50))).collect()
}

fn last_word(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.trim().lines().last().unwrap_or("without a word").to_owned()
}

fn head(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_each_column() {
        let start = |ms| Figures::from([("exit_ms".to_owned(), ms)]);
        let medians = medians(&[start(3.0), start(1.0), start(2.0)]);
        assert_eq!(medians, Figures::from([("exit_ms".to_owned(), 2.0)]));
    }
}
