//! The mount calls that work on descriptors: fsopen(2), fsmount(2), open_tree(2), move_mount(2),
//! mount_setattr(2).
//!
//! Unsafe because they are raw system calls. Each passes pointers to NUL-terminated strings or to
//! structures that live across the call, with their true sizes, and takes ownership only of a
//! descriptor that the kernel has just made; the kernel copies what it reads and keeps no pointer.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

// linux/mount.h; the libc crate has them only for Android.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC.cast_unsigned();

/// Attributes of a mount (`MOUNT_ATTR_*` of mount_setattr(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(u64);

impl Attributes {
    /// Can't be written.
    pub const READ_ONLY: Self = Self(0x1);
    /// Set-user-id bits and file capabilities have no effect.
    pub const NO_SUID: Self = Self(0x2);
    /// Device nodes can't be opened.
    pub const NO_DEV: Self = Self(0x4);
    /// Nothing can be executed.
    pub const NO_EXEC: Self = Self(0x8);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether what is mounted below comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The one mount.
    One,
    /// It and all below it.
    All,
}

impl Depth {
    const fn flag(self) -> libc::c_uint {
        match self {
            Self::One => 0,
            Self::All => libc::AT_RECURSIVE.cast_unsigned(),
        }
    }
}

fn descriptor(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call that gave it made it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a filesystem that is attached nowhere yet; options without a value are flags.
///
/// # Errors
/// The kernel's: `ENODEV` when it has no such filesystem.
pub fn filesystem(
    kind: &CStr,
    options: &[(&CStr, Option<&CStr>)],
    attributes: Attributes,
) -> nix::Result<OwnedFd> {
    // SAFETY: `kind` is NUL-terminated and outlives the call.
    let context =
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    for (key, value) in options {
        let (command, value) = match value {
            Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
            None => (FSCONFIG_SET_FLAG, std::ptr::null()),
        };
        // SAFETY: key and value are NUL-terminated (or null for a flag) and outlive the call.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), value, 0)
        })?;
    }
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the create command takes no key and no value.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
    })?;
    // SAFETY: the call takes no pointer.
    descriptor(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes.0)
    })
}

/// Copies the mount at `path` (below `dir`, or `dir` itself when the path is empty) into one that
/// is attached nowhere. A symlink at the end is followed.
///
/// # Errors
/// The kernel's: `EINVAL` when, without [`Depth::All`], something locked is mounted below.
pub fn clone_tree<P: ?Sized + NixPath>(
    dir: BorrowedFd<'_>,
    path: &P,
    depth: Depth,
) -> nix::Result<OwnedFd> {
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH.cast_unsigned() } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | depth.flag() | empty;
    path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and outlives the call.
        descriptor(unsafe {
            libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags)
        })
    })?
}

/// As [`clone_tree`], of an absolute path or one below the working directory.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_path(path: &Path, depth: Depth) -> nix::Result<OwnedFd> {
    clone_tree(nix::fcntl::AT_FDCWD, path, depth)
}

/// Attaches a mount that is attached nowhere to the place that `target` has open.
///
/// # Errors
/// The kernel's.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    let empty = c"".as_ptr();
    // SAFETY: both paths are the empty string.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            empty,
            target.as_raw_fd(),
            empty,
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

fn set_attr(mount: BorrowedFd<'_>, depth: Depth, attr: &libc::mount_attr) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH.cast_unsigned() | depth.flag();
    // SAFETY: the path is the empty string; `attr` is a whole mount_attr and its size is passed.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Adds attributes to the mount that `mount` has open.
///
/// # Errors
/// The kernel's.
pub fn restrict(mount: BorrowedFd<'_>, depth: Depth, attributes: Attributes) -> nix::Result<()> {
    let attr =
        libc::mount_attr { attr_set: attributes.0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_attr(mount, depth, &attr)
}

/// Makes the mount private: nothing mounted below it later spreads, in either direction.
///
/// # Errors
/// The kernel's.
pub fn make_private(mount: BorrowedFd<'_>, depth: Depth) -> nix::Result<()> {
    spread(mount, depth, libc::MS_PRIVATE)
}

/// Makes the mount follow those that it shared mounts with: what is mounted there later is mounted
/// here too, and never the other way round.
///
/// # Errors
/// The kernel's.
pub fn make_slave(mount: BorrowedFd<'_>, depth: Depth) -> nix::Result<()> {
    spread(mount, depth, libc::MS_SLAVE)
}

fn spread(mount: BorrowedFd<'_>, depth: Depth, propagation: u64) -> nix::Result<()> {
    let attr = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 };
    set_attr(mount, depth, &attr)
}

/// Maps the owners of a mount that is attached nowhere by a user namespace's id map: what is owned
/// by id 0 on the filesystem is seen as owned by what id 0 of the namespace is.
///
/// # Errors
/// The kernel's: `EINVAL` when the filesystem can't (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
pub fn map_owners(
    mount: BorrowedFd<'_>,
    depth: Depth,
    user_namespace: BorrowedFd<'_>,
) -> nix::Result<()> {
    let userns_fd = u64::try_from(user_namespace.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd,
    };
    set_attr(mount, depth, &attr)
}

/// A tmpfs of `size` bytes, owned by `uid` and `gid`, attached nowhere.
///
/// # Errors
/// The kernel's.
pub fn tmpfs(
    size: u64,
    mode: u32,
    (uid, gid): (u32, u32),
    attributes: Attributes,
) -> nix::Result<OwnedFd> {
    let text = |text: String| CString::new(text).map_err(|_| Errno::EINVAL);
    let (size, mode) = (text(size.to_string())?, text(format!("{mode:o}"))?);
    let (uid, gid) = (text(uid.to_string())?, text(gid.to_string())?);
    let options = [
        (c"size", Some(size.as_c_str())),
        (c"mode", Some(&mode)),
        (c"uid", Some(&uid)),
        (c"gid", Some(&gid)),
    ];
    filesystem(c"tmpfs", &options, attributes)
}

/// The place `path` below `dir`, to mount over or to look at; a symlink at the end is not followed.
///
/// # Errors
/// The kernel's.
pub fn place<F: AsFd, P: ?Sized + NixPath>(dir: F, path: &P) -> nix::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(dir, path, flags, nix::sys::stat::Mode::empty())
}
