//! `shm_size`: how much /dev/shm holds, 64 MiB where the spec says nothing, and not more than what
//! was said however much memory there is.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Tells how large it is, writes so many KiB and tells how much fitted.
const FILL: &str = "df -k /dev/shm | awk 'NR == 2 { print $2 }'; \
    dd if=/dev/zero of=/dev/shm/full bs=1k count=$1 2>/dev/null || echo full; \
    wc -c < /dev/shm/full";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("[workload.case.resources]\nmemory = \"256MiB\"")?;
    let default = space.run(&["sh", "-c", FILL, "sh", "65537"])?;
    default.status(0)?.stdout("65536\nfull\n67108864\n")?;
    space.spec("shm_size = \"1MiB\"")?;
    let small = space.run(&["sh", "-c", FILL, "sh", "1025"])?;
    small.status(0)?.stdout("1024\nfull\n1048576\n")?;
    space.spec("shm_size = \"80MiB\"\n[workload.case.resources]\nmemory = \"256MiB\"")?;
    let large = space.run(&["sh", "-c", FILL, "sh", "81920"])?;
    large.status(0)?.stdout("81920\n83886080\n")?;
    Ok(vec![default, small, large])
}
