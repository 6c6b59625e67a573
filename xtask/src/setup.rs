//! `cargo xtask setup`: what the tests need of this machine, installed where that is allowed.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;
use serde_json::Value;

use crate::bed;

/// Install what the tests need: Debian packages, the bed's kernel, a guest kernel
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Debian packages that the tests, the bed and the benchmarks run.
const PACKAGES: [&str; 18] = [
    // The bed.
    "qemu-system-x86",
    "busybox-static",
    // Peers in the benchmarks.
    "bubblewrap",
    "crun",
    "runc",
    // `moat kernel build`.
    "bc",
    "binutils",
    "bison",
    "flex",
    "gcc",
    "libelf-dev",
    "make",
    "perl",
    "xz-utils",
    // More than one user for what a plain user starts.
    "uidmap",
    // Loads the profile of a test, in the bed.
    "apparmor",
    // Other hands' archives, for the tests of moat's readers and writers.
    "cpio",
    "zstd",
];

/// Prepares this machine; the status is 1 when something has to be done by hand.
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    match prepare() {
        Ok(()) => {
            println!("ready: cargo xtask test");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Sees that everything is there. Quick when it is.
pub(crate) fn prepare() -> Result<()> {
    let missing = missing_packages()?;
    if !missing.is_empty() {
        install(&missing)?;
    }
    bed::prepare()?;
    guest_kernel()
}

fn missing_packages() -> Result<Vec<&'static str>> {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${binary:Package} ${db:Status-Status}\n"])
        .args(PACKAGES)
        .stderr(Stdio::null())
        .output()
        .context("dpkg-query (the tests are set up on Debian and Ubuntu only)")?;
    let text = String::from_utf8_lossy(&query.stdout);
    let installed = |package: &&str| {
        text.lines().any(|line| match line.split_once(' ') {
            // A package of one architecture among several is listed as `name:amd64`.
            Some((name, "installed")) => name.split(':').next() == Some(*package),
            _ => false,
        })
    };
    Ok(PACKAGES.into_iter().filter(|package| !installed(package)).collect())
}

fn install(packages: &[&str]) -> Result<()> {
    let line = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    let root = Uid::effective().is_root();
    if !root && !runs("sudo", &["-n", "true"]) {
        bail!("these packages are missing; run\n  sudo {line}");
    }
    eprintln!("setup: {line}");
    let apt = |line: &str| {
        let words = (!root).then_some("sudo").into_iter().chain(["env"]);
        let words: Vec<&str> =
            words.chain(["DEBIAN_FRONTEND=noninteractive"]).chain(line.split(' ')).collect();
        words.split_first().is_some_and(|(program, args)| runs(program, args))
    };
    // A list of packages that is too old is the likeliest reason to fail.
    ensure!(
        apt(&line) || apt("apt-get update") && apt(&line),
        "apt could not install them; run\n  {line}"
    );
    Ok(())
}

/// Whether the program succeeds. Its output is not wanted; its errors are.
fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// moat's own default guest kernel, fetched when there is none.
fn guest_kernel() -> Result<()> {
    let moat = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--quiet", "--package", "moat", "--bin", "moat", "--"]).args(args);
        command.stderr(Stdio::inherit()).output().context("cargo run moat")
    };
    let listed = moat(&["kernel", "ls", "--format", "json"])?;
    ensure!(listed.status.success(), "moat kernel ls failed");
    let bundles: Value = serde_json::from_slice(&listed.stdout).context("moat kernel ls")?;
    // A broken one is made again.
    let is_default = |row: &Value| row["default"] == true && row.get("broken").is_none();
    if bundles.as_array().is_some_and(|rows| rows.iter().any(is_default)) {
        return Ok(());
    }
    eprintln!("setup: moat kernel install");
    ensure!(moat(&["kernel", "install"])?.status.success(), "moat kernel install failed");
    Ok(())
}
