//! The filesystems that show a namespace from inside: /proc, /sys, devpts, mqueue, cgroup; what of
//! them is hidden; and the change of root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::sandbox::StartError;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::mount::{MntFlags, MsFlags, umount2};

use crate::error::Step;
use crate::first::Ids;
use crate::inside;
use crate::sys::mount::{self, Attributes, Depth};

/// Files and directories that tell of the machine or reach into it. Those that this kernel does
/// not have are passed over. The list is the common one of container runtimes (moby
/// `daemon/pkg/oci/defaults.go` has it, and [`throttled`]), with /sys/kernel/debug besides.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];

/// Directories through which the machine could be changed; the same source.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const QUIET: Attributes = Attributes::NO_SUID.and(Attributes::NO_DEV).and(Attributes::NO_EXEC);

/// Mounts what belongs to the namespaces of the calling process below `root`; with `cgroup`, what
/// its cgroup namespace shows of v2 as well.
///
/// # Errors
/// The step that failed.
pub(crate) fn mount_all(
    root: BorrowedFd<'_>,
    cgroup: bool,
    terminals: TerminalGroup,
) -> Result<(), StartError> {
    fresh(root, c"proc", "/proc", QUIET)?;
    sys(root)?;
    if cgroup {
        cgroup2(root)?;
    }
    let step = || "mount devpts at /dev/pts";
    let mut options =
        vec![(c"newinstance", None), (c"ptmxmode", Some(c"0666")), (c"mode", Some(c"0620"))];
    if terminals == TerminalGroup::Tty {
        options.push((c"gid", Some(c"5")));
    }
    let attributes = Attributes::NO_SUID.and(Attributes::NO_EXEC);
    let pts = mount::filesystem(c"devpts", &options, attributes).step(step)?;
    put(root, "/dev/pts", &pts).step(step)?;
    match mount::filesystem(c"mqueue", &[], QUIET) {
        // A kernel without POSIX message queues.
        Err(Errno::ENODEV) => Ok(()),
        queue => queue
            .and_then(|queue| put(root, "/dev/mqueue", &queue))
            .step(|| "mount mqueue at /dev/mqueue"),
    }
}

/// The number of group `tty` everywhere.
const TTY: u32 = 5;

/// The group of the terminals in the workload's devpts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminalGroup {
    /// `tty`, 5.
    Tty,
    /// That of the process that opens them: the user namespace has no such group.
    Own,
}

impl TerminalGroup {
    pub(crate) fn of(ids: Ids) -> Self {
        if ids.groups > TTY { Self::Tty } else { Self::Own }
    }
}

fn put(root: BorrowedFd<'_>, path: &str, mount: &OwnedFd) -> nix::Result<()> {
    let place = inside::find_straight(root, path)?;
    mount::attach(mount.as_fd(), place.as_fd())
}

fn fresh(
    root: BorrowedFd<'_>,
    kind: &std::ffi::CStr,
    path: &str,
    attributes: Attributes,
) -> Result<(), StartError> {
    let step = || format!("mount {} at {path}", kind.to_string_lossy());
    let mount = mount::filesystem(kind, &[], attributes).step(step)?;
    put(root, path, &mount).step(step)
}

/// A sysfs of our own network namespace, read-only. Where that is refused (this machine's own /sys
/// is partly covered, as in a container: mount_too_revealing() of the kernel), what is at /sys now.
fn sys(root: BorrowedFd<'_>) -> Result<(), StartError> {
    let attributes = QUIET.and(Attributes::READ_ONLY);
    let step = || "mount sysfs at /sys";
    match mount::filesystem(c"sysfs", &[], attributes) {
        Err(Errno::EPERM) => {
            let tree = mount::clone_path(std::path::Path::new("/sys"), Depth::All).step(step)?;
            mount::restrict(tree.as_fd(), Depth::All, attributes).step(step)?;
            put(root, "/sys", &tree).step(step)?;
            hide_cgroups(root)
        }
        sysfs => sysfs.and_then(|sysfs| put(root, "/sys", &sysfs)).step(step),
    }
}

/// Covers the host's groups, which came along with its /sys.
fn hide_cgroups(root: BorrowedFd<'_>) -> Result<(), StartError> {
    let step = || "hide /sys/fs/cgroup";
    let Some(place) = existing(root, "/sys/fs/cgroup").step(step)? else { return Ok(()) };
    let empty = mount::tmpfs(4096, 0o555, (0, 0), QUIET.and(Attributes::READ_ONLY)).step(step)?;
    mount::attach(empty.as_fd(), place.as_fd()).step(step)
}

