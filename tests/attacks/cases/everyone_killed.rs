//! kill(-1) reaches the workload's own processes alone.

use std::process::Command;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    behind,
    open: |field| field.naive_with(&[&host()?], |naive| naive.neighbour = true),
    ..Case::new("everyone_killed", "sends SIGKILL to every process that it can reach", attack)
};

/// What comes of it the others tell.
fn attack(_: &Tries, arguments: &[&str]) {
    // Never where it could reach the host.
    let here = std::fs::read_link("/proc/self/ns/pid");
    let here = here.ok().and_then(|here| here.to_str().map(str::to_owned));
    if here.is_some() && here.as_deref() != arguments.first().copied() {
        // What it reaches tells of it.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
}

/// The host's pid namespace.
fn host() -> Result<String> {
    Ok(std::fs::read_link("/proc/self/ns/pid")?.display().to_string())
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let mut other = Command::new("sleep").arg("1000").spawn()?;
    field.space.spec("")?;
    let seen = field.space.run(&field.command(&[&host()?]));
    let ended = other.try_wait();
    // Both fail when it was killed already.
    let _ = other.kill();
    let _ = other.wait();
    let (seen, ended) = (seen?, ended?);
    seen.status(0)?;
    Ok(vec![Evidence::when(ended.is_some(), "another's process", "lives on, and so does moat")])
}
