//! Files in memory count as memory: the root's copy-on-write layer and /tmp.

use anyhow::Result;

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::{Tries, fill};

pub(super) const CASE: Case = Case {
    behind,
    open: |field| field.moat(&format!("{TMPFS}\"768MiB\"")),
    ..Case::new(
        "file_hog",
        "writes 160 MiB to the root and to a tmpfs, with a memory limit of 64 MiB",
        attack,
    )
};

const PATHS: [&str; 2] = ["/hog", "/tmp/hog"];

fn attack(tries: &Tries, _: &[&str]) {
    for path in PATHS {
        tries.apart(path, |tries| tries.of(path, fill(path, 160)));
        // Of one that was killed, what is left would be counted against the next.
        let _ = std::fs::remove_file(path);
    }
}

/// One of the two may end all of it: files go on counting when their writer is killed.
fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.space.spec(&format!("{TMPFS}\"64MiB\""))?;
    let seen = field.space.run(&field.command(&[]))?;
    let mut found = Evidence::parse(&seen.out());
    for path in PATHS {
        if seen.status == 137 && !found.iter().any(|evidence| evidence.what == path) {
            found.push(Evidence::refused(path, "the whole workload was killed"));
        }
    }
    Ok(found)
}

const TMPFS: &str = "tmpfs = [\"/tmp:1GiB\"]\n[workload.case.resources]\nmemory = ";
