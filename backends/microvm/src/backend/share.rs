//! The one directory tree that the guest sees of the host, put together in the VMM's own mount
//! namespace:
//!
//! ```text
//! share/root        the workload's root, read-only; what is hidden is mounted over
//! share/volumes/N   the N-th volume
//! proc/self/fd      the process's own descriptors, by which the file server opens what it has found
//! ```
//! The guest is hostile: it does not have to go through the overlay that moat-init makes of
//! `root`. So what the workload may not see must not be reachable here. Where root starts moat,
//! only the mounts that are part of the root are here, with owners as the VMM's ids map them. A
//! plain user may not take one mount from those below it (mount_namespaces(7), "locked"): then all
//! come along, and what is not part of the root is mounted over, among it the host's `/proc`,
//! `/sys`, `/dev` and runtime directories.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use moat_core::spec::GuestPath;
use moat_host::mountinfo;
use moat_host::volume::Volume;
use moat_init::mapped::mapped_tree;
use moat_init::sys::mount::{self, Attributes, Depth};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags};

/// The shared tree, once the VMM's root is changed.
pub(super) const SHARE: &str = "/share";

/// Size of the tmpfs that holds the tree's own directories.
const SKELETON: u64 = 1 << 20;

/// What is mounted over hidden directories and over anything else that is hidden.
const EMPTY_DIRECTORY: &str = "empty";
const EMPTY_FILE: &str = "empty-file";

/// What every shared mount gets: the file server needs neither programs nor devices.
const INERT: Attributes = Attributes::NO_SUID.and(Attributes::NO_DEV).and(Attributes::NO_EXEC);

/// An empty `/proc/self/mountinfo`: the file server opens one, and reads it only for handles of
/// files, which it does not use.
const MOUNTINFO: &str = "proc/self/mountinfo";
const DESCRIPTORS: &str = "proc/self/fd";

/// A step of the VMM's confinement that failed.
#[derive(Debug, thiserror::Error)]
#[error("can't {action} {}", .path.display())]
pub(super) struct JailError {
    /// What was being done.
    pub(super) action: &'static str,
    /// To what.
    pub(super) path: PathBuf,
    /// The kernel's reason.
    pub(super) source: Errno,
}

/// What is shared.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// The directory that becomes `root`.
    pub(super) root: PathBuf,
    /// The mount points below the root that belong to it, seen from it; `/` itself is one.
    pub(super) visible: Vec<GuestPath>,
    /// Paths below the root that the guest must not reach, seen from it.
    pub(super) hidden: Vec<GuestPath>,
    /// What becomes `volumes/N`.
    pub(super) volumes: Vec<SharedVolume>,
}

/// A file or directory that becomes a volume.
#[derive(Debug, Clone)]
pub(super) struct SharedVolume {
    pub(super) source: Volume,
    /// Where the workload sees it.
    pub(super) target: GuestPath,
    pub(super) read_only: bool,
}

/// The mounts of a shared tree, attached nowhere.
#[derive(Debug)]
pub(super) struct Trees {
    /// The root itself, then what is mounted below it, in the order of [`Shared::visible`]; or the
    /// root alone, with all that is mounted below it.
    pub(super) root: Vec<OwnedFd>,
    pub(super) volumes: Vec<OwnedFd>,
}

impl Shared {
    /// Takes what is shared and nothing else, owners mapped by the user namespace, if there is one.
    /// To be called with rights over the host.
    pub(super) fn take(&self, users: Option<BorrowedFd<'_>>) -> Result<Trees, JailError> {
        let root = self.lowers().map(|lower| copy(&lower, Depth::One, true, users));
        let volumes = self.volumes.iter().map(|volume| volume.take(users));
        Ok(Trees {
            root: root.collect::<Result<_, _>>()?,
            volumes: volumes.collect::<Result<_, _>>()?,
        })
    }

    /// Takes what is shared with everything that is mounted below it.
    fn take_all(&self) -> Result<Trees, JailError> {
        let root = copy(&self.root, Depth::All, true, None)?;
        let volumes = self.volumes.iter().map(|volume| volume.take(None));
        let volumes = volumes.collect::<Result<_, _>>()?;
        Ok(Trees { root: vec![root], volumes })
    }

    /// Where what makes up the root is on this host: the root first.
    pub(super) fn lowers(&self) -> impl Iterator<Item = PathBuf> {
        let below = self.visible.iter().filter(|path| !path.is_root());
        let below = below.map(|path| inside(&self.root, path));
        std::iter::once(self.root.clone()).chain(below)
    }

