//! `image = "host"`: this machine's own programs and files, and none of it to be changed.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;

use crate::wall::Wall;

/// Made in the workload's copy of the host's root, and never on the host.
const PROBE: &str = "/etc/moat-case-host-root";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.host_spec("")?;
    let seen = space.sh(&format!(
        "set -e; cat /etc/os-release; id -u; echo probe > {PROBE}; cat {PROBE}; \
         sed -i 's/root/r00t/' /etc/passwd; grep -c r00t /etc/passwd; \
         touch /usr/bin/sh-probe /var/lib/probe /tmp/probe; \
         mktemp > /dev/null; ls / | sort > /tmp/list; sort --version | head -n 1; \
         mv /etc/os-release /etc/moved; rm -rf /etc/apt"
    ))?;
    let release = fs::read_to_string("/etc/os-release")?;
    seen.status(0)?.stdout_has(&format!("{release}0\nprobe\n1\n"))?.stderr("")?;
    for made in [PROBE, "/usr/bin/sh-probe", "/var/lib/probe", "/tmp/probe", "/etc/moved"] {
        ensure!(!Path::new(made).exists(), "{made} was made on the host");
    }
    ensure!(Path::new("/etc/os-release").exists(), "/etc/os-release is gone");
    let passwd = fs::read_to_string("/etc/passwd")?;
    ensure!(!passwd.contains("r00t"), "/etc/passwd was changed");
    Ok(vec![seen])
}
