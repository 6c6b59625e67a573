//! What a further process reads and writes, and how it ends, is as for `moat run`.

use anyhow::{Result, ensure};
use moat_tests::running::Running;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("env = { GREETING = \"hello\", WHO = \"world\" }")?;
    let running = Running::start(&space)?;

    running.sh("echo out; echo err >&2; exit 3")?.status(3)?.stdout("out\n")?.stderr("err\n")?;
    let piped = running.verb(&["exec", "case", "cat"])?.stdin("a line\n").run()?;
    piped.status(0)?.stdout("a line\n")?;
    let large = running.verb(&["exec", "-i", "case", "wc", "-c"])?.stdin(vec![b'x'; 3 << 20]);
    large.run()?.status(0)?.stdout("3145728\n")?;
    let large = running.sh("head -c 3145728 /dev/zero; exit 5")?;
    ensure!(large.status == 5 && large.stdout.len() == 3 << 20, "{}", large.shown());

    // Statuses.
    running.sh("kill -TERM $$")?.status(143)?;
    running.sh("kill -KILL $$")?.status(137)?;
    running.exec(&["no-such-command"])?.refused(127, "not-found")?;
    running.exec(&["/no/such"])?.refused(127, "not-found")?;
    running.exec(&["/etc/passwd"])?.refused(126, "not-executable")?;
    running.exec(&["/tmp"])?.refused(126, "not-executable")?;

    // What is said otherwise than the workload's own.
    let other = ["exec", "-e", "WHO=moat", "-e", "NEW=1", "-e", "PASSED", "-e", "UNSET_HERE"];
    let other = [&other[..], &["-u", "app", "-w", "/home/app", "case", "sh", "-c"]].concat();
    let script = "echo $GREETING $WHO $NEW $PASSED ${UNSET_HERE-unset}; id -un; pwd; echo $HOME";
    let seen = running.verb(&[&other[..], &[script]].concat())?.env("PASSED", "on").run()?;
    seen.status(0)?.stdout("hello moat 1 on unset\napp\n/home/app\n/home/app\n")?;
    let missing = running.verb(&["exec", "-w", "/no/such", "case", "true"])?.run()?;
    missing.status(125)?.stderr_has("change to working directory /no/such")?;
    missing.stderr_has("hint: ")?;
    running.verb(&["exec", "-u", "eve", "case", "true"])?.run()?.status(125)?.stderr_has("eve")?;

    // No way out by a directory that is open somewhere.
    for dir in ["/proc/self/fd/0", "/proc/self/fd/3", "/proc/1/cwd", "/proc/1/root"] {
        running.verb(&["exec", "-w", dir, "case", "pwd"])?.run()?.status(125)?.stdout("")?;
    }
    let here = std::fs::File::open("/")?;
    let directory = running.verb(&["exec", "case", "true"])?.stdin_is(here).run()?;
    directory.refused(2, "usage")?;

    // Long arguments take more than one message.
    let long = "x".repeat(120_000);
    let counted =
        running.exec(&["sh", "-c", "echo ${#1} ${#2} ${#3}", "sh", &long, &long, &long])?;
    counted.status(0)?.stdout("120000 120000 120000\n")?;

    running.finish()?.status(0)?;
    Ok(Vec::new())
}
