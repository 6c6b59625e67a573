//! Which limit is which file of which version (kernel Documentation/admin-guide/cgroup-v2.rst and
//! cgroup-v1).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use moat_core::cgroup::{Controller, Version};
use moat_core::sandbox::Limits;
use moat_core::spec::{Bytes, IoMax};
use nix::sys::stat::{major, minor};

use super::{Error, file, v1};

/// The period of a processor quota in microseconds, the kernel's default.
const PERIOD: u64 = 100_000;

/// Sets all limits that a controller holds, in the group `dir`.
pub(super) fn set(
    dir: &Path,
    controller: Controller,
    version: Version,
    limits: &Limits,
) -> Result<(), Error> {
    let write = |name: &str, value: String| file::write(&dir.join(name), &value);
    match (controller, version) {
        (Controller::Memory, _) => memory(dir, version, limits),
        (Controller::Cpu, Version::V2) => write("cpu.max", format!("{} {PERIOD}", quota(limits))),
        // A new group has the period already (sched-bwc.rst).
        (Controller::Cpu, Version::V1) => write("cpu.cfs_quota_us", quota(limits).to_string()),
        (Controller::Pids, _) => write("pids.max", limits.pids.to_string()),
        (Controller::Cpuset, _) => {
            if version == Version::V1 {
                v1::inherit_cpuset(dir)?;
            }
            match &limits.cpuset {
                Some(set) => write("cpuset.cpus", set.to_string()),
                None => Ok(()),
            }
        }
        (Controller::Io, _) => {
            weight(dir, version, limits)?;
            limits.io_max.iter().try_for_each(|(path, max)| throttle(dir, version, path, max))
        }
    }
}

fn memory(dir: &Path, version: Version, limits: &Limits) -> Result<(), Error> {
    let (memory, swap) = (limits.memory.get(), limits.swap.get());
    let (file, swap_file, swap_value) = match version {
        Version::V2 => ("memory.max", "memory.swap.max", swap),
        // Memory and swap together.
        Version::V1 => {
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", memory.saturating_add(swap))
        }
    };
    file::write(&dir.join(file), &memory.to_string())?;
    let path = dir.join(swap_file);
    match file::write(&path, &swap_value.to_string()) {
        // A kernel that does not count swap.
        Err(error) if error.is_not_found() && swap == 0 => Ok(()),
        Err(error) if error.is_not_found() => Err(Error::NotHeld { limit: "swap", path }),
        written => written,
    }
}

/// Microseconds of processor in a period.
fn quota(limits: &Limits) -> u64 {
    // Not below 1 ms, which is the least that the kernel takes.
    (u64::from(limits.cpus.milli()) * PERIOD / 1000).max(1000)
}

/// Shares go by weight only on devices whose scheduler is bfq, or which have an io cost model (v2):
/// each has a file of its own.
fn weight(dir: &Path, version: Version, limits: &Limits) -> Result<(), Error> {
    let Some(weight) = limits.io_weight else { return Ok(()) };
    let bfq = bfq_weight(weight).to_string();
    let files = match version {
        Version::V2 => vec![("io.weight", weight.to_string()), ("io.bfq.weight", bfq)],
        Version::V1 => vec![("blkio.bfq.weight", bfq)],
    };
    let mut held = false;
    for (name, value) in files {
        match file::write(&dir.join(name), &value) {
            Err(error) if error.is_not_found() => {}
            written => {
                written?;
                held = true;
            }
        }
    }
    let path = dir.join("io.weight");
    if held { Ok(()) } else { Err(Error::NotHeld { limit: "io weight", path }) }
}

/// From 1 to 10,000 with 100 in the middle, to bfq's 1 to 1,000 with the same middle
/// (Documentation/block/bfq-iosched.rst).
fn bfq_weight(weight: u16) -> u16 {
    if weight <= 100 { weight } else { 100 + (weight - 100) / 11 }
}

fn throttle(dir: &Path, version: Version, path: &Path, max: &IoMax) -> Result<(), Error> {
    let device = device(path)?;
    let size = |size: Option<Bytes>| size.map(Bytes::get);
    let limits = [
        ("rbps", "blkio.throttle.read_bps_device", size(max.read_bps)),
        ("wbps", "blkio.throttle.write_bps_device", size(max.write_bps)),
        ("riops", "blkio.throttle.read_iops_device", max.read_iops),
        ("wiops", "blkio.throttle.write_iops_device", max.write_iops),
    ];
    let mut given =
        limits.into_iter().filter_map(|(key, file, value)| value.map(|value| (key, file, value)));
    match version {
        Version::V1 => given.try_for_each(|(_, file, value)| {
            file::write(&dir.join(file), &format!("{device} {value}"))
        }),
        Version::V2 => {
            let words: Vec<String> =
                given.map(|(key, _, value)| format!("{key}={value}")).collect();
            file::write(&dir.join("io.max"), &format!("{device} {}", words.join(" ")))
        }
    }
}

/// A block device's numbers, as the kernel reads them: `8:16`.
fn device(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Device { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(failed)?;
    if nix::sys::stat::SFlag::from_bits_truncate(found.mode()) & nix::sys::stat::SFlag::S_IFMT
        != nix::sys::stat::SFlag::S_IFBLK
    {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    Ok(format!("{}:{}", major(found.rdev()), minor(found.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_all_weights_is_the_same() {
        let weights = [1, 50, 100, 1_000, 10_000].map(bfq_weight);
        assert_eq!(weights, [1, 50, 100, 181, 1_000]);
    }

    #[test]
    fn only_block_devices_are_throttled() {
        assert!(device(Path::new("/dev/null")).is_err());
        assert!(device(Path::new("/nowhere")).is_err());
    }
}
