//! A stdin that is empty, closed, or more than the workload reads.

use std::fs::File;

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use std::time::Instant;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let script = "cat; echo end $?";
    let empty = space.moat(&["sh", "-c", script])?.stdin("").run()?;
    empty.status(0)?.stdout("end 0\n")?.stderr("")?;
    let null = space.moat(&["sh", "-c", script])?.stdin_is(File::open("/dev/null")?).run()?;
    null.status(0)?.stdout("end 0\n")?.stderr("")?;

    let args = space.run_args(&["sh", "-c", script]);
    let closed = space.through(&["sh", "-c", "exec \"$@\" <&-", "sh"], &args)?;
    let closed = closed.run()?;
    closed.status(0)?.stdout("end 0\n")?.stderr("")?;

    // Nobody reads, and nobody waits for it.
    let started = Instant::now();
    let unread = space.moat(&["head", "-c", "5"])?.stdin(vec![b'x'; 8 << 20]).run()?;
    unread.status(0)?.stdout("xxxxx")?.stderr("")?;
    let mut open = space.moat(&["echo", "done"])?.stdin_open().start()?;
    open.wait_for("done\n")?;
    // Its stdin is still open: it is the workload's end that ends moat.
    let open = open.finish()?;
    open.status(0)?.stdout("done\n")?.stderr("")?;
    ensure!(started.elapsed().as_secs() < 60, "it took {:?}", started.elapsed());

    // What comes bit by bit arrives bit by bit.
    let script = "while read l; do echo got $l; done; echo end";
    let mut live = space.moat(&["sh", "-c", script])?.stdin_open().start()?;
    for word in ["one", "two"] {
        live.write(format!("{word}\n").as_bytes())?;
        live.wait_for(&format!("got {word}\n"))?;
    }
    live.close_stdin();
    let bits = live.finish()?;
    bits.status(0)?.stdout("got one\ngot two\nend\n")?.stderr("")?;
    Ok(vec![empty, null, closed, unread, open, bits])
}
