//! No program is left for the host to run when a cgroup empties.

use std::fs;

use anyhow::Result;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::{Tries, number};

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2022-0492"),
    behind,
    ..Case::new(
        "release_agent",
        "mounts a cgroup v1 hierarchy and writes its release_agent; with CAP_SYS_ADMIN added, too",
        attack,
    )
};

fn attack(tries: &Tries, _: &[&str]) {
    let mounted = mount(Some("cgroup"), "/root", Some("cgroup"), MsFlags::empty(), Some("pids"));
    // Another's hierarchy, or a kernel with cgroup v2 alone.
    let gone = matches!(mounted, Err(Errno::ENODEV | Errno::EBUSY | Errno::ENOENT | Errno::EINVAL));
    if let (true, Err(errno)) = (gone, mounted) {
        for what in ["mount the pids hierarchy", "write release_agent"] {
            tries.absent(what, format!("no cgroup v1: {errno:?}"));
        }
        return;
    }
    tries.of("mount the pids hierarchy", mounted.map(|()| "mounted"));
    // What is there already: this machine must stay as it is.
    let agent = "/root/release_agent";
    let written = fs::read(agent).and_then(|text| {
        let text = if text.is_empty() { b"\n".to_vec() } else { text };
        fs::write(agent, text)
    });
    tries.of("write release_agent", written.map(|()| "written").map_err(|error| number(&error)));
    // Mounted for this process's namespace alone, which ends with it.
    let _ = umount2("/root", MntFlags::MNT_DETACH);
}

fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let mut found = field.moat("")?;
    let able = field.moat_as_admin()?.unwrap_or_default();
    // With that right it may mount what its own cgroup namespace shows, but not write the agent.
    found.extend(able.into_iter().filter(|evidence| evidence.what == "write release_agent"));
    Ok(found)
}
