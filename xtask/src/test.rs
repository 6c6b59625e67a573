//! `cargo xtask test`: installs what the tests need, builds, runs everything, ends with counts.
//!
//! Natively run: formatting, clippy, licences, every unit and whole-command test, and the behaviour
//! cases on the container wall. Where this machine's KVM can run Linux, the micro-VM's run natively
//! too; where it can't, the behaviour cases (both walls, compared) and the backends' own tests run
//! in the bed.

mod counts;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use counts::Counts;
use serde_json::Value;

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

/// Seconds that everything in the bed may take together.
const BED_TIMEOUT: &str = "1500";

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
            in_bed(&mut counts, &tests)?;
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

    fn runs_in_bed(&self) -> bool {
        self.is_behaviour() || ALSO_IN_BED.contains(&self.package.as_str())
    }

    /// As cargo runs it: in its package's directory.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command
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

/// One boot of the bed for all: each executable in turn, its output and counts as natively.
fn in_bed(counts: &mut Counts, tests: &[Test]) -> Result<()> {
    let mut script = String::from("failed=0\n");
    for test in tests.iter().filter(|test| test.runs_in_bed()) {
        counts.forget_skips(&test.name());
        script.push_str(&format!(
            "echo '-- {} (in the bed)'\ncd {} && CARGO_MANIFEST_DIR=$PWD {} --test-threads 1 || failed=1\n",
            test.name(),
            quoted(test.manifest_dir.as_os_str()),
            quoted(test.executable.as_os_str()),
        ));
    }
    script.push_str("exit $failed\n");
    let mut bed = Command::new(std::env::current_exe()?);
    bed.args(["bed", "--timeout", BED_TIMEOUT, "--", "sh", "-c", &script]);
    counts.run("the bed", bed)
}

fn quoted(path: &OsStr) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}
