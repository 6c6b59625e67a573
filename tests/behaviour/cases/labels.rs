//! What a security module of the kernel knows a container by.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use moat_tests::seen::Seen;
use moat_tests::{host, skip};

use crate::wall::Wall;

/// A profile that lets nothing be made below /tmp.
const PROFILE: &str = "profile moat-test-case flags=(attach_disconnected,mediate_deleted) {\n\
    file,\n capability,\n network,\n signal,\n deny /tmp/** w,\n}\n";

pub(super) fn case(wall: Wall) -> Result<Vec<Seen>> {
    let space = wall.workspace()?;
    space.spec("[workload.case.container]\nselinux = \"system_u:system_r:container_t:s0\"")?;
    if !fs::exists("/sys/fs/selinux/enforce")? {
        let seen = space.run(&["true"])?;
        seen.refused(5, "unavailable")?.stderr_has("SELinux is not active on this host")?;
    }
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let profile = |name: &str| format!("[workload.case.container]\napparmor = \"{name}\"");
    if !enabled.is_ok_and(|enabled| enabled.starts_with('Y')) {
        space.spec(&profile("unconfined"))?;
        let seen = space.run(&["true"])?;
        seen.refused(5, "unavailable")?.stderr_has("AppArmor is not active on this host")?;
        skip!("this host's kernel has no AppArmor: only that it is refused was seen");
    }
    space.spec(&profile("moat-no-such-profile"))?;
    let seen = space.run(&["true"])?;
    seen.refused(125, "container")?.stderr_has("use AppArmor profile moat-no-such-profile")?;
    space.spec(&profile("unconfined"))?;
    let current = "cat /proc/self/attr/apparmor/current";
    space.sh(current)?.status(0)?.stdout("unconfined\n")?;
    let parser = Command::new("apparmor_parser").arg("--version").output();
    if !host::is_root() || !parser.is_ok_and(|parser| parser.status.success()) {
        skip!("a profile is loaded by apparmor_parser, as root: only `unconfined` was tried");
    }
    space.write("profile", PROFILE)?;
    let file = space.path().join("profile");
    let load = |how: &str| Command::new("apparmor_parser").arg(how).arg(&file).status();
    ensure!(load("-r")?.success(), "apparmor_parser refuses the profile");
    space.spec(&profile("moat-test-case"))?;
    let seen = space.sh(&format!("{current}; echo x > /x && cat /x; echo y > /tmp/y"));
    load("-R")?;
    let seen = seen?;
    seen.stdout("moat-test-case (enforce)\nx\n")?.stderr_has("/tmp/y: Permission denied")?;
    Ok(vec![seen])
}
