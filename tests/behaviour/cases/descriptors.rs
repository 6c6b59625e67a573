//! The workload has descriptors 0, 1 and 2, whatever moat was started with.

use anyhow::Result;
use moat_tests::host;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    // ls opens one itself, to list them.
    let script = "exec ls /proc/self/fd";
    let args = space.run_args(&["sh", "-c", script]);
    let starter = ["sh", "-c", "exec 5< /etc/passwd 9> /dev/null; exec \"$@\"", "sh"];
    let seen = space.through(&starter, &args)?.run()?;
    seen.status(0)?.stdout("0\n1\n2\n3\n")?.stderr("")?;

    // They can be opened again by name, by a plain user too.
    if host::is_root() {
        space.spec("user = \"1000\"")?;
    }
    let again = space.moat(&[
        "sh",
        "-c",
        "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr; echo fd >> /dev/fd/1",
    ])?;
    let again = again.stdin("in\n").run()?;
    again.status(0)?.stdout("in\nout\nfd\n")?.stderr("err\n")?;

    let args = space.run_args(&["sh", "-c", "echo lost; ls /proc/self/fd >&2; exit 6"]);
    let closed = space.through(&["sh", "-c", "exec \"$@\" >&-", "sh"], &args)?.run()?;
    closed.status(6)?.stdout("")?;
    Ok(vec![seen, again, closed])
}
