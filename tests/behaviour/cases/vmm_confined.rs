//! While a guest runs, its VMM has namespaces and a root of its own, and limits; every thread of it
//! is held to a list of system calls, and has no rights but, where it serves files, those to files.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID and SETUID (linux/capability.h).
const FILES: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7;

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    let watched = Watched::new(&space)?;
    let volume = format!("volumes = [\"{}:/v\"]", space.path().display());
    space.spec(&format!("{}\n{volume}", watched.spec_line()))?;
    let moat = watched.watch(space.moat(&["sh", "-c", "echo ready; cat"])?).stdin_open();
    let mut live = moat.start()?;
    live.wait_for("ready\n")?;
    let vmm = watched.pid().context("no pid is on record")?;
    let vmm = format!("/proc/{vmm}");
    threads(Path::new(&vmm))?;
    limits(&fs::read_to_string(format!("{vmm}/limits"))?)?;
    // What only root may look at, since the VMM is undumpable.
    match fs::read_link(format!("{vmm}/ns/mnt")) {
        Ok(_) => {
            namespaces(Path::new(&vmm))?;
            root(Path::new(&vmm))?;
            mounts(&fs::read_to_string(format!("{vmm}/mountinfo"))?)?;
        }
        Err(error) => ensure!(
            error.kind() == ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root(),
            "{error}"
        ),
    }
    live.close_stdin();
    live.finish()?.status(0)?;
    watched.nothing(&space, &[])?;
    Ok(Vec::new())
}

fn threads(vmm: &Path) -> Result<()> {
    let mut threads = Vec::new();
    for task in fs::read_dir(vmm.join("task"))? {
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
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
            let rights = u64::from_str_radix(&field(set)?, 16)?;
            let allowed = if name == "virtio-fs" || set == "CapBnd" { FILES } else { 0 };
            ensure!(rights & !allowed == 0, "{name} has {set} {rights:#x}");
        }
        threads.push(name);
    }
    for expected in ["vcpu0", "virtio-fs", "virtio-vsock"] {
        ensure!(threads.iter().any(|name| name == expected), "no {expected} in {threads:?}");
    }
    Ok(())
}

/// Soft and hard (proc_pid_limits(5)).
fn limits(limits: &str) -> Result<()> {
    for limit in ["Max processes", "Max core file size", "Max locked memory"] {
        let values = limits.lines().find_map(|line| line.strip_prefix(limit));
        let values: Vec<&str> = values.unwrap_or_default().split_whitespace().take(2).collect();
        ensure!(values == ["0", "0"], "{limit}: {values:?}");
    }
    Ok(())
}

fn namespaces(vmm: &Path) -> Result<()> {
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let (own, host) = (vmm.join("ns").join(kind), Path::new("/proc/self/ns").join(kind));
        ensure!(fs::read_link(own)? != fs::read_link(host)?, "it has the host's {kind} namespace");
    }
    // Of its user namespace's own: itself alone, no link but an idle loopback.
    let links = fs::read_to_string(vmm.join("net/dev"))?;
    let links: Vec<_> = links.lines().skip(2).filter_map(|line| line.split(':').next()).collect();
    ensure!(links.iter().all(|link| link.trim() == "lo"), "links: {links:?}");
    let routes = fs::read_to_string(vmm.join("net/route"))?;
    ensure!(routes.lines().count() <= 1, "routes: {routes}");
    Ok(())
}

fn root(vmm: &Path) -> Result<()> {
    let list = |path: &str| -> Result<Vec<String>> {
        let entries = fs::read_dir(vmm.join("root").join(path))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    for (directory, expected) in [
        ("", &["empty", "empty-file", "proc", "share"][..]),
        ("empty", &[]),
        ("proc", &["self"]),
        ("proc/self", &["fd", "mountinfo"]),
        ("share", &["root", "volumes"]),
        ("share/volumes", &["0"]),
    ] {
        let found = list(directory)?;
        ensure!(found == expected, "in /{directory}: {found:?}");
    }
    for file in ["empty-file", "proc/self/mountinfo"] {
        ensure!(fs::read(vmm.join("root").join(file))?.is_empty(), "/{file} is not empty");
    }
    Ok(())
}

/// Nothing but the skeleton, what is shared, and its own descriptors (proc_pid_mountinfo(5)).
fn mounts(mountinfo: &str) -> Result<()> {
    let mut at_root = 0;
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, _, _, point, options, ..] = fields[..] else { anyhow::bail!("{line}") };
        at_root += usize::from(point == "/");
        let below = |top: &str| point == top || point.starts_with(&format!("{top}/"));
        let expected = point == "/" || point == "/proc/self/fd" || below("/share");
        ensure!(expected, "mounted: {line}");
        let options: Vec<&str> = options.split(',').collect();
        for option in ["nosuid", "nodev", "noexec"] {
            ensure!(options.contains(&option), "not {option}: {line}");
        }
        let writable = options.contains(&"rw");
        ensure!(!writable || below("/share/volumes/0"), "writable: {line}");
    }
    ensure!(at_root == 1, "{at_root} roots");
    Ok(())
}
