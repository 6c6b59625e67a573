//! From a workload as meant to what moat-init is to do: one function for both walls, so that
//! neither can mean something else by the same spec.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use moat_core::diagnose::Fault;
use moat_core::sandbox::{
    Label, Limits, Lower, Mount, MountKind, Process, Rootfs, Sandbox, Seccomp, TerminalSize,
};
use moat_core::spec::{Bytes, Capability, GuestPath, Resolved, Volume};

use crate::seccomp;

/// What a terminal is taken for when moat's own environment does not say.
const DEFAULT_TERM: &str = "xterm";

/// Describes the sandbox of a workload. `source` gives the path of the n-th volume as the process
/// that mounts will see it.
///
/// # Errors
/// When the user's filter of system calls can't be read.
pub fn describe(
    workload: &Resolved,
    terminal: Option<TerminalSize>,
    lowers: Vec<Lower>,
    hidden: Vec<GuestPath>,
    mut source: impl FnMut(usize, &Volume) -> PathBuf,
) -> Result<Sandbox, Fault> {
    // As the kernel sizes a tmpfs by default: what is written counts as memory.
    let half = Bytes::new(workload.resources.memory.get() / 2);
    let volumes = workload.volumes.iter().enumerate().map(|(index, volume)| Mount {
        target: volume.target.clone(),
        kind: MountKind::Bind { source: source(index, volume), propagation: volume.propagation },
        read_only: volume.read_only,
    });
    let tmpfs = workload.tmpfs.iter().map(|tmpfs| Mount {
        target: tmpfs.target.clone(),
        kind: MountKind::Tmpfs { size: tmpfs.size.unwrap_or(half) },
        read_only: false,
    });
    let mut mounts: Vec<Mount> = volumes.chain(tmpfs).collect();
    // One below another's target comes after it, or it would be covered. The sort is stable.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(Sandbox {
        hostname: workload.hostname.clone(),
        root: Rootfs { lowers, hidden, upper: half, read_only: workload.read_only },
        mounts,
        reaper: workload.init,
        limits: Limits::from(&workload.resources),
        shm_size: workload.shm_size,
        process: process(workload, terminal)?,
    })
}

/// What stands around a process beside its namespaces and limits, for a plan to say.
pub fn restrictions(process: &Process) -> String {
    let kept: Vec<String> = process.capabilities.iter().map(Capability::to_string).collect();
    let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(" ") };
    let gained = if process.no_new_privileges { "no new ones" } else { "setuid files work" };
    let mut text = format!("capabilities {kept}; {gained}; ");
    match &process.seccomp {
        Seccomp::Default => text.push_str("default seccomp filter"),
        Seccomp::Profile(profile) => text.push_str(&format!("seccomp filter {}", profile.name)),
    }
    if let Some(landlock) = &process.landlock {
        let below = |paths: &[GuestPath]| match paths {
            [] => "nothing".to_owned(),
            paths => paths.iter().map(GuestPath::as_str).collect::<Vec<_>>().join(" "),
        };
        let (read, write) = (below(&landlock.read), below(&landlock.write));
        text.push_str(&format!("; Landlock: read below {read}, write below {write}"));
    }
    match &process.label {
        Label::None => {}
        Label::AppArmor(profile) => text.push_str(&format!("; AppArmor profile {profile}")),
        Label::Selinux(label) => text.push_str(&format!("; SELinux label {label}")),
    }
    text
}

fn process(workload: &Resolved, terminal: Option<TerminalSize>) -> Result<Process, Fault> {
    Ok(Process {
        argv: workload.argv.clone(),
        env: environment(workload, terminal.is_some()),
        working_dir: workload.working_dir.clone(),
        user: workload.user.clone(),
        terminal,
        capabilities: workload.security.capabilities(),
        no_new_privileges: workload.security.no_new_privileges,
        ambient: workload.security.cap_add.clone(),
        rlimits: workload.rlimits.clone(),
        seccomp: seccomp::filter(workload)?,
        landlock: workload.security.landlock.clone(),
        label: Label::None,
    })
}

/// The spec's, and what a program on a terminal must know of it.
fn environment(workload: &Resolved, on_terminal: bool) -> BTreeMap<String, String> {
    let mut all = workload.env.clone();
    if on_terminal {
        let term = || env::var("TERM").unwrap_or_else(|_| DEFAULT_TERM.to_owned());
        all.entry("TERM".to_owned()).or_insert_with(term);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_core::spec::{Propagation, Tmpfs};

    fn workload() -> Resolved {
        Resolved::for_command(vec!["true".to_owned()], "/src/app".into(), None).unwrap()
    }

    fn targets(sandbox: &Sandbox) -> Vec<&str> {
        sandbox.mounts.iter().map(|mount| mount.target.as_str()).collect()
    }

    #[test]
    fn a_mount_below_another_comes_after_it() {
        let mut workload = workload();
        workload.tmpfs.push(Tmpfs { target: "/src".parse().unwrap(), size: None });
        let sandbox = describe(&workload, None, Vec::new(), Vec::new(), |index, _| {
            format!("/v/{index}").into()
        })
        .unwrap();
        assert_eq!(targets(&sandbox), ["/src", "/src/app"]);
        assert_eq!(
            sandbox.mounts[1].kind,
            MountKind::Bind { source: "/v/0".into(), propagation: Propagation::Private }
        );
    }

    #[test]
    fn term_is_there_on_a_terminal_alone_and_the_spec_has_the_last_word() {
        let mut workload = workload();
        let term = |workload: &Resolved, on| environment(workload, on).get("TERM").cloned();
        assert_eq!(term(&workload, false), None);
        assert!(term(&workload, true).is_some());
        workload.env.insert("TERM".to_owned(), "dumb".to_owned());
        assert_eq!(term(&workload, true).as_deref(), Some("dumb"));
    }
}
