//! What a workload writes to its image does not stay for the next.

use std::fs;

use anyhow::Result;

use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::Tries;

use crate::cases::Case;

pub(super) const CASE: Case = Case {
    name: "image_poisoned",
    does: "replaces a program of the image, and writes to its /etc/passwd",
    cve: None,
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

const FILES: [&str; 3] = ["/etc/passwd", "/bin/busybox", "/planted"];
const POISON: &str = "poisoned";

/// In its own root it may; the host sees what came of it.
fn attack(_: &Tries, _: &[&str]) {
    for path in FILES {
        // By another file of that name, since a program that runs can't be written.
        let _ = fs::remove_file(path);
        let _ = fs::write(path, POISON);
    }
    // So that both sides tell something.
    let _ = nix::unistd::write(std::io::stdout(), b"got\tthe attack itself\twrote\n");
}

fn seen(field: &Field<'_>) -> Vec<Evidence> {
    let root = field.space.root();
    let poisoned = |path: &str| {
        fs::read(root.join(path.trim_start_matches('/')))
            .is_ok_and(|text| text == POISON.as_bytes())
    };
    FILES
        .iter()
        .map(|path| Evidence::when(poisoned(path), path, "on the host after that"))
        .collect()
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.moat("")?;
    Ok(seen(field))
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    field.naive(|_| {})?;
    Ok(seen(field))
}
