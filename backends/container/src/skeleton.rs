//! `/` for a plain user.
//!
//! In a user namespace without rights over the host, a directory can't be shown without what is
//! mounted below it (mount_namespaces(7), "Restrictions on mount namespaces"). So such directories
//! are made anew, empty, and those of their entries below which nothing is mounted get overlays of
//! their own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use moat_core::sandbox::Lower;
use moat_core::spec::GuestPath;
use moat_host::procfs;
use moat_init::sys::mount::{self, Attributes};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{AccessFlags, access, symlinkat};

/// What `/` is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skeleton {
    /// Directories that are made, relative to the root, parents first.
    directories: Vec<PathBuf>,
    /// Symlinks that are made, relative to the root, with what they point to.
    links: Vec<(PathBuf, PathBuf)>,
    /// What goes over it, the skeleton itself first.
    pub(crate) lowers: Vec<Lower>,
}

/// The most overlays: each takes a few mounts.
const LIMIT: usize = 64;

/// Room for names only, in bytes.
const SIZE: u64 = 1 << 20;

impl Skeleton {
    /// Looks at the directories that make up the root.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) fn of(lowers: &[Lower], hidden: &[GuestPath]) -> io::Result<Self> {
        let root = Lower { at: GuestPath::root(), source: PathBuf::from("/") };
        let mut skeleton = Self { directories: vec![], links: vec![], lowers: vec![root] };
        let mounts = mount_points()?;
        let data: Vec<&Path> = lowers.iter().map(|lower| lower.source.as_path()).collect();
        skeleton.split(Path::new("/"), &mounts, &data, hidden)?;
        Ok(skeleton)
    }

    fn split(
        &mut self,
        dir: &Path,
        mounts: &[PathBuf],
        data: &[&Path],
        hidden: &[GuestPath],
    ) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            let is_hidden = hidden.iter().any(|hidden| path.starts_with(hidden.as_str()));
            let kind = entry.file_type()?;
            let relative = path.strip_prefix("/").unwrap_or(&path).to_owned();
            if kind.is_symlink() {
                self.links.push((relative, fs::read_link(&path)?));
            } else if kind.is_dir() {
                self.directories.push(relative);
                // Not data: the machine's own, or hidden; an empty directory stands for it.
                let foreign = mounts.contains(&path) && !data.contains(&path.as_path());
                if is_hidden || foreign {
                    continue;
                }
                if mounts.iter().any(|mount| mount.starts_with(&path) && *mount != path) {
                    // One that this user may not read stays empty.
                    match self.split(&path, mounts, data, hidden) {
                        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                        split => split?,
                    }
                } else if access(&path, AccessFlags::R_OK | AccessFlags::X_OK).is_ok()
                    && let Some(at) = guest_path(&path)
                    && self.lowers.len() < LIMIT
                {
                    self.lowers.push(Lower { at, source: path });
                }
            }
        }
        Ok(())
    }

    /// Makes it, attached nowhere.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn make(&self) -> nix::Result<OwnedFd> {
        let root = mount::tmpfs(SIZE, 0o755, (0, 0), Attributes::NO_DEV)?;
        for directory in &self.directories {
            mkdirat(root.as_fd(), directory, Mode::from_bits_truncate(0o755))?;
        }
        for (link, target) in &self.links {
            symlinkat(target, root.as_fd(), link)?;
        }
        Ok(root)
    }
}

fn guest_path(path: &Path) -> Option<GuestPath> {
    path.to_str()?.parse().ok()
}

/// Where anything is mounted (proc_pid_mountinfo(5)).
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let text = procfs::read_bytes("/proc/self/mountinfo")?;
    let field = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(<[u8]>::to_vec);
    let points = text.split(|byte| *byte == b'\n').filter_map(field);
    Ok(points.map(|point| PathBuf::from(unescaped(OsStr::from_bytes(&point)))).collect())
}

/// Blank, tab, newline and backslash are written as `\` and three octal digits there.
fn unescaped(field: &OsStr) -> OsString {
    let mut out = Vec::new();
    let mut parts = field.as_bytes().split(|byte| *byte == b'\\');
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        let (digits, rest) = part.split_at_checked(3).unwrap_or((part, &[]));
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        out.extend(u8::from_str_radix(digits, 8));
        out.extend_from_slice(rest);
    }
    OsString::from_vec(out)
}
