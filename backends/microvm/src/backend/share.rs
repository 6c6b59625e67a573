//! The one directory tree that the guest sees of the host, put together in the VMM's own mount
//! namespace:
//!
//! ```text
//! share/root        the workload's root, read-only; what is hidden is mounted over
//! share/volumes/N   the N-th volume
//! proc              for the file server itself, outside what it shares
//! ```
//! The guest is hostile: it does not have to go through the overlay that moat-init makes of
//! `root`. So what the workload may not see must not be reachable here, and what is not named
//! here as visible is mounted over: every mount below the root that is not part of it, among them
//! the host's `/proc`, `/sys`, `/dev` and runtime directories.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use moat_core::spec::GuestPath;
use moat_host::mountinfo;
use moat_host::volume::Volume;
use moat_init::sys::mount::{self, Attributes, Depth};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags};

use super::jail::JailError;

/// The shared tree, once the VMM's root is changed.
pub(super) const SHARE: &str = "/share";

/// Size of the tmpfs that holds the tree's own directories.
const SKELETON: u64 = 1 << 20;

/// What is mounted over hidden directories and over anything else that is hidden.
const EMPTY_DIRECTORY: &str = "empty";
const EMPTY_FILE: &str = "empty-file";

/// What every shared mount gets: the file server needs neither programs nor devices.
const INERT: Attributes = Attributes::NO_SUID.and(Attributes::NO_DEV).and(Attributes::NO_EXEC);

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

impl Shared {
    /// Puts the tree together over the empty directory `stage` and makes it this process's root.
    /// To be called in a mount namespace of one's own.
    pub(super) fn enter(&self, stage: &Path) -> Result<(), JailError> {
        let none = None::<&str>;
        nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(at("make all mounts private", "/"))?;
        // Copied before the skeleton is mounted, which could otherwise lie inside the root.
        let root = copy(&self.root, true)?;
        let volumes =
            self.volumes.iter().map(|volume| copy(volume.source.path(), volume.read_only));
        let volumes: Vec<OwnedFd> = volumes.collect::<Result<_, _>>()?;

        let skeleton = mount::tmpfs(SKELETON, 0o755, (0, 0), INERT).map_err(at("make", "tmpfs"))?;
        let place = open_place(stage)?;
        mount::attach(skeleton.as_fd(), place.as_fd()).map_err(at("mount tmpfs", stage))?;
        nix::unistd::chdir(stage).map_err(at("enter", stage))?;
        for dir in ["proc", "share", "share/root", "share/volumes", EMPTY_DIRECTORY] {
            fs::create_dir(dir).map_err(io_at("make", dir))?;
        }
        fs::write(EMPTY_FILE, []).map_err(io_at("make", EMPTY_FILE))?;

        attach(&root, Path::new("share/root"))?;
        for (index, volume) in volumes.iter().enumerate() {
            let target = PathBuf::from(format!("share/volumes/{index}"));
            make_target(volume.as_fd(), &target)?;
            attach(volume, &target)?;
        }
        self.mask(stage)?;
        attach_proc()?;
        mount::restrict(skeleton.as_fd(), Depth::One, INERT.and(Attributes::READ_ONLY))
            .map_err(at("make read-only", stage))?;
        change_root(stage)
    }

    /// Mounts something empty over all that the guest must not reach.
    fn mask(&self, stage: &Path) -> Result<(), JailError> {
        let root = open_place(Path::new("share/root"))?;
        let mounts = mountinfo::points().map_err(io_at("read", "/proc/self/mountinfo"))?;
        let mut foreign = foreign_mounts(&mounts, &stage.join("share/root"), &self.visible);
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
}

/// Covers `path` of `root`, if it is there, with something empty. Symlinks are followed inside the
/// root.
fn cover(root: BorrowedFd<'_>, path: &OsStr) -> Result<(), JailError> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let place = match openat2(root, path, how) {
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

/// A copy of the mounts at `path` and below, attached nowhere.
fn copy(path: &Path, read_only: bool) -> Result<OwnedFd, JailError> {
    let tree = mount::clone_path(path, Depth::All).map_err(at("share", path))?;
    let attributes = if read_only { INERT.and(Attributes::READ_ONLY) } else { INERT };
    mount::restrict(tree.as_fd(), Depth::All, attributes).map_err(at("restrict", path))?;
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

/// A `/proc` of the VMM's own pid namespace. Inside a container that hides parts of its own, the
/// kernel lets no new one be made: then a copy of the one that is there.
fn attach_proc() -> Result<(), JailError> {
    let proc = mount::filesystem(c"proc", &[], INERT)
        .or_else(|_| mount::clone_path(Path::new("/proc"), Depth::All))
        .map_err(at("mount", "/proc"))?;
    attach(&proc, Path::new("proc"))
}

fn change_root(stage: &Path) -> Result<(), JailError> {
    // The old root lands on top of the new one and is taken off there (pivot_root(2), NOTES).
    nix::unistd::pivot_root(".", ".").map_err(at("change the root to", stage))?;
    nix::mount::umount2(".", MntFlags::MNT_DETACH).map_err(at("leave the root of", "the host"))?;
    nix::unistd::chdir("/").map_err(at("enter", "/"))
}

fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, JailError> {
    let stat = nix::sys::stat::fstat(fd).map_err(at("look at", "a mount point"))?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

fn open_place(path: &Path) -> Result<OwnedFd, JailError> {
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
