//! Hosts that lack what an isolation needs: status 5 with the reason, and nothing attempted.

use std::fs;

use anyhow::{Result, ensure};
use moat_tests::host;
use moat_tests::remains::Watched;
use moat_tests::seen::Seen;
use moat_tests::workspace::Workspace;

use crate::starters::{FALSE_KVM, NO_CGROUPS, NO_KVM, NO_USER_NAMESPACES, PLAIN_USER, in_mounts};

/// Runs on such a host, where moat knows nothing from earlier runs, and checks that nothing is
/// left.
fn on(starter: &[&str], isolation: &'static str) -> Result<Seen> {
    let space = Workspace::new(Some(isolation))?;
    let watched = Watched::new(&space)?;
    space.spec(&watched.spec_line())?;
    let args = space.run_args(&["sh", "-c", "echo ran"]);
    let seen = watched.watch(space.through(starter, &args)?).run()?;
    watched.nothing(&space, &[])?;
    Ok(seen)
}

#[test]
fn no_kvm() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can hide /dev/kvm");
    }
    let seen = on(&in_mounts(NO_KVM), "vm")?;
    seen.refused(5, "unavailable")?.stderr_has("/dev/kvm")?;
    // Nor does a container mind.
    on(&in_mounts(NO_KVM), "container")?.status(0)?.stdout("ran\n")?;
    Ok(())
}

#[test]
fn a_kvm_that_is_none() -> Result<()> {
    if !host::is_root() || !fs::exists("/dev/kvm")? {
        moat_tests::skip!("only root can replace /dev/kvm, where there is one");
    }
    let seen = on(&in_mounts(FALSE_KVM), "vm")?;
    seen.refused(5, "unavailable")?.stderr_has("/dev/kvm")?;
    Ok(())
}

#[test]
fn a_kvm_that_may_not_be_opened() -> Result<()> {
    if !host::is_root() || !fs::exists("/dev/kvm")? {
        moat_tests::skip!("only root can become a plain user, and there must be a /dev/kvm");
    }
    let space = Workspace::new(Some("vm"))?;
    space.spec("")?;
    let args = space.run_args(&["true"]);
    let seen = space.through(&PLAIN_USER, &args)?.own_runtime_dir().env("HOME", "/").run()?;
    seen.refused(5, "unavailable")?.stderr_has("/dev/kvm")?.stderr_has("permission")?;
    Ok(())
}

#[test]
fn a_kvm_that_can_not_run_linux() -> Result<()> {
    if host::has_vms() || !fs::exists("/dev/kvm")? {
        moat_tests::skip!("this host's KVM can run Linux, or it has none");
    }
    let seen = on(&["env"], "vm")?;
    seen.refused(5, "unavailable")?;
    // The reason is what was measured, not that something failed.
    let reason = seen.err().to_lowercase();
    ensure!(
        ["ring", "cpuid", "syscall", "emulat", "instructions"]
            .iter()
            .any(|word| reason.contains(word)),
        "no reason\n{}",
        seen.shown()
    );
    Ok(())
}

#[test]
fn no_user_namespaces() -> Result<()> {
    let seen = on(&NO_USER_NAMESPACES, "container")?;
    seen.refused(5, "unavailable")?.stderr_has("user namespace")?;
    Ok(())
}

#[test]
fn no_cgroups() -> Result<()> {
    if !host::is_root() {
        moat_tests::skip!("only root can hide cgroups");
    }
    let seen = on(&in_mounts(NO_CGROUPS), "container")?;
    // A limit that can't be held is a refusal, or it is named.
    if seen.status != 0 {
        seen.refused(5, "unavailable")?.stderr_has("cgroup")?;
    } else {
        seen.stderr_has("warning: ")?.stderr_has("cgroup")?;
    }
    Ok(())
}
