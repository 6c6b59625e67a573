//! This host's block devices, as far as limits go: which disk a path is, and which disks share by
//! weight (kernel Documentation/ABI/stable/sysfs-block).

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// Where the kernel shows each block device by its numbers.
const DEVICES: &str = "/sys/dev/block";

/// Where it shows those that are no partition by name.
const DISKS: &str = "/sys/block";

/// Why a path is no disk that can be limited.
#[derive(Debug, thiserror::Error)]
pub enum NoDisk {
    /// Nothing is there, or it can't be looked at.
    #[error("{} can't be looked at", path.display())]
    Unseen {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is no block device", path.display())]
    Other {
        /// The path.
        path: PathBuf,
    },
    /// It is a partition, and its disk is not found.
    #[error("the disk of the partition {} is not found", path.display())]
    Lost {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A disk of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A path of it.
    pub path: PathBuf,
    /// Its numbers, which no other has (makedev(3)).
    pub device: u64,
}

/// The disk that a path is, or that the partition is on which it is: the kernel limits whole disks
/// alone.
///
/// # Errors
/// When the path is no block device.
pub fn disk(path: &Path) -> Result<Disk, NoDisk> {
    let found =
        fs::metadata(path).map_err(|source| NoDisk::Unseen { path: path.to_owned(), source })?;
    if !found.file_type().is_block_device() {
        return Err(NoDisk::Other { path: path.to_owned() });
    }
    let shown = Path::new(DEVICES).join(format!("{}:{}", major(found.rdev()), minor(found.rdev())));
    if !shown.join("partition").exists() {
        return Ok(Disk { path: path.to_owned(), device: found.rdev() });
    }
    // The link leads to `.../DISK/PARTITION`.
    let lost = |source| NoDisk::Lost { path: path.to_owned(), source };
    let partition = fs::canonicalize(&shown).map_err(lost)?;
    let name = partition.parent().and_then(Path::file_name);
    let name = name.ok_or_else(|| lost(io::ErrorKind::NotFound.into()))?;
    // A name with a slash is written with `!` there.
    let disk = Path::new("/dev").join(name.to_string_lossy().replace('!', "/"));
    match fs::metadata(&disk) {
        Ok(found) if found.file_type().is_block_device() => {
            Ok(Disk { path: disk, device: found.rdev() })
        }
        Ok(_) => Err(lost(io::ErrorKind::NotFound.into())),
        Err(source) => Err(lost(source)),
    }
}

/// The disks whose scheduler is bfq, the one that shares by weight, and all others.
pub fn by_scheduler() -> (Vec<String>, Vec<String>) {
    let disks = fs::read_dir(DISKS).into_iter().flatten().flatten();
    let names = disks.map(|disk| disk.file_name().to_string_lossy().into_owned());
    names.partition(|name| {
        let path = Path::new(DISKS).join(name).join("queue/scheduler");
        fs::read_to_string(path).is_ok_and(|text| text.contains("[bfq]"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_block_device_is_told() {
        assert!(matches!(disk(Path::new("/dev/null")), Err(NoDisk::Other { .. })));
        assert!(matches!(disk(Path::new("/nowhere")), Err(NoDisk::Unseen { .. })));
    }

    #[test]
    fn a_partition_stands_for_its_disk() {
        let entries = fs::read_dir("/sys/class/block").unwrap().flatten();
        let mut tried = 0;
        for entry in entries {
            let node = Path::new("/dev").join(entry.file_name());
            if !node.exists() {
                continue;
            }
            let found = disk(&node).unwrap().path;
            let is_partition = entry.path().join("partition").exists();
            assert_eq!(
                found == node,
                !is_partition,
                "{} is on {}",
                node.display(),
                found.display()
            );
            tried += 1;
        }
        if tried == 0 {
            println!("skipped: this machine shows no block device");
        }
    }
}
