//! Paths resolved inside a directory that a hostile hand may have filled: symlinks, `..` and
//! absolute targets all stay below it (openat2(2), `RESOLVE_IN_ROOT`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use crate::sys::privilege;

/// Whom new files and directories belong to: the workload's user 0, as the caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// User and group 0 of the caller's own user namespace.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// Opens `path` below `root` as a place (`O_PATH`), following symlinks inside the root.
///
/// # Errors
/// The kernel's.
pub(crate) fn find(root: BorrowedFd<'_>, path: &str) -> nix::Result<OwnedFd> {
    open(root, path, OFlag::O_PATH, ResolveFlag::RESOLVE_IN_ROOT)
}

/// As [`find`], but refuses any symlink on the way with `ELOOP`.
///
/// # Errors
/// The kernel's.
pub(crate) fn find_straight(root: BorrowedFd<'_>, path: &str) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open(root, path, OFlag::O_PATH, resolve)
}

/// Opens `path` below `root`.
///
/// # Errors
/// The kernel's.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlag,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path = if path == "/" { "." } else { path };
    loop {
        match openat2(root, path, how) {
            // Something was renamed meanwhile; openat2(2) says to try again.
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
}

/// Finds the directory `path` below `root`; it and its parents are made where they are missing.
///
/// # Errors
/// The kernel's: `ENOTDIR` when something else is there.
pub(crate) fn make_directory(
    root: BorrowedFd<'_>,
    path: &str,
    owner: Owner,
) -> nix::Result<OwnedFd> {
    let directory = |path: &str| {
        open(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT)
    };
    match directory(path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path).ok_or(Errno::ENOENT)?;
    let parent = make_directory(root, parent, owner)?;
    owned(owner, || new_directory(parent.as_fd(), name, 0o755, owner))?;
    directory(path)
}

/// Makes one directory with exactly this mode.
///
/// # Errors
/// The kernel's: `EEXIST` also for a symlink to nowhere.
pub(crate) fn new_directory(
    parent: BorrowedFd<'_>,
    name: &str,
    mode: u32,
    owner: Owner,
) -> nix::Result<()> {
    mkdirat(parent, name, Mode::S_IRWXU)?;
    // By a descriptor from here on: in a volume that another workload has as well, a symlink to
    // anywhere on the host may stand in its place by now.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = nix::fcntl::openat(parent, name, flags, Mode::empty())?;
    give_open(made.as_fd(), owner)?;
    fchmod(&made, Mode::from_bits_truncate(mode))
}

/// Finds the file `path` below `root`; an empty one is made where it is missing.
///
/// # Errors
/// The kernel's: `EISDIR` when a directory is there.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &str, owner: Owner) -> nix::Result<OwnedFd> {
    match find(root, path) {
        Err(Errno::ENOENT) => {}
        Ok(found) => {
            let kind = nix::sys::stat::fstat(&found)?.st_mode & libc::S_IFMT;
            return if kind == libc::S_IFDIR { Err(Errno::EISDIR) } else { Ok(found) };
        }
        Err(errno) => return Err(errno),
    }
    let (parent, name) = split(path).ok_or(Errno::EISDIR)?;
    let parent = make_directory(root, parent, owner)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o644);
    let made = owned(owner, || nix::fcntl::openat(&parent, name, flags, mode))?;
    give_open(made.as_fd(), owner)?;
    find(root, path)
}

/// Makes something; as its owner where it is in a volume that is seen through the workload's ids,
/// among which the caller's own is not (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
fn owned<T>(owner: Owner, make: impl Fn() -> nix::Result<T>) -> nix::Result<T> {
    match make() {
        Err(Errno::EOVERFLOW) => privilege::with_file_ids((owner.uid, owner.gid), make),
        made => made,
    }
}

/// Gives what is open to `owner`.
///
/// # Errors
/// The kernel's.
pub(crate) fn give_open(fd: BorrowedFd<'_>, owner: Owner) -> nix::Result<()> {
    fchown(fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

/// Gives what `name` names, itself and not what it may point to, to `owner`.
///
/// # Errors
/// The kernel's.
pub(crate) fn give(parent: BorrowedFd<'_>, name: &str, owner: Owner) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// A path's parent and last component; `None` for the root.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    if name.is_empty() {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    use nix::unistd::{getegid, geteuid};

    use super::*;

    fn owner() -> Owner {
        Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let space = tempfile::tempdir().unwrap();
        let (root, outside) = (space.path().join("root"), space.path().join("outside"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../../../outside", root.join("etc/relative")).unwrap();
        symlink("/proc/self/cwd", root.join("magic")).unwrap();
        let fd = File::open(&root).unwrap();
        for path in ["/absolute/made", "/etc/relative/made", "/../../outside/made", "/magic/made"] {
            let _ = make_directory(fd.as_fd(), path, owner());
            let _ = make_file(fd.as_fd(), &format!("{path}-file"), owner());
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.join("outside/made").is_dir(), "a path goes on inside the root");
        let place = make_directory(fd.as_fd(), "/etc/a/b", owner()).unwrap();
        assert_eq!(nix::sys::stat::fstat(place).unwrap().st_mode & 0o7777, 0o755);
    }

    /// Someone else may write to the directory in which a mount point is made: a workload that has
    /// the volume, too. What it puts in the place meanwhile must not make moat change the mode or
    /// the owner of anything elsewhere.
    #[test]
    fn what_is_swapped_in_meanwhile_leads_nowhere() {
        let space = tempfile::tempdir().unwrap();
        let victim = space.path().join("victim");
        File::create(&victim).unwrap();
        fs::set_permissions(&victim, Permissions::from_mode(0o600)).unwrap();
        let shared = space.path().join("shared");
        fs::create_dir(&shared).unwrap();
        symlink(&victim, shared.join("link")).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let [place, link] = ["place", "link"].map(|name| shared.join(name));
                while !done.load(Ordering::Relaxed) {
                    let _ = swap(&place, &link);
                }
            });
            let parent = File::open(&shared).unwrap();
            for _ in 0..20_000 {
                let _ = new_directory(parent.as_fd(), "place", 0o755, owner());
                for name in ["place", "link"] {
                    let _ = fs::remove_dir(shared.join(name));
                }
                if !shared.join("link").is_symlink() && !shared.join("place").is_symlink() {
                    let _ = symlink(&victim, shared.join("link"));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o7777, 0o600);
    }

    fn swap(one: &Path, other: &Path) -> nix::Result<()> {
        renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
    }
}
