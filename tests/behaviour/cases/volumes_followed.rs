//! What the host mounts below a volume while the workload runs is not seen by default, and seen
//! with `rslave` in a container; what a workload mounts the host never sees. A micro-VM refuses
//! `rslave`.

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;

use crate::wall::Wall;

/// A shared mount with another below it; and one more, once the workload runs.
const HOST: &str = "mount -t tmpfs none shared; mount --make-shared shared; \
    mkdir shared/early shared/late; mount -t tmpfs none shared/early; \
    echo early > shared/early/file; \"$@\" & \
    until [ -e shared/ready ]; do kill -0 $! || exit 1; sleep 0.05; done; \
    mount -t tmpfs none shared/late; echo late > shared/late/file; touch shared/go; \
    wait $!; status=$?; ls shared/early; exit $status";

/// Looks at what is mounted, and tries to mount something itself.
const WORKLOAD: &str = "cat /v/early/file; touch /v/ready; \
    until [ -e /v/go ]; do sleep 0.05; done; cat /v/late/file 2>/dev/null || echo nothing; \
    mount -t tmpfs none /v/early 2>/dev/null && touch /v/early/inside && echo mounted; true";

const MAY_MOUNT: &str = "security = { cap_add = [\"SYS_ADMIN\"] }";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    if !host::is_root() {
        moat_tests::skip!("only root can mount something for the workload to see or not");
    }
    let private = run(wall, "./shared:/v", "")?;
    private.status(0)?.stdout("early\nnothing\nfile\n")?.stderr("")?;
    let followed = run(wall, "./shared:/v:rslave", "")?;
    if wall == Wall::Vm {
        followed.stderr_has("error[spec]: ")?.stderr_has("can't run as vm")?;
        followed.stderr_has("hint: leave rslave out, or ask for `--isolation container`")?;
        followed.stdout_lacks("early")?;
        return Ok(vec![private]);
    }
    followed.status(0)?.stdout("early\nlate\nfile\n")?.stderr("")?;
    let mounting = run(wall, "./shared:/v:rslave", MAY_MOUNT)?;
    if mounting.err().contains("SYS_ADMIN can't be added") {
        moat_tests::skip::tell("a workload that mounts", "its ids can't be mapped here");
    } else {
        mounting.status(0)?.stdout("early\nlate\nmounted\nfile\n")?;
        mounting.stderr_has("warning: with SYS_ADMIN the workload can write what is mounted")?;
    }
    Ok(vec![private])
}

fn run(wall: Wall, volume: &str, security: &str) -> Result<Seen> {
    let space: Workspace = wall.workspace()?;
    std::fs::create_dir(space.path().join("shared"))?;
    space.spec(&format!("volumes = [\"{volume}\"]\n{security}"))?;
    let starter = ["unshare", "--mount", "sh", "-c", HOST, "sh"];
    let args = space.run_args(&["sh", "-c", WORKLOAD]);
    space.through(&starter, &args)?.run()
}