    /// Puts the tree together over the empty directory `stage` and makes it this process's root.
    /// To be called in a mount namespace of one's own.
    pub(super) fn enter(&self, stage: OwnedFd, trees: Option<Trees>) -> Result<(), JailError> {
        let none = None::<&str>;
        nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(at("make all mounts private", "/"))?;
        // Then what is not to be seen is among it.
        let takes_all = trees.is_none();
        // Taken before the skeleton is mounted, which could otherwise lie inside the root.
        let trees = trees.map_or_else(|| self.take_all(), Ok)?;
        let own = Path::new("/proc/self/fd");
        let descriptors = mount::clone_path(own, Depth::One).map_err(at("copy", own))?;

        let skeleton = mount::tmpfs(SKELETON, 0o755, (0, 0), INERT).map_err(at("make", "tmpfs"))?;
        mount::attach(skeleton.as_fd(), stage.as_fd()).map_err(at("mount tmpfs", "/"))?;
        nix::unistd::fchdir(&skeleton).map_err(at("enter", "tmpfs"))?;
        for dir in ["share/root", "share/volumes", EMPTY_DIRECTORY, DESCRIPTORS] {
            fs::create_dir_all(dir).map_err(io_at("make", dir))?;
        }
        for file in [EMPTY_FILE, MOUNTINFO] {
            fs::write(file, []).map_err(io_at("make", file))?;
        }
        self.attach(&trees)?;
        self.mask(takes_all)?;
        mount::restrict(descriptors.as_fd(), Depth::One, INERT.and(Attributes::READ_ONLY))
            .map_err(at("make read-only", own))?;
        attach(&descriptors, Path::new(DESCRIPTORS))?;
        mount::restrict(skeleton.as_fd(), Depth::One, INERT.and(Attributes::READ_ONLY))
            .map_err(at("make read-only", "/"))?;
        change_root()
    }

    fn attach(&self, trees: &Trees) -> Result<(), JailError> {
        let root = Path::new("share/root");
        let below = self.visible.iter().filter(|path| !path.is_root());
        for (index, tree) in trees.root.iter().enumerate() {
            match index.checked_sub(1).and_then(|index| below.clone().nth(index)) {
                None => attach(tree, root)?,
                Some(path) => {
                    let place = find(open_place(root)?.as_fd(), path.as_str().as_ref());
                    let place = place.map_err(at("find", path.as_str()))?;
                    mount::attach(tree.as_fd(), place.as_fd())
                        .map_err(at("mount", path.as_str()))?;
                }
            }
        }
        for (index, volume) in trees.volumes.iter().enumerate() {
            let target = PathBuf::from(format!("share/volumes/{index}"));
            make_target(volume.as_fd(), &target)?;
            attach(volume, &target)?;
        }
        Ok(())
    }

    /// Mounts something empty over all that the guest must not reach.
    fn mask(&self, has_foreign: bool) -> Result<(), JailError> {
        let root = open_place(Path::new("share/root"))?;
        let mut foreign = if has_foreign { self.foreign()? } else { Vec::new() };
        foreign.sort();
        // A mask hides what is mounted below it as well.
        let mut last: Option<PathBuf> = None;
        for path in foreign {
            if last.as_ref().is_some_and(|last| path.starts_with(last)) {
                continue;
            }
            cover(root.as_fd(), path.as_os_str())?;
            last = Some(path);
        }
        for path in &self.hidden {
            cover(root.as_fd(), OsStr::new(path.as_str()))?;
        }
        Ok(())
    }

    /// What is mounted in the root and does not belong to it.
    fn foreign(&self) -> Result<Vec<PathBuf>, JailError> {
        let mounts = mountinfo::points().map_err(io_at("read", "/proc/self/mountinfo"))?;
        let here = std::env::current_dir().map_err(io_at("find", "tmpfs"))?;
        Ok(foreign_mounts(&mounts, &here.join("share/root"), &self.visible))
    }
}

impl SharedVolume {
    fn take(&self, users: Option<BorrowedFd<'_>>) -> Result<OwnedFd, JailError> {
        copy(self.source.path(), Depth::All, self.read_only, users)
    }
}

/// Where `path` of the root `root` is.
fn inside(root: &Path, path: &GuestPath) -> PathBuf {
    root.join(path.as_str().trim_start_matches('/'))
}

