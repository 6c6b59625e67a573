//! Guests that ask for ever: what the machine keeps for them has an end.

use std::fs;

use super::{ask, guarded_share};
use crate::fuzzing::fs::{init, request};

/// Requests of each kind.
const ROUNDS: u32 = 2000;
/// Far below what the requests below would take if a device kept them, far above what the tests
/// beside this one need.
const GROWTH: u64 = 512 << 20;

/// This process's resident memory at its height, in bytes.
fn height() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Descriptors of this process that are files of the share.
fn open_files(share: &std::path::Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|link| fs::read_link(link.ok()?.path()).ok())
        .filter(|target| target.starts_with(share))
        .count()
}

#[test]
fn requests_of_any_number_leave_nothing_behind() {
    let (around, guarded, mut driver) = guarded_share();
    driver.start(0);
    ask(&mut driver, &init(), 200);
    let before = (height(), open_files(&around.share()));
    for round in 0..ROUNDS {
        // A hello, names that are not there, sizes that would be reserved, and what is looked up is
        // forgotten again.
        let found = ask(&mut driver, &request(1, 1, b"file\0"), 200).unwrap();
        let node = u64::from_le_bytes(*found.body.first_chunk().unwrap());
        ask(&mut driver, &request(1, 1, format!("none{round}\0").as_bytes()), 200);
        let size = [(1u32 << 30).to_le_bytes(), [0; 4]].concat();
        ask(&mut driver, &request(23, node, &size), 200);
        ask(&mut driver, &request(22, node, &[&size[..], b"user.x\0"].concat()), 200);
        ask(&mut driver, &request(2, node, &1u64.to_le_bytes()), 200);
    }
    let after = (height(), open_files(&around.share()));
    assert!(after.0 - before.0 < GROWTH, "{} MiB", (after.0 - before.0) >> 20);
    assert!(after.1 <= before.1 + 1, "{} and then {} open files", before.1, after.1);
    driver.transport.stop();
    guarded.check();
}

/// What a guest leaves open is the machine's as long as its driver lives, and no longer.
#[test]
fn what_was_left_open_is_closed_by_a_new_mount() {
    let (around, _guarded, mut driver) = guarded_share();
    driver.start(0);
    ask(&mut driver, &init(), 200);
    let before = open_files(&around.share());
    for _ in 0..50 {
        assert_eq!(ask(&mut driver, &request(27, 1, &[0; 8]), 200).unwrap().error, 0);
    }
    assert!(open_files(&around.share()) >= before + 50);
    // FUSE_DESTROY, which ends a mount.
    ask(&mut driver, &request(38, 0, &[]), 200);
    assert!(open_files(&around.share()) <= before + 1);
}
