//! The workload sees its own processes and no others, as a plain child would find itself: no
//! signal blocked or ignored, mask and session as usual.

use anyhow::Result;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let seen = space.sh(
        "cd /proc; echo [0-9]*; echo $$ $PPID; umask; \
         grep -E '^(Sig(Pnd|Blk|Ign|Cgt)|ShdPnd|Threads|NSpid|TracerPid)' self/status | tr '\\t' ' '; \
         awk '{ print $4, $5, $6, $7 }' self/stat; \
         yes | head -n 1; kill -0 1 && echo may signal PID 1; cat 1/environ 1/maps 2>/dev/null | wc -c; \
         ipcs -m -s -q 2>/dev/null | grep -c 0x; \
         cat self/oom_score_adj; readlink self/root",
    )?;
    seen.status(0)?.stdout_has("SigBlk: 0000000000000000\n")?;
    seen.stdout_has("SigIgn: 0000000000000000\n")?;
    Ok(vec![seen])
}
