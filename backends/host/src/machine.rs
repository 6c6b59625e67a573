//! Facts of this machine that decisions look at.

use std::fs::File;
use std::io::{self, Read};

use moat_core::spec::Bytes;

use crate::procfs;

/// The machine's memory; 0 when `/proc/meminfo` does not say (proc(5)).
pub fn memory() -> Bytes {
    let text = procfs::read("/proc/meminfo").unwrap_or_default();
    Bytes::new(total(&text).unwrap_or(0))
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// So many random bytes from the kernel's generator (random(4)).
///
/// # Errors
/// When `/dev/urandom` can't be read.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kib() {
        assert_eq!(total("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16384));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(memory().get() > 0);
    }
}
