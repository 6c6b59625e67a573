//! `cargo xtask test`: installs what the tests need, builds, runs everything, ends with counts.
//!
//! Natively run: formatting, clippy, licences, every unit and whole-command test, and the behaviour
//! cases on the container wall. Where this machine's KVM can run Linux, the micro-VM's run natively
//! too; where it can't, the behaviour cases (both walls, compared) and the backends' own tests run
//! in the bed.

mod counts;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use counts::Counts;
use serde_json::Value;

use crate::bed::TIMED_OUT;
use crate::setup;

/// Test everything, installing first what that needs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out what needs a micro-VM
    #[arg(long)]
    no_vm: bool,
}

/// Packages whose test executables also look at the kernel they run on: cgroup v2, KVM.
const ALSO_IN_BED: [&str; 3] = ["moat-container", "moat-microvm", "moat-init"];

/// The end-to-end tests that look at cgroups, which are v2 in the bed.
const LEFTOVERS: &str = "leftovers";

/// Of others, those tests that need cgroup v2, or a KVM that runs Linux: the target, and parts of
/// their names, as arguments.
const SOME_IN_BED: [(&str, &str); 2] =
    [("attacks", "cgroup_files"), ("command", "where_cgroups_are_delegated linux_")];

/// Seconds that everything in one bed may take together.
const BED_TIMEOUT: &str = "1800";

/// Seconds that a bed may write nothing: more than a test gives any moat.
const BED_SILENCE: &str = "300";

/// Each takes 4 GiB and a processor.
const MOST_BEDS: usize = 4;

/// Runs everything; the status is 0 when nothing failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::prepare()?;
    let start = Instant::now();
    let mut counts = Counts::default();
    checks(&mut counts)?;

    step("build");
    cargo(&["build"])?;
    let tests = executables()?;
    step("tests on this machine");
    for test in tests.iter().filter(|test| !test.is_behaviour()) {
        counts.run(&test.name(), test.command(&[]))?;
    }
    let kvm = vm_lacks()?;
    let walls: &[&str] = if kvm.is_none() && !args.no_vm { &[] } else { &["container::"] };
    for test in tests.iter().filter(|test| test.is_behaviour()) {
        counts.run(&test.name(), test.command(walls))?;
    }
    match kvm {
        None => {}
        Some(_) if args.no_vm => counts.skipped("the micro-VM wall", "--no-vm was given"),
        Some(reason) => {
            step(&format!("tests in the bed, since {reason}"));
            in_beds(&mut counts, &tests)?;
        }
    }
    println!("\n{counts} in {} s", start.elapsed().as_secs());
    println!("{}", counts.closing_line());
    Ok(if counts.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn step(what: &str) {
    println!("\n== {what}");
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO")).args(args).status().context("cargo can't be run")?;
    ensure!(status.success(), "cargo {} failed", args.join(" "));
    Ok(())
}

/// What needs no test to run.
fn checks(counts: &mut Counts) -> Result<()> {
    step("formatting, lints, licences");
    cargo(&["fmt", "--all", "--check"])?;
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--locked"];
    cargo(&[&clippy[..], &["--", "-D", "warnings"]].concat())?;
    // What documentation links to must be there.
    let docs = ["doc", "--quiet", "--workspace", "--no-deps", "--locked"];
    let status = Command::new(env!("CARGO")).args(docs).env("RUSTDOCFLAGS", "-D warnings").status();
    ensure!(status.context("cargo can't be run")?.success(), "cargo doc failed");
    let deny = Command::new(env!("CARGO")).args(["deny", "--version"]).output()?;
    if deny.status.success() {
        // Advisories need a database that is fetched from outside the package registries.
        cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"])?;
    } else {
        counts.skipped(
            "cargo deny",
            "cargo-deny is not installed (`cargo install --locked cargo-deny`)",
        );
    }
    Ok(())
}

/// One built test executable.
struct Test {
    package: String,
    target: String,
    executable: PathBuf,
    manifest_dir: PathBuf,
}

impl Test {
    fn name(&self) -> String {
        format!("{} {}", self.package, self.target)
    }

    fn is_behaviour(&self) -> bool {
        self.target == "behaviour"
    }

    /// Which of its tests are run in the bed, too: `""` is all of them.
    fn filter_in_bed(&self) -> Option<&'static str> {
        let whole = self.is_behaviour()
            || self.target == LEFTOVERS
            || ALSO_IN_BED.contains(&self.package.as_str());
        let some = SOME_IN_BED.iter().find(|(target, _)| *target == self.target);
        if whole { Some("") } else { some.map(|(_, filter)| *filter) }
    }

    /// As cargo runs it: in its package's directory. A CI system may start all this with signals
    /// ignored (a shell's `&` does), which the tests' programs would go by.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("env");
        command
            .arg("--default-signal")
            .arg(&self.executable)
            .args(args)
            .current_dir(&self.manifest_dir)
            .env("CARGO_MANIFEST_DIR", &self.manifest_dir);
        command
    }
}

