//! The benchmark's contenders do what moat does: they mask the same files.

use std::collections::BTreeSet;
use std::fs;

use crate::documents::root;

/// The strings of the list that `head` opens and the next `end` closes, each with `below` before it.
fn list(file: &str, head: &str, end: &str, below: &str) -> Option<BTreeSet<String>> {
    let text = fs::read_to_string(root().join(file)).ok()?;
    let (list, _) = text.split_once(head)?.1.split_once(end)?;
    // What stands between quotes is every second piece.
    let names = list.split('"').skip(1).step_by(2);
    Some(names.map(|name| format!("{below}{name}")).collect())
}

#[test]
fn all_mask_the_same_files() {
    let moat = list("backends/init/src/kernel_fs.rs", "const MASKED:", "];", "");
    assert!(moat.as_ref().is_some_and(|moat| moat.len() > 4), "{moat:?}");
    assert_eq!(list("xtask/src/bench/oci.rs", "const MASKED:", "];", ""), moat);
    assert_eq!(list("xtask/src/bench/programs/floor.c", " masked[] =", "};", "/"), moat);
}

#[test]
fn all_make_the_same_files_read_only() {
    let moat = list("backends/init/src/kernel_fs.rs", "const READ_ONLY:", "];", "");
    assert!(moat.as_ref().is_some_and(|moat| moat.len() > 4), "{moat:?}");
    assert_eq!(list("xtask/src/bench/oci.rs", "const READ_ONLY:", "];", ""), moat);
    assert_eq!(list("xtask/src/bench/programs/floor.c", " read_only[] =", "};", "/proc/"), moat);
}
