//! `/` for a plain user.
//!
//! In a user namespace without rights over the host, a directory can't be shown without what is
//! mounted below it (mount_namespaces(7), "Restrictions on mount namespaces"). So such directories
//! are made anew, and those of their directories below which nothing is mounted get overlays of
//! their own; small files are copied.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use moat_core::sandbox::Lower;
use moat_core::spec::GuestPath;
use moat_host::mountinfo;
use moat_init::sys::mount::{self, Attributes};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat, umask};
use nix::unistd::{AccessFlags, access, symlinkat};

/// What `/` is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skeleton {
    /// Directories that are made, relative to the root, parents first.
    directories: Vec<PathBuf>,
    /// Symlinks that are made, relative to the root, with what they point to.
    links: Vec<(PathBuf, PathBuf)>,
    /// Files that are copied, relative to the root.
    files: Vec<PathBuf>,
    /// What goes over it, the skeleton itself first.
    pub(crate) lowers: Vec<Lower>,
}

/// The most overlays: each takes a few mounts.
const LIMIT: usize = 64;

/// The most that is copied of one file, in bytes.
const FILE_LIMIT: u64 = 256 << 10;

/// Room for names and what is copied, in bytes. What does not fit is left out.
const SIZE: u64 = 16 << 20;

impl Skeleton {
    /// Looks at the directories that make up the root.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) fn of(lowers: &[Lower], hidden: &[GuestPath]) -> io::Result<Self> {
        let root = Lower { at: GuestPath::root(), source: PathBuf::from("/") };
        let mut skeleton =
            Self { directories: vec![], links: vec![], files: vec![], lowers: vec![root] };
        let mounts = mountinfo::points()?;
        let data: Vec<&Path> = lowers.iter().map(|lower| lower.source.as_path()).collect();
        // All of a directory before what is in its directories, so that it is from far down that
        // something is left out where there is too much.
        let mut to_split = VecDeque::from([PathBuf::from("/")]);
        while let Some(dir) = to_split.pop_front() {
            match skeleton.split(&dir, &mounts, &data, hidden) {
                Ok(deeper) => to_split.extend(deeper),
                // One that this user may not read stays empty.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied && dir != Path::new("/") => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(skeleton)
    }

    /// Takes in one directory; gives those in it that must be split as well.
    fn split(
        &mut self,
        dir: &Path,
        mounts: &[PathBuf],
        data: &[&Path],
        hidden: &[GuestPath],
    ) -> io::Result<Vec<PathBuf>> {
        let mut deeper = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            let is_hidden = hidden.iter().any(|hidden| path.starts_with(hidden.as_str()));
            let kind = entry.file_type()?;
            let relative = path.strip_prefix("/").unwrap_or(&path).to_owned();
            if kind.is_symlink() {
                self.links.push((relative, fs::read_link(&path)?));
            } else if kind.is_file() && !is_hidden && !mounts.contains(&path) {
                self.files.push(relative);
            } else if kind.is_dir() {
                self.directories.push(relative);
                // Not data: the machine's own, or hidden; an empty directory stands for it.
                let foreign = mounts.contains(&path) && !data.contains(&path.as_path());
                if is_hidden || foreign {
                    continue;
                }
                if mounts.iter().any(|mount| mount.starts_with(&path) && *mount != path) {
                    deeper.push(path);
                } else if access(&path, AccessFlags::R_OK | AccessFlags::X_OK).is_ok()
                    && let Some(at) = guest_path(&path)
                    && self.lowers.len() < LIMIT
                {
                    self.lowers.push(Lower { at, source: path });
                }
            }
        }
        Ok(deeper)
    }

    /// Makes it, attached nowhere.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn make(&self) -> nix::Result<OwnedFd> {
        // The modes are for all users of the workload, whatever the caller gives new files.
        let callers = umask(Mode::empty());
        let made = self.fill();
        umask(callers);
        made
    }

    fn fill(&self) -> nix::Result<OwnedFd> {
        let root = mount::tmpfs(SIZE, 0o755, (0, 0), Attributes::NO_DEV)?;
        for directory in &self.directories {
            mkdirat(root.as_fd(), directory, Mode::from_bits_truncate(0o755))?;
        }
        for (link, target) in &self.links {
            symlinkat(target, root.as_fd(), link)?;
        }
        for file in &self.files {
            // One that this user may not read is left out, as are those that are too large.
            let _ = copy(file, root.as_fd());
        }
        Ok(root)
    }
}

/// Copies a file of the host's root to the same place below `root`, when it is small.
fn copy(file: &Path, root: BorrowedFd<'_>) -> io::Result<()> {
    let mut from = File::options()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(Path::new("/").join(file))?;
    let found = from.metadata()?;
    if !found.is_file() || found.len() > FILE_LIMIT {
        return Ok(());
    }
    let mode = Mode::from_bits_truncate(found.mode() & 0o777);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut to = File::from(openat(root, file, flags, mode)?);
    io::copy(&mut (&mut from).take(FILE_LIMIT), &mut to).map(drop)
}

fn guest_path(path: &Path) -> Option<GuestPath> {
    path.to_str()?.parse().ok()
}
