//! What is measured, built: the small C programs, moat in its release profile, the root that
//! contenders run `true` on.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of ours in C: its name and source.
pub(super) struct Program(&'static str, &'static str, &'static [&'static str]);

const BARE: &[&str] = &["-nostdlib"];

pub(super) const TRUE: Program = Program("true", include_str!("programs/true.c"), BARE);
pub(super) const GUEST: Program = Program("guest", include_str!("programs/guest.c"), BARE);
pub(super) const IDLE: Program = Program("idle", include_str!("programs/idle.c"), BARE);
pub(super) const FILES: Program = Program("files", include_str!("programs/files.c"), &[]);
pub(super) const LAUNCH: Program = Program("launch", include_str!("programs/launch.c"), &[]);
pub(super) const IO: Program = Program("io", include_str!("programs/io.c"), &[]);
pub(super) const FLOOR: Program = Program("floor", include_str!("programs/floor.c"), &[]);

impl Program {
    /// Compiles it, static, into `dir`.
    pub(super) fn compile(&self, dir: &Path) -> Result<PathBuf> {
        let Self(name, text, options) = self;
        let target = dir.join(name);
        let source = target.with_extension("c");
        fs::write(&source, text).with_context(|| source.display().to_string())?;
        let status = Command::new("gcc")
            .args(["-O2", "-static", "-fno-stack-protector", "-o"])
            .args([&target, &source])
            .args(*options)
            .status()
            .context("gcc is not installed: run `cargo xtask setup`")?;
        ensure!(status.success(), "gcc could not compile {name}.c");
        fs::remove_file(&source).with_context(|| source.display().to_string())?;
        Ok(target)
    }
}

/// A directory for everything a benchmark needs, that every user may pass through: the contenders'
/// user 0 is not this machine's.
pub(crate) fn room() -> Result<tempfile::TempDir> {
    let room = tempfile::Builder::new().prefix("moat-bench-").tempdir().context("temporary")?;
    fs::set_permissions(room.path(), fs::Permissions::from_mode(0o755))?;
    Ok(room)
}

/// Makes the root that `true` runs on: Debian's static busybox, our `true`, mount points.
pub(crate) fn rootfs(room: &Path) -> Result<PathBuf> {
    let root = room.join("rootfs");
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .context("busybox-static is not installed: run `cargo xtask setup`")?;
    TRUE.compile(&root.join("bin"))?;
    Ok(root)
}

/// Builds moat's command with the release profile.
///
/// # Errors
/// The reason in one line; cargo has shown the rest.
pub(crate) fn moat() -> Result<PathBuf> {
    cargo(&["--package", "moat", "--bin", "moat"], "moat")
}

fn cargo(what: &[&str], name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--message-format", "json-render-diagnostics"])
        .args(what)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .context("cargo")?;
    ensure!(output.status.success(), "`cargo build --release {}` failed", what.join(" "));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo does not say where {name} is"))
}
