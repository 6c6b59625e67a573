//! What this host can do of what a container needs, found out by doing it.

use std::os::fd::AsFd;
use std::path::Path;

use moat_core::diagnose::Check;
use moat_core::sandbox::{ExitStatus, Limits};
use moat_core::spec::{Bytes, Cpus, Resources};
use moat_host::cgroup::locate;
use moat_host::idmap;
use moat_init::cgroup::Cgroup;
use moat_init::control;
use moat_init::sys::clone::{self, Namespaces};
use moat_init::sys::mount::{self, Attributes, Depth};
use nix::errno::Errno;
use nix::unistd::Uid;

use crate::fault::namespace_hint;
use crate::mapping::Trial;
use crate::plan::hierarchy;

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
            let (users, groups) =
                (Uid::effective().as_raw(), nix::unistd::Gid::effective().as_raw());
            let map = idmap::Map {
                users: idmap::Range::single(users),
                groups: idmap::Range::single(groups),
            };
            if map.give_own_to(child.pid()).is_ok() {
                monitor.proceed()?;
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
    let hint = "load it: `modprobe overlay`, or use a kernel with CONFIG_OVERLAY_FS (5.12 or later \
                for plain users)";
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
    let name = format!("probe-{}", std::process::id());
    let result = match locate() {
        Err(unusable) => Err((unusable.what, unusable.hint)),
        Ok(location) => {
            let hierarchy = hierarchy(location);
            let version = match &hierarchy {
                moat_init::cgroup::Hierarchy::V2 { .. } => "version 2",
                moat_init::cgroup::Hierarchy::V1 { .. } => "version 1",
            };
            Cgroup::create(&hierarchy, &name, &Limits::from(&resources))
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

/// Sees `/` through an id map. Where that can't be, a container of root's has an identity map.
fn id_mapped_mounts() -> Check {
    let name = "id-mapped mounts";
    if !Uid::effective().is_root() {
        return check(name, false, Ok("not needed by a plain user".to_owned()));
    }
    let hint = "root on ext4, xfs or btrfs can be id-mapped; without, user 0 of a container owns \
                what root owns";
    let map = idmap::choose();
    let result = match Trial::new(&map) {
        Ok(trial) if trial.maps(Path::new("/"), Depth::One) => {
            Ok(format!("/ seen with ids from {}", map.users.outside))
        }
        Ok(_) => Err(("/ is on a filesystem without them".to_owned(), hint.to_owned())),
        Err(errno) => Err((errno.desc().to_lowercase(), hint.to_owned())),
    };
    check(name, false, result)
}
