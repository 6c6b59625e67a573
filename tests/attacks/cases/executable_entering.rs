//! A process that `moat exec` starts is not caught while it is still moat's own program.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use moat_tests::running::Running;
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlink};

use crate::cases::Case;
use crate::evidence::{Evidence, Kind};
use crate::field::Field;
use crate::inside::{Tries, number, open};

pub(super) const CASE: Case = Case {
    name: "executable_entering",
    does: "hunts for processes that `moat exec` starts, 30 times, to open their executable for writing before they become the command; some of them ask to be /proc/self/exe",
    cve: Some("CVE-2019-5736"),
    hole: None,
    attack,
    behind,
    open: in_the_open,
};

/// Made when the hunt is over.
const STOP: &str = "/tmp/stop";
const FOUND: &str = "/tmp/found";
/// What runs here in its own right.
const KNOWN: [&str; 2] = ["/attack", "/bin/busybox"];
const WHATS: [&str; 2] = ["open to write", "change its mode"];
const ROUNDS: usize = 10;
const COMMANDS: [&str; 3] = ["/bin/true", "/proc/self/exe", "/script"];

fn attack(tries: &Tries, _: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut refused, mut caught) = (0, None);
    while !Path::new(STOP).exists() && Instant::now() < deadline {
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = names.filter_map(|name| name.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|pid| *pid != 1) {
            // Held, it stays the same program.
            match open(&format!("/proc/{pid}/exe"), OFlag::O_PATH) {
                Err(Errno::EACCES | Errno::EPERM) => refused += 1,
                Err(_) => {}
                Ok(held) => {
                    let held = format!("/proc/self/fd/{}", held.as_raw_fd());
                    let link = readlink(held.as_str()).unwrap_or_default();
                    let link = link.to_string_lossy().into_owned();
                    // Memory is sealed, and was made for that one process. moat's own file may be
                    // seen where the workload's ids have no right to it: as a script's
                    // interpreter it runs as the workload.
                    if !KNOWN.contains(&link.as_str()) && !link.starts_with("/memfd:") {
                        let opened = open(&held, OFlag::O_RDWR).map(|_| "opened");
                        let changed = fs::set_permissions(&held, fs::Permissions::from_mode(0o777));
                        caught = Some((opened, changed.map_err(|error| number(&error))));
                    }
                }
            }
        }
    }
    let Some((opened, changed)) = caught else {
        for what in WHATS {
            tries.refused(what, format!("EACCES, {refused} times"));
        }
        return;
    };
    tries.door(WHATS[0], opened, &[Errno::ETXTBSY]);
    tries.of(WHATS[1], changed.map(|()| "changed"));
}

fn prepare(field: &Field<'_>) -> Result<String> {
    let script = field.space.root().join("script");
    fs::write(&script, "#!/proc/self/exe\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(format!("{} > {FOUND} &", field.command(&[]).join(" ")))
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let hunt = prepare(field)?;
    field.space.spec("")?;
    let running = Running::start_with(&field.space, &hunt)?;
    for _ in 0..ROUNDS {
        for command in COMMANDS {
            running.exec(&[command])?;
        }
    }
    let found = running
        .sh(&format!("touch {STOP}; until [ -s {FOUND} ]; do sleep 0.05; done; cat {FOUND}"))?;
    running.finish()?;
    Ok(Evidence::parse(&found.out()))
}

fn in_the_open(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let hunt = prepare(field)?;
    let (live, first) = field.naive_running(&format!("{hunt} echo ready; wait"))?;
    for command in COMMANDS {
        let enter = |naive: &mut crate::naive::Naive| naive.command = vec![command.to_owned()];
        field.naive_enter(&[], &first, enter)?.run()?;
    }
    let inside = |path: &str| field.space.root().join(path.trim_start_matches('/'));
    fs::write(inside(STOP), "")?;
    live.finish()?;
    let found = fs::read_to_string(inside(FOUND)).context("the hunter told nothing")?;
    let mut found = Evidence::parse(&found);
    found.retain(|evidence| evidence.kind != Kind::Absent);
    Ok(found)
}
