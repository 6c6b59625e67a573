//! `cargo xtask fuzz`: builds the fuzz targets of `tests/fuzz` and runs them.
//!
//! They are built with cargo-fuzz, AddressSanitizer and overflow checks. Sanitizers are unstable
//! flags, which the stable compiler takes where `RUSTC_BOOTSTRAP` is set: so the very compiler is
//! used that builds moat, and no nightly is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use nix::unistd::Uid;

/// Run the fuzz targets: what reads a guest's, an image's or a user's bytes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target [default: all, one after the other]
    target: Option<String>,

    /// How long each is run
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Below the repository. What is found goes there, the corpora in the repository stay as they are.
const DIR: &str = "tests/fuzz";
const FOUND: &str = "tests/fuzz/target/found";
/// cargo's name for the platform.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Where a target runs: everything but /tmp and the directory `$1` can be read only, so that an
/// input that gets out of a share harms nothing. `$2` on is the target with its arguments.
const CONFINED: &str = "mount --bind \"$1\" \"$1\" && mount -t tmpfs -o size=512m tmpfs /tmp \
    && mount -o remount,bind,ro / && cd \"$1\" && shift && exec \"$@\"";

/// The status is 1 when a target found something.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let version = cargo_fuzz(&["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(
        version.is_ok_and(|status| status.success()),
        "cargo-fuzz is not installed; run\n  cargo install --locked cargo-fuzz"
    );
    let all = targets()?;
    let chosen: Vec<&String> = all
        .iter()
        .filter(|name| args.target.as_ref().is_none_or(|wanted| wanted == *name))
        .collect();
    ensure!(!chosen.is_empty(), "there is no such target; there are {}", all.join(", "));
    let target_dir = fs::canonicalize(DIR).context(DIR)?.join("target");
    let mut build = cargo_fuzz(&["build", "--fuzz-dir", DIR, "--sanitizer", "address"]);
    build.arg("--target-dir").arg(&target_dir).args(&args.target);
    ensure!(build.status()?.success(), "the fuzz targets don't build");
    let mut good = true;
    for name in chosen {
        good &= fuzz(name, args.seconds, &target_dir)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo_fuzz(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.arg("fuzz").args(args).env("RUSTC_BOOTSTRAP", "1");
    command
}

fn targets() -> Result<Vec<String>> {
    let listed = cargo_fuzz(&["list", "--fuzz-dir", DIR]).output()?;
    let text = String::from_utf8(listed.stdout)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// True if nothing was found.
fn fuzz(name: &str, seconds: u64, target_dir: &Path) -> Result<bool> {
    let found = fs::canonicalize(".")?.join(FOUND).join(name);
    let corpus = found.join("corpus");
    fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    let program: PathBuf = target_dir.join(PLATFORM).join("release").join(name);
    let seeds = fs::canonicalize(DIR)?.join("corpus").join(name);
    println!("\n== {name}, {seconds} s; what it finds is in {}", found.display());
    let mut command = Command::new("unshare");
    if !Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private", "sh", "-c", CONFINED, "sh"]);
    command.arg(&found).arg(program);
    command.args(["-max_len=4096", "-timeout=60", "-malloc_limit_mb=700", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}")).arg(corpus).arg(seeds);
    Ok(command.status().context("unshare (util-linux)")?.success())
}
