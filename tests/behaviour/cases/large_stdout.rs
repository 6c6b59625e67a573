//! 100 MiB come out as they went in, up to the last byte.

use std::fs::File;
use std::io::Read;

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

const SIZE: usize = 100 << 20;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let bytes = random(SIZE)?;
    space.write("root/large", &bytes)?;
    let mut seen = space.run(&["cat", "/large"])?;
    let same = seen.stdout == bytes;
    let length = seen.stdout.len();
    // The bytes are compared here; kept, they would be printed where something differs.
    seen.stdout.clear();
    ensure!(same, "{length} bytes came, of {SIZE}, and not the same\n{}", seen.shown());
    seen.status(0)?.stderr("")?;
    Ok(vec![seen])
}

/// So many bytes in which any that is lost, doubled or moved is seen.
pub(super) fn random(size: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
