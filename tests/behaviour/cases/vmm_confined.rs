//! While a guest runs, every thread of its VMM is held to a list of system calls, and has no rights
//! but, where it serves files, those to files.

use std::fs;

use anyhow::{Context, Result, ensure};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID and SETUID (linux/capability.h).
const FILES: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    let moat = watched.watch(space.moat(&["sh", "-c", "echo ready; cat"])?).stdin_open();
    let mut live = moat.start()?;
    live.wait_for("ready\n")?;
    let vmm = watched.pid().context("no pid is on record")?;
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{vmm}/task"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let status = fs::read_to_string(task.join("status"))?;
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
            line.map(str::to_owned).with_context(|| format!("{name} has no {key}"))
        };
        // SECCOMP_MODE_FILTER (linux/seccomp.h).
        ensure!(field("Seccomp")? == "2", "{name} has no filter");
        ensure!(field("NoNewPrivs")? == "1", "{name} may gain rights");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            let rights = u64::from_str_radix(&field(set)?, 16)?;
            let allowed = if name == "virtio-fs" { FILES } else { 0 };
            ensure!(rights & !allowed == 0, "{name} has {set} {rights:#x}");
        }
        threads.push(name);
    }
    for expected in ["vcpu0", "virtio-fs", "virtio-vsock"] {
        ensure!(threads.iter().any(|name| name == expected), "no {expected} in {threads:?}");
    }
    live.close_stdin();
    live.finish()?.status(0)?;
    watched.nothing(&space, &[])?;
    Ok(Vec::new())
}