/// The workload's own group and below, read-only. Where that is refused, nothing is shown.
fn cgroup2(root: BorrowedFd<'_>) -> Result<(), StartError> {
    let attributes = QUIET.and(Attributes::READ_ONLY);
    match mount::filesystem(c"cgroup2", &[], attributes) {
        Err(Errno::EPERM | Errno::ENODEV | Errno::EBUSY) => Ok(()),
        cgroup => cgroup
            .and_then(|cgroup| match put(root, "/sys/fs/cgroup", &cgroup) {
                Err(Errno::ENOENT) => Ok(()),
                put => put,
            })
            .step(|| "mount cgroup2 at /sys/fs/cgroup"),
    }
}

/// Covers what is masked and write-protects what is read-only below `root`.
///
/// # Errors
/// The step that failed.
pub(crate) fn mask(root: BorrowedFd<'_>) -> Result<(), StartError> {
    let null = inside::find_straight(root, "/dev/null").step(|| "open /dev/null")?;
    let mut empty: Option<OwnedFd> = None;
    let throttled = throttled(root).step(|| "look for processors in /sys")?;
    for path in MASKED.into_iter().chain(throttled.iter().map(String::as_str)) {
        let step = || format!("mask {path}");
        let Some(place) = existing(root, path).step(step)? else { continue };
        let kind = nix::sys::stat::fstat(&place).step(step)?.st_mode & libc::S_IFMT;
        let cover = match &empty {
            _ if kind != libc::S_IFDIR => mount::clone_tree(null.as_fd(), "", Depth::One),
            Some(empty) => mount::clone_tree(empty.as_fd(), "", Depth::One),
            None => mount::tmpfs(4096, 0o555, (0, 0), QUIET.and(Attributes::READ_ONLY)),
        }
        .step(step)?;
        mount::attach(cover.as_fd(), place.as_fd()).step(step)?;
        if kind == libc::S_IFDIR {
            empty.get_or_insert(cover);
        }
    }
    for path in READ_ONLY {
        let step = || format!("make {path} read-only");
        let Some(place) = existing(root, path).step(step)? else { continue };
        let copy = mount::clone_tree(place.as_fd(), "", Depth::One).step(step)?;
        mount::restrict(copy.as_fd(), Depth::One, QUIET.and(Attributes::READ_ONLY)).step(step)?;
        mount::attach(copy.as_fd(), place.as_fd()).step(step)?;
    }
    Ok(())
}

/// Each processor's counts of when it was too hot, which tell of what others do on it
/// (GHSA-6fw5-f8r9-fgfm). Only machines that are real have them.
fn throttled(root: BorrowedFd<'_>) -> nix::Result<Vec<String>> {
    const PROCESSORS: &str = "/sys/devices/system/cpu";
    let counts = |processor: &str| format!("{PROCESSORS}/{processor}/thermal_throttle");
    if existing(root, &counts("cpu0"))?.is_none() {
        return Ok(Vec::new());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let mut found = Vec::new();
    for entry in Dir::from_fd(inside::open(root, PROCESSORS, flags, resolve)?)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_str().unwrap_or_default();
        let number = name.strip_prefix("cpu").unwrap_or_default();
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            found.push(counts(name));
        }
    }
    Ok(found)
}

fn existing(root: BorrowedFd<'_>, path: &str) -> nix::Result<Option<OwnedFd>> {
    match inside::find_straight(root, path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes the directory that `root` has open the root, and takes the old one out of reach.
///
/// # Errors
/// The step that failed.
pub(crate) fn change_root(root: BorrowedFd<'_>) -> Result<(), StartError> {
    let step = || "change the root";
    nix::unistd::fchdir(root).step(step)?;
    // Old and new root on the same place, the old on top (pivot_root(2), "pivot_root(".", ".")").
    match nix::unistd::pivot_root(".", ".") {
        // The initramfs can't be put elsewhere; it is covered for good instead, since every path
        // that comes up to it goes down again into what covers it.
        Err(Errno::EINVAL) => {
            let none = None::<&str>;
            nix::mount::mount(Some("."), "/", none, MsFlags::MS_MOVE, none).step(step)?;
            nix::unistd::chroot(".").step(step)?;
        }
        pivoted => {
            pivoted.step(step)?;
            umount2(".", MntFlags::MNT_DETACH).step(|| "detach the old root")?;
        }
    }
    nix::unistd::chdir("/").step(step)
}
