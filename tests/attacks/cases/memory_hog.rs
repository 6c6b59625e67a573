//! Memory without end ends at the limit, and the host lives.

use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    behind: |field| field.moat("[workload.case.resources]\nmemory = \"64MiB\""),
    open: |field| field.moat("[workload.case.resources]\nmemory = \"512MiB\""),
    ..Case::new("memory_hog", "takes and touches 160 MiB of memory, with a limit of 64 MiB", attack)
};

const STEP: usize = 4 << 20;
const STEPS: usize = 40;

fn attack(tries: &Tries, _: &[&str]) {
    let what = "more memory than allowed";
    tries.apart(what, |tries| {
        // Other than zero, so that each page is one.
        let held: Vec<Vec<u8>> = (0..STEPS).map(|_| vec![1; STEP]).collect();
        let sum: usize = held.iter().map(|step| usize::from(step[STEP / 2])).sum();
        tries.got(what, format!("{} MiB", (sum * STEP) >> 20));
    });
}
