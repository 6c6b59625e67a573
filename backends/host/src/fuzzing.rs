//! What the fuzz targets in `tests/fuzz` call: this machine's files under any bytes. Only in test
//! and fuzzing builds.
#![allow(missing_docs)]

use crate::idmap::COUNT;
use crate::{mountinfo, subid};

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

/// `/proc/self/mountinfo`, in which every user of the machine can have a hand.
pub fn mountinfo(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(mountinfo::parse_all(data).len() <= lines);
}

/// `/etc/subuid` and `/etc/subgid`. The first four bytes stand for chance.
pub fn subid(data: &[u8]) {
    let Some((chance, text)) = data.split_first_chunk() else { return };
    let chance = u32::from_le_bytes(*chance);
    let text = String::from_utf8_lossy(text);
    if let Some(first) = subid::set_aside(&text, chance) {
        assert!(first.checked_add(COUNT).is_some(), "{first}");
    }
    assert!(subid::free(&[&text, ""], chance).checked_add(COUNT).is_some());
    if let Some(ranges) = subid::after(1000, &text, 1000, Some("ann")) {
        assert!(ranges.count() > 1 && ranges.count() <= COUNT);
    }
}

#[test]
fn the_corpora_find_nothing() {
    let targets: [replay::Target; 2] = [("mountinfo", mountinfo), ("subid", subid)];
    replay::replay(env!("CARGO_MANIFEST_DIR"), &targets);
}
