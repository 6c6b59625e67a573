//! 100 MiB go in as they are, and as much goes through both ways at once.

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use super::large_stdout::random;
use crate::wall::Wall;

const SIZE: usize = 100 << 20;
const BOTH_WAYS: usize = 20 << 20;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("volumes = [\"./out:/out\"]")?;
    space.write("out/stdin", "")?;
    let bytes = random(SIZE)?;
    let seen = space.moat(&["sh", "-c", "cat > /out/stdin; wc -c < /out/stdin"])?;
    let seen = seen.stdin(bytes.clone()).run()?;
    seen.status(0)?.stdout(&format!("{SIZE}\n"))?.stderr("")?;
    let came = std::fs::read(space.path().join("out/stdin"))?;
    ensure!(came == bytes, "{} bytes came, of {SIZE}, and not the same", came.len());

    let bytes = &bytes[..BOTH_WAYS];
    let mut back = space.moat(&["cat"])?.stdin(bytes).run()?;
    let (same, length) = (back.stdout == bytes, back.stdout.len());
    back.stdout.clear();
    ensure!(same, "{length} bytes came back, of {BOTH_WAYS}, and not the same\n{}", back.shown());
    back.status(0)?.stderr("")?;
    Ok(vec![seen, back])
}
