//! Hosts that lack something: commands that make one, in namespaces of their own, and then run
//! what follows them.

/// A script in a mount namespace of its own, then the command.
pub(crate) fn in_mounts(script: &'static str) -> [&'static str; 6] {
    // The script ends with `exec "$@"`.
    ["unshare", "--mount", "sh", "-ec", script, "sh"]
}

/// No /dev/kvm at all: a /dev with what every program needs.
pub(crate) const NO_KVM: &str = "mount -t tmpfs none /mnt; \
    for node in null zero full random urandom tty; do \
      touch /mnt/$node; mount --bind /dev/$node /mnt/$node; done; \
    mkdir /mnt/pts /mnt/shm; mount --bind /dev/pts /mnt/pts; ln -s pts/ptmx /mnt/ptmx; \
    mount --rbind /mnt /dev; umount -l /mnt; exec \"$@\"";

/// A /dev/kvm that is something else.
pub(crate) const FALSE_KVM: &str = "mount --bind /dev/null /dev/kvm; exec \"$@\"";

/// No cgroup hierarchy.
pub(crate) const NO_CGROUPS: &str =
    "umount -R -l /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup; exec \"$@\"";

/// Root in a user namespace that may have no further ones (user_namespaces(7)).
pub(crate) const NO_USER_NAMESPACES: [&str; 7] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-ec",
    "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"",
    "sh",
];

/// A plain user, who is nobody that this machine knows.
pub(crate) const PLAIN_USER: [&str; 5] =
    ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--"];
