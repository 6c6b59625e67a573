//! The layers that moat puts over a lower directory: one that hides paths, and the writable one.
//!
//! Overlay takes a merged directory's mode and owner from the topmost layer that has it, so every
//! directory made here is given those of the lower's.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use crate::inside::split;

/// A directory that exists in the lower and, with the same attributes, in the layer.
#[derive(Clone)]
struct Pair {
    lower: Rc<OwnedFd>,
    layer: Rc<OwnedFd>,
}

/// A layer being made over `lower`.
pub(crate) struct Layer {
    /// By path; `None` where the lower has no such directory.
    known: HashMap<String, Option<Pair>>,
    root: Pair,
}

const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Layer {
    /// Starts a layer in the new directory `name` of `staging`.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(
        staging: BorrowedFd<'_>,
        name: &str,
        lower: BorrowedFd<'_>,
    ) -> nix::Result<Self> {
        mkdirat(staging, name, Mode::S_IRWXU)?;
        imitate(staging, name, &fstat(lower)?)?;
        let layer = nix::fcntl::openat(staging, name, DIRECTORY, Mode::empty())?;
        let lower = nix::fcntl::openat(lower, ".", DIRECTORY, Mode::empty())?;
        let root = Pair { lower: Rc::new(lower), layer: Rc::new(layer) };
        Ok(Self { known: HashMap::new(), root })
    }

    /// Makes `path` not exist. Whether it was there at all.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn hide(&mut self, path: &str) -> nix::Result<bool> {
        let Some((parent, name)) = split(path) else { return Ok(false) };
        let Some(pair) = self.directory(parent)? else { return Ok(false) };
        match fstatat(&*pair.lower, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => {}
            Err(Errno::ENOENT | Errno::EACCES) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        // A whiteout is a character device 0:0 (kernel Documentation/filesystems/overlayfs.rst);
        // mknod(2) lets any user make this one.
        match mknodat(&*pair.layer, name, SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) | Err(Errno::EEXIST) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the lower has a symlink at `path`.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn is_link(&mut self, path: &str) -> nix::Result<bool> {
        let Some((parent, name)) = split(path) else { return Ok(false) };
        let Some(pair) = self.directory(parent)? else { return Ok(false) };
        match fstatat(&*pair.lower, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(found.st_mode & libc::S_IFMT == libc::S_IFLNK),
            Err(Errno::ENOENT | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The layer's directory `path`, made with the attributes of the lower's; `None` when the
    /// lower has no directory there, or a symlink on the way.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open(&mut self, path: &str) -> nix::Result<Option<Rc<OwnedFd>>> {
        Ok(self.directory(path)?.map(|pair| pair.layer))
    }

    /// The lower's directory `path`, under the same conditions.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open_lower(&mut self, path: &str) -> nix::Result<Option<Rc<OwnedFd>>> {
        Ok(self.directory(path)?.map(|pair| pair.lower))
    }

    fn directory(&mut self, path: &str) -> nix::Result<Option<Pair>> {
        let Some((parent, name)) = split(path) else { return Ok(Some(self.root.clone())) };
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
        }
        let made = match self.directory(parent)? {
            Some(pair) => pair.descend(name)?,
            None => None,
        };
        self.known.insert(path.to_owned(), made.clone());
        Ok(made)
    }
}

impl Pair {
    fn descend(&self, name: &str) -> nix::Result<Option<Self>> {
        let lower = match nix::fcntl::openat(&*self.lower, name, DIRECTORY, Mode::empty()) {
            Ok(lower) => lower,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        match mkdirat(&*self.layer, name, Mode::S_IRWXU) {
            Ok(()) => imitate(self.layer.as_fd(), name, &fstat(&lower)?)?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let layer = match nix::fcntl::openat(&*self.layer, name, DIRECTORY, Mode::empty()) {
            Ok(layer) => layer,
            // Hidden before: nothing below it exists.
            Err(Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        Ok(Some(Self { lower: Rc::new(lower), layer: Rc::new(layer) }))
    }
}

/// Gives the directory `name` the owner, mode and times of `like`.
fn imitate(parent: BorrowedFd<'_>, name: &str, like: &FileStat) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    match fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // In a user namespace that does not have that id: it stays the workload's user 0's.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    let mode = Mode::from_bits_truncate(like.st_mode & 0o7777);
    fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
    let accessed = TimeSpec::new(like.st_atime, like.st_atime_nsec);
    let modified = TimeSpec::new(like.st_mtime, like.st_mtime_nsec);
    utimensat(parent, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
}
