//! Files in memory count as memory: the root's copy-on-write layer and /tmp.

use crate::inside::{Tries, fill};

use crate::cases::Case;

pub(super) const CASE: Case = Case {
    name: "file_hog",
    does: "writes 160 MiB to the root and to a tmpfs, with a memory limit of 64 MiB",
    cve: None,
    hole: None,
    attack,
    behind: |field| field.moat(&format!("{TMPFS}\"64MiB\"")),
    open: |field| field.moat(&format!("{TMPFS}\"768MiB\"")),
};

fn attack(tries: &Tries, _: &[&str]) {
    for path in ["/hog", "/tmp/hog"] {
        tries.apart(path, |tries| tries.of(path, fill(path, 160)));
        // Of one that was killed, what is left would be counted against the next.
        let _ = std::fs::remove_file(path);
    }
}

const TMPFS: &str = "tmpfs = [\"/tmp:1GiB\"]\n[workload.case.resources]\nmemory = ";
