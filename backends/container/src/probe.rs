//! What this host can do of what a container needs, found out by doing it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use moat_core::cgroup::{Controller, Hierarchy, Version};
use moat_core::diagnose::Check;
use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{ExitStatus, Limits};
use moat_core::spec::{Bytes, Cpus, Resources};
use moat_host::cgroup::locate;
use moat_host::subid;
use moat_init::cgroup::{Cgroup, JoinFiles};
use moat_init::control;
use moat_init::first::Ids;
use moat_init::sys::clone::{self, Namespaces};
use moat_init::sys::mount::{self, Attributes, Depth};
use nix::errno::Errno;
use nix::unistd::Uid;

use crate::fault::namespace_hint;
use crate::mapping::{self, Trial};

/// What the name of a group begins with that is made to try it; the rest is the pid that does.
const PROBE: &str = "probe-";

const NAMESPACES: [(&str, Namespaces); 6] = [
    ("user namespace", Namespaces::USER),
    ("mount namespace", Namespaces::MOUNT),
    ("pid namespace", Namespaces::PID),
    ("ipc namespace", Namespaces::IPC),
    ("uts namespace", Namespaces::UTS),
    ("network namespace", Namespaces::NETWORK),
];

/// Tries everything.
pub(crate) fn checks() -> Vec<Check> {
    let mut checks: Vec<Check> =
        NAMESPACES.into_iter().map(|(name, kind)| namespace(name, kind)).collect();
    checks.push(overlay());
    checks.push(seccomp());
    checks.push(cgroup());
    checks.push(id_mapped_mounts());
    checks.push(subordinate_ids());
    checks
}

fn check(name: &str, needed: bool, result: Result<String, (String, String)>) -> Check {
    let (ok, detail, hint) = match result {
        Ok(detail) => (true, detail, None),
        Err((detail, hint)) => (false, detail, Some(hint)),
    };
    Check { name: name.to_owned(), ok, needed, detail, hint }
}

/// Makes a namespace, in a user namespace of its own, with a process in it.
fn namespace(name: &str, kind: Namespaces) -> Check {
    let options = clone::Options { namespaces: Namespaces::USER | kind, cgroup: None };
    let made = clone::spawn(options, || 0).and_then(|child| child.wait());
    let result = match made {
        Ok(_) => Ok("made and entered".to_owned()),
        Err(errno) => Err((
            errno.desc().to_lowercase(),
            namespace_hint(errno)
                .unwrap_or_else(|| "use a kernel that has it, or start moat as root".to_owned()),
        )),
    };
    check(name, true, result)
}

/// Mounts an overlay in a mount namespace of its own: as root with its own rights, as a plain user
/// in a user namespace.
fn overlay() -> Check {
    let root = Uid::effective().is_root();
    let namespaces = if root { Namespaces::MOUNT } else { Namespaces::USER | Namespaces::MOUNT };
    let options = clone::Options { namespaces, cgroup: None };
    let result = control::pair().and_then(|(monitor, first)| {
        let child = clone::spawn(options, || {
            // As a plain user it has rights in its namespace only once that has an id.
            if !root && first.wait_to_proceed().is_err() {
                return errno_status(Errno::EIO);
            }
            match mount_overlay(root) {
                Ok(()) => 0,
                Err(errno) => errno_status(errno),
            }
        })?;
        if !root {
            let map = mapping::own();
            if map.give_own_to(child.pid()).is_ok() {
                monitor.proceed(Ids { users: 1, groups: 1 }, &JoinFiles::default())?;
            } else {
                drop(monitor);
            }
        }
        child.wait()
    });
    let result = match result {
        Ok(ExitStatus::Code(0)) => Ok("mounted with its upper layer in memory".to_owned()),
        Ok(ExitStatus::Code(code)) => Err(Errno::from_raw(code.into())),
        Ok(ExitStatus::Signal(_)) => Err(Errno::EINTR),
        Err(errno) => Err(errno),
    };
    let hint = "load it: `modprobe overlay`, or use a kernel with CONFIG_OVERLAY_FS";
    let result = result.map_err(|errno| (errno.desc().to_lowercase(), hint.to_owned()));
    check("overlay", true, result)
}

fn errno_status(errno: Errno) -> u8 {
    u8::try_from(errno as i32).unwrap_or(u8::MAX)
}

