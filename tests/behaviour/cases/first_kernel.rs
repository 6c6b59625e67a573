//! The first micro-VM where no guest kernel is there: the distribution's is installed, saying so,
//! and booted; the second run uses it.

use std::fs;

use anyhow::{Result, ensure};
use moat_tests::kernels::{Mirror, default_bundle};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use nix::sys::signal::Signal;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    let data = space.path().join("data-home");
    let mirror = space.path().join("mirror");
    fs::create_dir(&mirror)?;
    let mirror = Mirror::of_bundle(&mirror, &default_bundle()?)?;
    space.spec("")?;
    let moat = || {
        Ok::<_, anyhow::Error>(mirror.serve(watched.watch(space.moat(&["echo", "ran"])?), &data))
    };

    // Stopped in the middle of that, nothing is run.
    let mut live = moat()?.env("MIRROR", "hangs").start()?;
    while !mirror.hangs() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    live.close_stdin();
    live.signal(Signal::SIGTERM)?;
    live.finish()?.status(143)?.stdout("")?.stderr_has("interrupted")?;
    watched.nothing(&space, &[])?;

    let first = moat()?.run()?;
    first.status(0)?.stdout("ran\n")?.stderr_has("no guest kernel is there yet")?;
    first.stderr_has("downloading linux-image-9.9-test 9.9-1")?;
    ensure!(mirror.downloads() == 2, "{} downloads", mirror.downloads());
    let second = moat()?.run()?;
    second.status(0)?.stdout("ran\n")?.stderr("")?;
    ensure!(mirror.downloads() == 2, "the second run downloaded again");
    watched.nothing(&space, &[])?;
    Ok(Vec::new())
}
