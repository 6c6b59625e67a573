//! `resources.cpus`: a workload gets no more time than that. How many processors it sees is the
//! one thing that differs by nature: a container shares the host's, a micro-VM has its own.

use anyhow::{Context, Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("[workload.case.resources]\ncpus = 0.5\n[workload.case.vm]\nvcpus = 2")?;
    // Two busy processes for a second: user and system time of all, against the time that passed.
    let seen = space.sh(
        "nproc; a=$(date +%s%N); \
         time -p sh -c '(timeout 2 sh -c \"while :; do :; done\") & timeout 2 sh -c \"while :; do :; done\"; wait' 2>&1",
    )?;
    let out = seen.out();
    let number = |name: &str| -> Result<f64> {
        let line = out.lines().find_map(|line| line.strip_prefix(name));
        line.context("time said nothing")?.trim().parse().context("time said no number")
    };
    let (real, busy) = (number("real")?, number("user")? + number("sys")?);
    ensure!(busy <= real * 0.5 + 0.4, "{busy} s of {real} s were used\n{}", seen.shown());
    let processors: usize = out.lines().next().context("nproc said nothing")?.parse()?;
    let expected = match wall {
        Wall::Container => std::thread::available_parallelism()?.get(),
        Wall::Vm => 2,
    };
    ensure!(processors == expected, "{processors} processors, not {expected}");
    Ok(Vec::new())
}
