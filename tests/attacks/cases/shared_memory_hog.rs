//! /dev/shm has a size.

use crate::cases::Case;
use crate::inside::{Tries, fill};

pub(super) const CASE: Case = Case {
    name: "shared_memory_hog",
    does: "writes 96 MiB to /dev/shm, which has 64 MiB by default",
    cve: None,
    hole: None,
    attack,
    behind: |field| field.moat(""),
    open: |field| field.moat("shm_size = \"256MiB\""),
};

fn attack(tries: &Tries, _: &[&str]) {
    tries.of("more than its size", fill("/dev/shm/hog", 96));
}
