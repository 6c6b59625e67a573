//! Every user may write to /tmp and /var/tmp, and in the workload's home.

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let user = if host::is_root() { "user = \"app\"" } else { "" };
    space.spec(user)?;
    let small = space
        .sh("for d in /tmp /dev/shm $HOME; do echo $d > $d/file && cat $d/file; done; \
         stat -c %a /tmp; mkfifo /tmp/pipe && echo fifo; ln -s x /tmp/link && echo link")?;
    small.status(0)?.stderr("")?.stdout_has("\n1777\nfifo\nlink\n")?;
    space.host_spec("user = \"nobody\"")?;
    if !host::is_root() {
        return Ok(vec![small]);
    }
    let host =
        space.sh("for d in /tmp /var/tmp /dev/shm; do echo $d > $d/file && cat $d/file; done")?;
    host.status(0)?.stdout("/tmp\n/var/tmp\n/dev/shm\n")?.stderr("")?;
    Ok(vec![small, host])
}