/// Covers `path` of `root`, if it is there, with something empty. Symlinks are followed inside the
/// root.
fn cover(root: BorrowedFd<'_>, path: &OsStr) -> Result<(), JailError> {
    let place = match find(root, path) {
        Ok(place) => place,
        // Not there, or not for this user to reach: then not for the guest either, as the file
        // server has no more rights.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(()),
        Err(errno) => return Err(at("find", Path::new(path))(errno)),
    };
    let empty = if is_directory(place.as_fd())? { EMPTY_DIRECTORY } else { EMPTY_FILE };
    let mask = mount::clone_path(Path::new(empty), Depth::One).map_err(at("copy", empty))?;
    mount::restrict(mask.as_fd(), Depth::One, INERT.and(Attributes::READ_ONLY))
        .map_err(at("make read-only", empty))?;
    mount::attach(mask.as_fd(), place.as_fd()).map_err(at("hide", Path::new(path)))
}

/// Opens `path` of `root`, without leaving it.
fn find(root: BorrowedFd<'_>, path: &OsStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Those of the mount points that are below `root` and not among `visible`, seen from the root.
fn foreign_mounts(points: &[PathBuf], root: &Path, visible: &[GuestPath]) -> Vec<PathBuf> {
    points
        .iter()
        .filter_map(|point| {
            let path = Path::new("/").join(point.strip_prefix(root).ok()?);
            let is_visible = visible.iter().any(|visible| Path::new(visible.as_str()) == path);
            (!is_visible && path != Path::new("/")).then_some(path)
        })
        .collect()
}

/// A copy of what is mounted at `path`, attached nowhere, which shares no mounts with anybody.
fn copy(
    path: &Path,
    depth: Depth,
    read_only: bool,
    users: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, JailError> {
    let tree = match users {
        Some(users) => mapped_tree(path, depth, users),
        None => mount::clone_path(path, depth),
    };
    let tree = tree.map_err(at("share", path))?;
    mount::make_private(tree.as_fd(), depth).map_err(at("make private", path))?;
    let attributes = if read_only { INERT.and(Attributes::READ_ONLY) } else { INERT };
    mount::restrict(tree.as_fd(), depth, attributes).map_err(at("restrict", path))?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, target: &Path) -> Result<(), JailError> {
    let place = open_place(target)?;
    mount::attach(tree.as_fd(), place.as_fd()).map_err(at("mount", target))
}

/// Makes what a mount of `source`'s kind can be attached to.
fn make_target(source: BorrowedFd<'_>, target: &Path) -> Result<(), JailError> {
    let made = if is_directory(source)? { fs::create_dir(target) } else { fs::write(target, []) };
    made.map_err(io_at("make", target))
}

fn change_root() -> Result<(), JailError> {
    // The old root lands on top of the new one and is taken off there (pivot_root(2), NOTES).
    nix::unistd::pivot_root(".", ".").map_err(at("change the root to", "tmpfs"))?;
    nix::mount::umount2(".", MntFlags::MNT_DETACH).map_err(at("leave the root of", "the host"))?;
    nix::unistd::chdir("/").map_err(at("enter", "/"))
}

fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, JailError> {
    let stat = nix::sys::stat::fstat(fd).map_err(at("look at", "a mount point"))?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// A place of this process's own mount namespace.
pub(super) fn open_place(path: &Path) -> Result<OwnedFd, JailError> {
    mount::place(nix::fcntl::AT_FDCWD, path).map_err(at("open", path))
}

fn at<P: AsRef<Path>>(action: &'static str, path: P) -> impl FnOnce(Errno) -> JailError {
    move |source| JailError { action, path: path.as_ref().to_owned(), source }
}

fn io_at<P: AsRef<Path>>(
    action: &'static str,
    path: P,
) -> impl FnOnce(std::io::Error) -> JailError {
    move |error| {
        let source = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        JailError { action, path: path.as_ref().to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_that_belong_to_the_root_stay_visible() {
        let points = [
            "/",
            "/s/share/root",
            "/s/share/root/home",
            "/s/share/root/proc",
            "/s/share/rooted",
            "/s/share/root/a b",
        ];
        let visible: Vec<GuestPath> = vec![GuestPath::root(), "/home".parse().unwrap()];
        let foreign =
            foreign_mounts(&points.map(PathBuf::from), Path::new("/s/share/root"), &visible);
        assert_eq!(foreign, [PathBuf::from("/proc"), PathBuf::from("/a b")]);
    }
}
