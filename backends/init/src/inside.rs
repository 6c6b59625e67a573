//! Paths resolved inside a directory that a hostile hand may have filled: symlinks, `..` and
//! absolute targets all stay below it (openat2(2), `RESOLVE_IN_ROOT`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

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
    new_directory(parent.as_fd(), name, 0o755, owner)?;
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
    give(parent, name, owner)?;
    fchmodat(parent, name, Mode::from_bits_truncate(mode), FOLLOW_MODE)
}

/// fchmodat(2) has no other way; what it names was made by the caller just before.
pub(crate) const FOLLOW_MODE: nix::sys::stat::FchmodatFlags =
    nix::sys::stat::FchmodatFlags::FollowSymlink;

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
    nix::fcntl::openat(&parent, name, flags, Mode::from_bits_truncate(0o644))?;
    give(parent.as_fd(), name, owner)?;
    find(root, path)
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
