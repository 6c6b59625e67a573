//! What this machine can do, by moat's own word.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use crate::moat::{BED, Moat};
use crate::seen::Seen;

/// Whether the tests run as root, as those that make another host must.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Whether this is the bed: a machine that runs nothing but these tests.
pub fn is_bed() -> bool {
    Path::new(BED).is_dir()
}

/// The directory in which moat keeps what lasts (XDG base directories 0.8), for a moat with another
/// home.
///
/// # Errors
/// When there is no home.
pub fn data_home() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home).context("HOME is not set")
}

/// What this machine lacks for `container` or `vm`; `None` when it can run one.
pub fn lacks(isolation: &str) -> Option<String> {
    let asked = Moat::new(["explain", "--format", "json", "--isolation", isolation, "--", "true"])
        .and_then(Moat::run);
    match asked {
        Ok(seen) if seen.status == 0 => None,
        Ok(seen) => Some(reason(&seen)),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Whether it can run a container.
pub fn has_containers() -> bool {
    lacks("container").is_none()
}

/// Whether it can run a micro-VM.
pub fn has_vms() -> bool {
    lacks("vm").is_none()
}

fn reason(seen: &Seen) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(&seen.stdout).ok();
    let message = value.as_ref().and_then(|value| value.pointer("/0/message")?.as_str());
    message.map_or_else(|| seen.shown(), str::to_owned)
}