fn mount_overlay(root: bool) -> nix::Result<()> {
    let slash = mount::place(nix::fcntl::AT_FDCWD, "/")?;
    mount::make_private(slash.as_fd(), Depth::All)?;
    let tmpfs = mount::tmpfs(1 << 20, 0o755, (0, 0), Attributes::NO_DEV)?;
    // Any directory will do: the mount is gone with the namespace.
    let place = mount::place(nix::fcntl::AT_FDCWD, "/proc")?;
    mount::attach(tmpfs.as_fd(), place.as_fd())?;
    nix::unistd::fchdir(&tmpfs)?;
    for name in ["lower", "upper", "work"] {
        nix::sys::stat::mkdirat(&tmpfs, name, nix::sys::stat::Mode::S_IRWXU)?;
    }
    let mut options = vec![
        (c"lowerdir", Some(c"lower")),
        (c"upperdir", Some(c"upper")),
        (c"workdir", Some(c"work")),
    ];
    if !root {
        options.push((c"userxattr", None));
    }
    mount::filesystem(c"overlay", &options, Attributes::NO_DEV).map(drop)
}

/// Asks the kernel whether it filters system calls (seccomp(2), proc(5)).
fn seccomp() -> Check {
    let known = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let result = match known {
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            Ok("filters can be installed".to_owned())
        }
        _ => Err((
            "this kernel has no filters".to_owned(),
            "use a kernel with CONFIG_SECCOMP_FILTER".to_owned(),
        )),
    };
    check("seccomp", true, result)
}

/// Makes a group with limits and removes it. A plain user often can't: then limits are not held,
/// which every plan says.
fn cgroup() -> Check {
    let resources = Resources { cpus: Cpus::from_milli(1000), memory: Bytes::mib(64), pids: 64 };
    let name = format!("{PROBE}{}", std::process::id());
    let result = match locate(&Controller::BASE) {
        Err(unusable) => Err((unusable.what, unusable.hint)),
        Ok(hierarchy) => {
            let has = |version| hierarchy.0.values().any(|tree| tree.version == version);
            let version = match (has(Version::V1), has(Version::V2)) {
                (true, true) => "versions 1 and 2",
                (true, false) => "version 1",
                (false, _) => "version 2",
            };
            forget_dead(&hierarchy);
            Cgroup::create(&hierarchy, &name, &Limits::from(&resources))
                .inspect(|_| FaultPoint::ProbeGroupMade.reached())
                .and_then(Cgroup::remove)
                .map(|()| format!("{version}: made, limited and removed"))
                .map_err(|error| {
                    let reason = std::error::Error::source(&error)
                        .map_or_else(String::new, |source| format!(": {source}"));
                    (format!("{error}{reason}"), "start moat as root".to_owned())
                })
        }
    };
    check("cgroup limits", Uid::effective().is_root(), result)
}

/// Removes what moats left that were killed while they tried: nothing is known of their answer, so
/// that the next one tries again.
fn forget_dead(hierarchy: &Hierarchy) {
    let entries = hierarchy.parents().into_iter().filter_map(|parent| fs::read_dir(parent).ok());
    let names = entries.flatten().flatten().map(|entry| entry.file_name());
    let dead: BTreeSet<_> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.strip_prefix(PROBE).is_some_and(|pid| !has_process(pid)))
        .collect();
    for name in dead {
        // Where it can't be removed, it is the next one's to try.
        let _ = Cgroup::find(hierarchy, &name).remove();
    }
}

fn has_process(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Sees `/` through an id map. Where that can't be, a container of root's has an identity map.
fn id_mapped_mounts() -> Check {
    let name = "id-mapped mounts";
    if !Uid::effective().is_root() {
        return check(name, false, Ok("not needed by a plain user".to_owned()));
    }
    let hint = "root on ext4, xfs or btrfs can be id-mapped; without, user 0 of a container owns \
                what root owns";
    let map = subid::choose();
    let result = match Trial::new(|pid| map.give_to(pid)) {
        Ok(trial) if trial.maps(Path::new("/"), Depth::One) => {
            Ok(format!("/ seen with ids from {}", map.users.first()))
        }
        Ok(_) => Err(("/ is on a filesystem without them".to_owned(), hint.to_owned())),
        Err(errno) => Err((errno.desc().to_lowercase(), hint.to_owned())),
    };
    check(name, false, result)
}

/// Sees whether a plain user's workload can have more ids than that user's own.
fn subordinate_ids() -> Check {
    let name = "subordinate ids";
    if Uid::effective().is_root() {
        return check(name, false, Ok("not needed by root".to_owned()));
    }
    let hint = "install newuidmap (package uidmap), and set ids aside: `usermod --add-subuids \
                100000-165535 --add-subgids 100000-165535 USER`; without, a workload has user 0 \
                alone";
    let found = mapping::subordinate();
    let result = found
        .map(|map| format!("0..{} of a workload", map.users.count() - 1))
        .map_err(|lacks| (lacks.what, hint.to_owned()));
    check(name, false, result)
}
