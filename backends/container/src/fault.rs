//! What the user is told when the kernel refuses.

use std::fs;
use std::path::Path;

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::StartError;
use nix::errno::Errno;

/// A fault of this backend.
pub(crate) fn fault(what: impl Into<String>, errno: Errno) -> Fault {
    let fault = Fault::new(Code::Container, what).because(std::io::Error::from(errno));
    match errno {
        Errno::ENOSPC => fault.hint("free some disk space or memory"),
        Errno::EMFILE | Errno::ENFILE => fault.hint("raise the limit on open files: `ulimit -n`"),
        Errno::EAGAIN => fault.hint("raise the limit on processes: `ulimit -u`"),
        _ => fault,
    }
}

/// Why namespaces could not be made.
pub(crate) fn namespaces(errno: Errno) -> Fault {
    let fault = Fault::new(Code::Container, "can't make the container's namespaces")
        .because(std::io::Error::from(errno));
    match namespace_hint(errno) {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

/// What to do when the kernel refuses a namespace.
pub(crate) fn namespace_hint(errno: Errno) -> Option<String> {
    // Who wrote the value knows the file; a file that is not there forbids nothing.
    let is = |file: &str, value: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(file)).is_ok_and(|text| text.trim() == value)
    };
    let hint = match errno {
        Errno::EPERM | Errno::EACCES if is("kernel/unprivileged_userns_clone", "0") => {
            "allow it: `sysctl kernel.unprivileged_userns_clone=1`, or start moat as root"
        }
        Errno::EPERM | Errno::EACCES if is("kernel/apparmor_restrict_unprivileged_userns", "1") => {
            "allow it: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or start moat as \
             root"
        }
        Errno::EPERM | Errno::EACCES => {
            "moat is in a container or chroot that forbids namespaces: allow it CAP_SYS_ADMIN and \
             unconfined seccomp, or start moat outside"
        }
        Errno::ENOSPC | Errno::EUSERS if is("user/max_user_namespaces", "0") => {
            "allow it: `sysctl user.max_user_namespaces=15000`"
        }
        Errno::ENOSPC | Errno::EUSERS => {
            "a limit on namespaces is reached: raise the values below /proc/sys/user"
        }
        Errno::EINVAL => "this kernel lacks a kind of namespace: `moat doctor` names it",
        Errno::ENOSYS => "moat needs Linux 6.1 or later",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What a container's first process said, or who built its root.
pub(crate) fn start(error: StartError) -> Fault {
    let hint = match &error {
        StartError::Setup { step, reason } => set_up_hint(step, reason),
        _ => None,
    };
    let fault = error.into_fault(Code::Container);
    match (hint, &fault.hint) {
        (Some(hint), None) => fault.hint(hint),
        _ => fault,
    }
}

fn set_up_hint(step: &str, reason: &str) -> Option<&'static str> {
    Some(match reason {
        "this kernel has no overlay filesystem" => {
            "load it: `modprobe overlay`, or use a kernel with CONFIG_OVERLAY_FS"
        }
        "invalid argument" if step.starts_with("mount overlay") => {
            "an overlay can't lie over every filesystem (proc and vfat are none for it): copy the root \
             to one of ext4, xfs, btrfs or tmpfs"
        }
        "invalid argument" if step == "join the cgroup" => {
            "real-time processes join only groups with a real-time budget: start moat without `chrt`"
        }
        _ if step.starts_with("mount overlay") => "`moat doctor` tells what this host can mount",
        _ if step.starts_with("become user") => {
            "start moat as root, or have ids set aside for you (`moat doctor` tells how), or leave \
             `user` out"
        }
        _ if step.starts_with("set resource limit") => {
            "lower it: it is more than moat may give here (`ulimit -aH`)"
        }
        _ => return None,
    })
}
