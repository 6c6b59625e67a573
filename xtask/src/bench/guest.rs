//! The half of `cargo xtask bench vm` that runs in the bed: starts every contender whose files are
//! in the room, and writes its rows as JSON.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use super::report::{Figures, Outcome, Row, quantile};

pub(super) const MEMORY_MIB: u32 = 256;

// The rows.
pub(super) const QEMU: &str = "QEMU microvm";
pub(super) const VMM: &str = "moat's VMM alone";
pub(super) const MOAT_VM: &str = "moat run, vm";
pub(super) const MOAT_CONTAINER: &str = "moat run, container";

// What is in the room.
pub(super) const XTASK: &str = "xtask";
pub(super) const KERNEL: &str = "vmlinux";
pub(super) const INITRAMFS: &str = "initramfs";
pub(super) const QEMU_DIRECTORY: &str = "qemu";
pub(super) const VMM_FILE: &str = "vmm";
pub(super) const MOAT_FILE: &str = "moat";
pub(super) const SPEC: &str = "moat.toml";
pub(super) const DATA: &str = "data";

/// What `programs/guest.c` writes.
const LINE: &str = "bench: the guest's first line";

/// QEMU's guest is told what moat tells its own, as far as it makes a start faster.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests";

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
    FirstLine,
    Exit,
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
    let contenders: Vec<Contender> = contenders(args.discovery == "acpi")
        .into_iter()
        .filter(|one| hot.join(one.file).exists())
        .collect();
    let mut outcomes: Vec<Result<Vec<Figures>>> = contenders.iter().map(|_| Ok(vec![])).collect();
    for round in 0..=args.rounds {
        for (contender, outcome) in contenders.iter().zip(&mut outcomes) {
            let Ok(starts) = outcome else { continue };
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

fn contenders(acpi: bool) -> [Contender; 4] {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let hot = |file: &str| format!("{HOT}/{file}");
    // The clock too that QEMU's tables promise: a kernel with ACPI looks for it for a second.
    let with = if acpi { "on" } else { "off" };
    let qemu = words(&format!(
        "-M microvm,acpi={with},x-option-roms=off,rtc={with} -accel kvm -cpu host -smp 1 \
         -m {MEMORY_MIB} -nodefaults -no-user-config -display none -no-reboot -serial stdio -L {} \
         -kernel {} -initrd {} -append",
        hot(QEMU_DIRECTORY),
        hot(KERNEL),
        hot(INITRAMFS)
    ));
    let qemu = qemu.into_iter().chain([CMDLINE.to_owned()]);
    let vmm = words(&format!(
        "{} --initramfs {} --memory {MEMORY_MIB} --vcpus 1{} --cmdline",
        hot(KERNEL),
        hot(INITRAMFS),
        if acpi { " --acpi" } else { "" }
    ));
    let vmm = vmm.into_iter().chain(["quiet".to_owned()]);
    let moat = |isolation: &str| words(&format!("run --isolation {isolation} {}", hot(SPEC)));
    [
        Contender {
            name: QEMU,
            file: "qemu/qemu-system-x86_64",
            args: qemu.collect(),
            until: Until::FirstLine,
            note: None,
        },
        Contender {
            name: VMM,
            file: VMM_FILE,
            args: vmm.collect(),
            until: Until::FirstLine,
            note: Some("no jail, no shared directory, no agent channel, as QEMU above"),
        },
        Contender {
            name: MOAT_VM,
            file: MOAT_FILE,
            args: moat("vm"),
            until: Until::Exit,
            note: Some(
                "`moat run --isolation vm SPEC` to the exit of `true`: jail, shared root and all",
            ),
        },
        Contender {
            name: MOAT_CONTAINER,
            file: MOAT_FILE,
            args: moat("container"),
            until: Until::Exit,
            note: Some("the same with `--isolation container`"),
        },
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
        Until::FirstLine => first_line(&mut child, begun),
        Until::Exit => return to_exit(child, begun),
    };
    let _ = child.kill();
    let output = child.wait_with_output().context("wait")?;
    figures.with_context(|| last_word(&output.stderr))
}

/// Until the guest has written its line; then what the VMM has in memory besides the guest's own.
fn first_line(child: &mut Child, begun: Instant) -> Result<Figures> {
    let mut stdout = child.stdout.take().context("no standard output")?;
    let mut console = Vec::new();
    let mut block = [0; 4096];
    while !String::from_utf8_lossy(&console).contains(LINE) {
        let count = stdout.read(&mut block).context("console")?;
        ensure!(count > 0, "the guest never wrote its line, but began {:?}", head(&console));
        console.extend_from_slice(&block[..count]);
    }
    let elapsed = begun.elapsed();
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", child.id())).context("smaps")?;
    Ok(Figures::from([
        ("first_line_ms".to_owned(), elapsed.as_secs_f64() * 1e3),
        ("overhead_mib".to_owned(), overhead_mib(&smaps)?),
    ]))
}

fn to_exit(child: Child, begun: Instant) -> Result<Figures> {
    let output = child.wait_with_output().context("wait")?;
    let elapsed = begun.elapsed();
    ensure!(output.status.success(), "{}: {}", output.status, last_word(&output.stderr));
    Ok(Figures::from([("exit_ms".to_owned(), elapsed.as_secs_f64() * 1e3)]))
}

/// What is resident (proc_pid_smaps(5)) but not in the one mapping that is the guest's memory,
/// which is known by its size.
fn overhead_mib(smaps: &str) -> Result<f64> {
    let guest = MEMORY_MIB * 1024;
    let (mut size, mut guests, mut overhead) = (0, 0, 0);
    for line in smaps.lines() {
        let kib = |key: &str| -> Option<u32> {
            line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        if let Some(kib) = kib("Size:") {
            size = kib;
            guests += u32::from(size == guest);
        } else if let Some(kib) = kib("Rss:").filter(|_| size != guest) {
            overhead += kib;
        }
    }
    ensure!(guests == 1, "{guests} mappings of {MEMORY_MIB} MiB, where the guest's is the one");
    Ok(f64::from(overhead) / 1024.0)
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
    fn overhead_leaves_out_the_guest_alone() {
        let smaps = "7f00-7f01 rw-p 0 0\nSize: 262144 kB\nRss: 30000 kB\nPss: 30000 kB\n\
                     8000-8001 rw-p 0 0\nSize: 2048 kB\nRss: 1024 kB\n\
                     9000-9001 rw-p 0 0\nSize: 8192 kB\nRss: 512 kB\n";
        assert_eq!(overhead_mib(smaps).unwrap(), 1.5);
        assert!(overhead_mib("Size: 8 kB\nRss: 8 kB\n").is_err());
    }

    #[test]
    fn medians_are_of_each_column() {
        let start = |ms| Figures::from([("exit_ms".to_owned(), ms)]);
        let medians = medians(&[start(3.0), start(1.0), start(2.0)]);
        assert_eq!(medians, Figures::from([("exit_ms".to_owned(), 2.0)]));
    }
}
