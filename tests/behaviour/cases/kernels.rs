//! The same workload on both kinds of guest kernel: one that finds its devices by ACPI, as
//! distributions' do, and one that is told of them on its command line, as moat's own is.

use std::fs;

use anyhow::{Context, Result, ensure};
use moat_tests::kernels::bundles;
use moat_tests::seen::Seen;

use crate::wall::Wall;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let there = bundles()?;
    let mut sights = Vec::new();
    for discovery in ["acpi", "cmdline"] {
        let Some(bundle) = there.iter().find(|bundle| bundle.discovery == discovery) else {
            moat_tests::skip!("no guest kernel is there whose discovery is {discovery}");
        };
        let space = wall.workspace()?;
        fs::create_dir(space.path().join("data"))?;
        space.spec(&format!(
            "volumes = [\"./data:/data\"]\n\
             [workload.case.resources]\nmemory = \"200MiB\"\n\
             [workload.case.vm]\nkernel = \"{}\"\nvcpus = 2",
            bundle.name
        ))?;
        let seen =
            space.sh("echo out; echo err >&2; nproc; echo $$; id -u; echo made > /data/made; \
             taskset -c 1 true && echo second; touch /written && ls /written; \
             grep MemTotal /proc/meminfo > /data/memory; uname -r > /data/release; \
             dd if=/dev/zero of=/dev/shm/file bs=1M count=70 2>/dev/null; wc -c < /dev/shm/file; \
             exit 7")?;
        seen.status(7)?.stderr("err\n")?;
        ensure!(space.read("data/made")? == "made\n", "the volume was not written");
        // What the guest has is what is declared, and what its kernel takes itself: moat adds 96
        // MiB for that.
        let memory = space.read("data/memory")?;
        let kibibytes = memory.split_whitespace().nth(1).context("no MemTotal")?;
        let mebibytes = kibibytes.parse::<u64>()? / 1024;
        ensure!((200..=300).contains(&mebibytes), "{discovery}: {mebibytes} MiB");
        sights.push((seen, space.read("data/release")?));
    }
    let [(acpi, distribution), (cmdline, own)] = sights.as_slice() else { return Ok(Vec::new()) };
    ensure!(acpi == cmdline, "they differ\n{}\n{}", acpi.shown(), cmdline.shown());
    ensure!(distribution != own, "both ran {own}");
    Ok(Vec::new())
}
