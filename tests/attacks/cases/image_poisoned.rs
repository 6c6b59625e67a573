//! What a workload writes to its image does not stay for the next.

use std::fs;

use anyhow::{Result, ensure};

use crate::cases::Case;
use crate::evidence::{Evidence, Kind};
use crate::field::Field;
use crate::inside::{Tries, number};

pub(super) const CASE: Case = Case {
    behind: |field| seen(field, &field.moat("")?),
    open: |field| seen(field, &field.naive(|_| {})?),
    ..Case::new(
        "image_poisoned",
        "replaces a program of the image, and writes to its /etc/passwd",
        attack,
    )
};

const FILES: [&str; 3] = ["/etc/passwd", "/bin/busybox", "/planted"];
const POISON: &str = "poisoned";

/// In its own root it may; the host sees what came of it.
fn attack(tries: &Tries, _: &[&str]) {
    for path in FILES {
        // By another file of that name, since a program that runs can't be written.
        let _ = fs::remove_file(path);
        let written = fs::write(path, POISON).map_err(|error| number(&error));
        tries.of(path, written.map(|()| "written"));
    }
}

fn seen(field: &Field<'_>, told: &[Evidence]) -> Result<Vec<Evidence>> {
    ensure!(told.iter().all(|evidence| evidence.kind == Kind::Got), "not written: {told:?}");
    let seen = FILES.map(|path| {
        let file = field.space.root().join(path.trim_start_matches('/'));
        let poisoned = fs::read(file).is_ok_and(|text| text == POISON.as_bytes());
        let how = if poisoned { "poisoned on the host" } else { "the host's is as it was" };
        Evidence::when(poisoned, path, how)
    });
    Ok(seen.into())
}
