//! /dev/shm has a size.

use crate::cases::Case;
use crate::inside::{Tries, fill};

pub(super) const CASE: Case = Case {
    open: |field| field.moat("shm_size = \"256MiB\""),
    ..Case::new(
        "shared_memory_hog",
        "writes 96 MiB to /dev/shm, which has 64 MiB by default",
        attack,
    )
};

fn attack(tries: &Tries, _: &[&str]) {
    tries.of("more than its size", fill("/dev/shm/hog", 96));
}
