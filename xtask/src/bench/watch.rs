//! What the bed's kernel says of a VMM while it runs: memory, and exits from the guest.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// Where KVM counts (Linux virt/kvm/kvm_main.c): a directory `PID-FD` for each machine.
const COUNTS: &str = "/sys/kernel/debug/kvm";

/// KiB of the lines `key` of an smaps file (proc_pid_smaps(5)).
fn kib(line: &str, key: &str) -> Option<u64> {
    line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn as_mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

/// A mapping: where it ends, its size and what of it is resident, in KiB.
struct Mapping {
    start: String,
    end: String,
    size: u64,
    resident: u64,
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        if let Some((start, end)) = range {
            let (start, end) = (start.to_owned(), end.to_owned());
            found.push(Mapping { start, end, size: 0, resident: 0 });
        } else if let Some(last) = found.last_mut() {
            last.size += kib(line, "Size:").unwrap_or(0);
            last.resident += kib(line, "Rss:").unwrap_or(0);
        }
    }
    found
}

/// MiB that are resident, but not in the guest's memory: the mappings that lie next to each other
/// and are `guest_mib` together, since a kernel may be mapped into it.
pub(super) fn overhead_mib(smaps: &str, guest_mib: u64) -> Result<f64> {
    let all = mappings(smaps);
    let guests: Vec<u64> =
        (0..all.len()).filter_map(|at| stretch(&all[at..], guest_mib << 10)).collect();
    ensure!(guests.len() == 1, "{} stretches of {guest_mib} MiB, not one", guests.len());
    let resident: u64 = all.iter().map(|one| one.resident).sum();
    Ok(as_mib(resident - guests[0]))
}

/// What is resident of the first mappings, if those that adjoin are `size` together.
fn stretch(mappings: &[Mapping], size: u64) -> Option<u64> {
    let (mut seen, mut resident) = (0, 0);
    let mut end: Option<&String> = None;
    for mapping in mappings {
        if end.is_some_and(|end| *end != mapping.start) {
            return None;
        }
        seen += mapping.size;
        resident += mapping.resident;
        end = Some(&mapping.end);
        if seen >= size {
            return (seen == size).then_some(resident);
        }
    }
    None
}

/// MiB that a process and all below it take, what they share counted once (`Pss`).
pub(super) fn family_mib(pid: u32) -> Result<f64> {
    Ok(as_mib(family_kib(pid)?))
}

fn family_kib(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("smaps_rollup")?;
    let mut total = rollup.lines().find_map(|line| kib(line, "Pss:")).context("no Pss")?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children")).context("children")?;
        for child in children.split_whitespace() {
            total += family_kib(child.parse()?)?;
        }
    }
    Ok(total)
}

/// Exits for port I/O and for MMIO of the one machine that runs.
pub(super) fn exits() -> Result<f64> {
    let mut machines = Vec::new();
    for entry in fs::read_dir(COUNTS).context(COUNTS)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            machines.push(entry.path());
        }
    }
    ensure!(machines.len() == 1, "{} machines run, and not one", machines.len());
    let mut sum = 0;
    for count in ["io_exits", "mmio_exits"] {
        sum += number(&machines[0].join(count))?;
    }
    Ok(f64::from(sum))
}

fn number(path: &Path) -> Result<u32> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.trim().parse().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_leaves_out_the_guest_alone_though_its_kernel_is_mapped_into_it() {
        let smaps = "7f00-7f01 rw-p 0 0\nSize: 200000 kB\nRss: 30000 kB\nPss: 30000 kB\n\
                     7f01-7f02 rw-p 0 8:1 /vmlinux\nSize: 62144 kB\nRss: 900 kB\n\
                     7f02-8001 rw-p 0 0\nSize: 2048 kB\nRss: 1024 kB\n\
                     9000-9001 rw-p 0 0\nSize: 8192 kB\nRss: 512 kB\n";
        assert_eq!(overhead_mib(smaps, 256).unwrap(), 1.5);
        assert!(overhead_mib("1-2 rw-p\nSize: 8 kB\nRss: 8 kB\n", 256).is_err());
    }
}
