//! When whoever reads moat's stdout leaves, the workload's next write finds a broken pipe.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("")?;
    let mut command = space.moat(&["yes"])?.into_command();
    let (read, write) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(write).stderr(Stdio::null());
    let mut child = command.spawn()?;
    drop(command);
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line)?;
    ensure!(line == "y\n", "{line:?} came");
    let left = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if left.elapsed() > Duration::from_secs(60) {
            child.kill()?;
            child.wait()?;
            bail!("the workload still writes, to nobody");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(status.signal().is_none(), "moat itself ended by {status}");
    let status = status.code().context("no status")?;
    ensure!(status == 141, "status {status}, not 128 + SIGPIPE");
    Ok(Vec::new())
}
