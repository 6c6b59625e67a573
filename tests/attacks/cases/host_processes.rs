//! The host's processes are neither to be seen nor to be signalled.

use std::fs;
use std::process::{Child, Command};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    behind: |field| run(field, |arguments| field.moat_with("", arguments)),
    open: |field| {
        run(field, |arguments| field.naive_with(arguments, |naive| naive.own_pids = false))
    },
    ..Case::new(
        "host_processes",
        "looks for a process of the host by its command line, and kills it by its pid",
        attack,
    )
};

fn attack(tries: &Tries, arguments: &[&str]) {
    let [pid, duration] = arguments else { return };
    let pid: i32 = pid.parse().unwrap_or(i32::MAX);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let sleeper = format!("sleep\0{duration}\0").into_bytes();
    match lines.filter(|line| *line == sleeper).count() {
        0 => tries.refused("see it", "not in /proc"),
        _ => tries.got("see it", "in /proc"),
    }
    tries.of("kill it", kill(Pid::from_raw(pid), Signal::SIGKILL).map(|()| "killed"));
}

/// A process of the host's, known by how long it sleeps, in seconds.
fn sleeper(field: &Field<'_>) -> Result<(Child, [String; 2])> {
    let mut name = field.space.path().display().to_string();
    name.retain(|character| character.is_ascii_alphanumeric());
    let number: u32 =
        name.bytes().map(u32::from).fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    let duration = (1_000_000 + number % 1_000_000).to_string();
    let child = Command::new("sleep").arg(&duration).spawn()?;
    let pid = child.id().to_string();
    Ok((child, [pid, duration]))
}

fn run(
    field: &Field<'_>,
    attack: impl FnOnce(&[&str]) -> Result<Vec<Evidence>>,
) -> Result<Vec<Evidence>> {
    let (mut child, arguments) = sleeper(field)?;
    let found = attack(&[&arguments[0], &arguments[1]]);
    let ended = child.try_wait();
    // Both fail when it was killed already.
    let _ = child.kill();
    let _ = child.wait();
    let mut found = found?;
    let ended = ended?;
    let lives = if ended.is_some() { "killed, says the host" } else { "lives, says the host" };
    found.push(Evidence::when(ended.is_some(), "the process itself", lives));
    Ok(found)
}
