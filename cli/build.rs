//! Builds moat-guest, the micro-VM's PID 1, so that the moat binary can carry it.
//!
//! The guest has a profile of its own (`guest`: small before fast), so Cargo can't make it as a
//! dependency; a nested Cargo does, in a target directory of its own next to the outer one, where
//! every profile of moat finds it already built and the two never wait for each other's lock.

// Cargo reads a build script's stdout.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What goes into the guest binary, relative to the workspace.
const INPUTS: [&str; 6] =
    ["backends/guest", "backends/init", "core", "Cargo.lock", "Cargo.toml", ".cargo/config.toml"];

/// Settings of the outer Cargo that must not leak into the nested one: the flags would hide those
/// of `.cargo/config.toml` (crt-static), the wrappers are those of clippy and coverage.
const CLEARED: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir.parent().ok_or("moat's crate is not in a workspace")?;
    for input in INPUTS {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    put_the_start_together(&manifest_dir)?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let target_dir = guest_target_dir(&out_dir)?;
    let status = nested_cargo(workspace, &target_dir)?.status()?;
    if !status.success() {
        return Err(format!("building moat-guest failed: {status}").into());
    }

    let guest = out_dir.join("moat-guest");
    fs::copy(target_dir.join(TARGET).join("guest/moat-guest"), &guest)?;
    println!("cargo:rustc-env=MOAT_GUEST={}", guest.display());
    Ok(())
}

/// Has the linker put the functions side by side that a start runs (xtask/src/order.rs). It is lld,
/// which Rust uses by itself for this target since 1.90. A build for development does without.
fn put_the_start_together(manifest_dir: &Path) -> Result<(), env::VarError> {
    let list = manifest_dir.join("startup.order");
    println!("cargo:rerun-if-changed={}", list.display());
    if env::var("PROFILE")? == "release" {
        let list = list.display();
        println!("cargo:rustc-link-arg-bin=moat=-Wl,--symbol-ordering-file={list}");
        // Names that are gone: the list is allowed to be old.
        println!("cargo:rustc-link-arg-bin=moat=-Wl,--no-warn-symbol-ordering");
    }
    Ok(())
}

fn nested_cargo(workspace: &Path, target_dir: &Path) -> Result<Command, env::VarError> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .args(["build", "--quiet", "--locked", "--package", "moat-guest", "--bin", "moat-guest"])
        .args(["--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .current_dir(workspace);
    // `CARGO_PROFILE_*`, `CARGO_CFG_*`, `CARGO_FEATURE_*` and their like were made for this crate.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let made_for_us = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_PROFILE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if made_for_us || CLEARED.contains(&name.as_ref()) {
            cargo.env_remove(name.as_ref());
        }
    }
    Ok(cargo)
}

/// `OUT_DIR` is `TARGET-DIR/[TRIPLE/]PROFILE/build/moat-HASH/out`; the guest goes to
/// `TARGET-DIR/moat-guest`.
fn guest_target_dir(out_dir: &Path) -> Result<PathBuf, String> {
    let above_profile = out_dir
        .ancestors()
        .nth(4)
        .ok_or_else(|| format!("OUT_DIR {} is not below a target directory", out_dir.display()))?;
    let has_triple = above_profile.file_name().is_some_and(|name| name == TARGET);
    let target_dir = if has_triple { above_profile.parent() } else { Some(above_profile) };
    Ok(target_dir.unwrap_or(above_profile).join("moat-guest"))
}
