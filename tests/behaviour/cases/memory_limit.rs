//! A workload over its memory limit is killed by the kernel, and moat says so in the same words.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

const WARNING: &str = "warning: case: the memory limit of 64MiB was reached, and the kernel killed what was over it\n";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("[workload.case.resources]\nmemory = \"64MiB\"")?;
    // tail keeps what may be the last line; a line of zeros has no end.
    let main = space.run(&["tail", "/dev/zero"])?;
    main.status(137)?.stdout("")?.stderr(WARNING)?;

    let child = space.sh("tail /dev/zero 2>/dev/null; echo $?; exit 3")?;
    child.status(3)?.stdout("137\n")?.stderr_has(WARNING)?;

    // What is written to the root or to a tmpfs is memory, too.
    let files = space.sh("dd if=/dev/zero of=/dev/shm/file bs=1M count=96 2>/dev/null; exit 4")?;
    let within = space.sh("dd if=/dev/zero of=/file bs=1M count=24 2>/dev/null; wc -c < /file")?;
    within.status(0)?.stdout("25165824\n")?.stderr("")?;
    // Killed or out of space: how far the writer comes depends on the filesystem's own limit.
    files.stderr_lacks("panicked")?;
    Ok(vec![main, child, within])
}