/// Builds every test and tells where cargo put it.
fn executables() -> Result<Vec<Test>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--locked",
            "--message-format",
            "json-render-diagnostics",
        ])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the tests don't build");
    let text = String::from_utf8(output.stdout)?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests: Vec<Test> = messages.filter_map(|message| test(&message)).collect();
    if tests.is_empty() {
        bail!("cargo built no test");
    }
    Ok(tests)
}

fn test(message: &Value) -> Option<Test> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Test {
        package: package(message["package_id"].as_str()?),
        target: message["target"]["name"].as_str()?.to_owned(),
        executable: message["executable"].as_str().filter(|_| is_test)?.into(),
        manifest_dir: manifest.parent()?.to_owned(),
    })
}

/// The name in `path+file:///work/core#moat-core@0.1.0`, or in `path+file:///work/cli#0.1.0` where
/// the directory has the package's name.
fn package(id: &str) -> String {
    let (path, fragment) = id.rsplit_once('#').unwrap_or(("", id));
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

/// Why this machine can't run a micro-VM by moat's own word; `None` when it can.
fn vm_lacks() -> Result<Option<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--",
            "explain",
            "--format",
            "json",
            "--isolation",
            "vm",
            "--",
            "true",
        ])
        .output()?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(told.pointer("/0/message").and_then(Value::as_str).map(str::to_owned))
}

/// As many beds as there are processors, each with its share of the behaviour cases and of the
/// other executables.
fn in_beds(counts: &mut Counts, tests: &[Test]) -> Result<()> {
    let tests: Vec<&Test> = tests.iter().filter(|test| test.filter_in_bed().is_some()).collect();
    for test in &tests {
        counts.forget_skips(&test.name(), test.filter_in_bed().unwrap_or_default());
    }
    let beds = thread::available_parallelism().map_or(1, usize::from).min(MOST_BEDS);
    let counted = thread::scope(|scope| {
        let running: Vec<_> = (0..beds)
            .map(|bed| {
                let script = script(&tests, bed, beds);
                scope.spawn(move || in_bed(bed, &script?))
            })
            .collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for result in counted {
        counts.add(result.map_err(|_| anyhow!("the thread of a bed panicked"))??);
    }
    Ok(())
}

/// Everything hot is copied to the bed's memory first: its other files come over 9p, slowly.
fn script(tests: &[&Test], bed: usize, beds: usize) -> Result<String> {
    let moat = std::env::current_exe()?.with_file_name("moat");
    let mut script = format!(
        "failed=0; cd /run/bed && mkdir -m 1777 data tmp && cp {} moat \
         && cp -a \"${{XDG_DATA_HOME:-$HOME/.local/share}}/moat\" data/ || exit 125\n\
         export MOAT_BIN=/run/bed/moat XDG_DATA_HOME=/run/bed/data TMPDIR=/run/bed/tmp MOAT_SHARE={bed}/{beds}\n",
        quoted(moat.as_os_str()),
    );
    let mine = |(at, test): &(usize, &&Test)| test.is_behaviour() || at % beds == bed;
    for (_, test) in tests.iter().enumerate().filter(mine) {
        script.push_str(&format!(
            "echo '-- {} (in the bed)'\n\
             cp {} test && (cd {} && CARGO_MANIFEST_DIR=$PWD /usr/bin/env --default-signal /run/bed/test --test-threads 1 {}) \
             || failed=1\n",
            test.name(),
            quoted(test.executable.as_os_str()),
            quoted(test.manifest_dir.as_os_str()),
            test.filter_in_bed().unwrap_or_default(),
        ));
    }
    script.push_str("exit $failed\n");
    Ok(script)
}

/// One bed. A machine that stands still is not what is tested: then it is tried once more, and said.
fn in_bed(bed: usize, script: &str) -> Result<Counts> {
    let (counts, status) = try_bed(bed, script)?;
    if status.code() != Some(i32::from(TIMED_OUT)) {
        return Ok(counts);
    }
    println!("bed {} stood still, and is started once more", bed + 1);
    Ok(try_bed(bed, script)?.0)
}

fn try_bed(bed: usize, script: &str) -> Result<(Counts, ExitStatus)> {
    let mut counts = Counts::labelled(format!("{}| ", bed + 1));
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bed", "--timeout", BED_TIMEOUT, "--silence", BED_SILENCE]);
    command.args(["--", "sh", "-c", script]);
    let status = counts.run(&format!("bed {}", bed + 1), command)?;
    Ok((counts, status))
}

fn quoted(path: &OsStr) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}
