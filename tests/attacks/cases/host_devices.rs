//! The machine's devices are not there.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;

use crate::cases::Case;
use crate::field::excused;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    open: |field| {
        let openable = |path: &str| OpenOptions::new().read(true).open(path).is_ok();
        Ok(excused(field.naive(|_| {})?, openable))
    },
    ..Case::new(
        "host_devices",
        "opens the machine's devices under /dev: memory, ports, kernel log, KVM, FUSE, disks, loop, input",
        attack,
    )
};

const DEVICES: [&str; 11] =
    ["mem", "kmem", "port", "kmsg", "kvm", "fuse", "loop-control", "loop0", "vda", "sda", "tty1"];

fn attack(tries: &Tries, _: &[&str]) {
    for name in DEVICES {
        tries.opens(&format!("/dev/{name}"), OFlag::O_RDONLY | OFlag::O_NONBLOCK);
    }
    // The least numbers of what every workload has: memory devices 3, 5, 7, 8, 9, and tty.
    let known = |number| matches!(number, 0x103 | 0x105 | 0x107 | 0x108 | 0x109 | 0x500 | 0x502);
    let nodes = fs::read_dir("/dev").into_iter().flatten().flatten();
    let others = nodes
        .filter(|node| node.metadata().is_ok_and(|node| node.rdev() != 0 && !known(node.rdev())));
    match others.count() {
        0 => tries.refused("other nodes", "none"),
        count => tries.got("other nodes", count),
    }
}
