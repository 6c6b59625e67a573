//! The root that the workload sees, built below a staging directory: overlays, /dev, mounts.
//!
//! ```text
//! STAGING       tmpfs of the size of the writable layers
//!   l0 l1 ..    the lower directories
//!   h0 h1 ..    whiteouts over them
//!   u0 u1 ..    what the workload writes
//!   w0 w1 ..    overlay's own
//!   root        the overlays, with all else mounted below
//! ```
//! It needs the right to mount in the current mount namespace, and no other namespace: so the
//! container's monitor builds it with the host's own rights in the container's mount namespace,
//! where overlay may use `trusted` attributes and /dev real nodes. A process that started without
//! rights builds it in its user namespace.

use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::{Lower, Mount, MountKind, Rootfs, Sandbox, StartError};
use moat_core::spec::Propagation;
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};

use crate::device;
use crate::error::Step;
use crate::inside::{self, Owner};
use crate::layer::Layer;
use crate::names;
use crate::sys::mount::{self, Attributes, Depth};

/// Which user namespace the builder works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespace {
    /// The machine's first one, as its root.
    Initial,
    /// One of moat's own: no device nodes can be made, overlay keeps its notes in `user`
    /// attributes (kept by tmpfs since Linux 6.6; before, a directory can't replace a removed one).
    Own,
}

/// How the root is built.
pub struct Builder<'a> {
    /// An existing directory to build below.
    pub staging: &'a Path,
    /// The user namespace of the builder.
    pub user_namespace: UserNamespace,
    /// The workload's user 0 as the builder sees it.
    pub owner: Owner,
    /// Gives the sandbox's sources.
    pub tree: &'a Tree<'a>,
}

/// Gives the directory or file at a path as a mount that is attached nowhere.
pub type Tree<'t> = dyn Fn(&Path, Depth) -> nix::Result<OwnedFd> + 't;

/// Where the finished root is, below the staging directory.
pub const ROOT: &str = "root";

/// Directories that exist for every workload, empty ones where the host's are hidden: path, mode.
const EMPTIED: [(&str, u32); 4] =
    [("/run", 0o755), ("/var/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];

impl Builder<'_> {
    /// Builds the root of `sandbox`. All mounts of the current mount namespace become private, and
    /// the working directory becomes the staging directory.
    ///
    /// # Errors
    /// The step that failed; the mounts made so far stay, for the namespace's end to remove.
    pub fn build(&self, sandbox: &Sandbox) -> Result<(), StartError> {
        let followers = self.followers(&sandbox.mounts)?;
        let slash = mount::place(nix::fcntl::AT_FDCWD, "/").step(|| "open /")?;
        mount::make_private(slash.as_fd(), Depth::All).step(|| "make mounts private")?;
        let staging = self.stage(sandbox.root.upper.get())?;
        // Relative names, so that no character of the staging path means something to overlay.
        nix::unistd::fchdir(&staging).step(|| "enter the staging directory")?;
        FaultPoint::Staged.reached();
        let overlays = self.overlays(&sandbox.root, sandbox.hostname.as_str(), staging.as_fd())?;
        let root = overlays.first().map(|(_, overlay)| overlay.as_fd());
        let root = root.ok_or_else(|| failed("mount overlay at /", "the root has no directory"))?;
        for place in ["/proc", "/sys", "/dev"] {
            self.plain_directory(root, place)?;
        }
        FaultPoint::OverlaysMounted.reached();
        let console = sandbox.process.terminal.is_some();
        device::populate(self, root, console, sandbox.shm_size)?;
        FaultPoint::DevicesMade.reached();
        for (mount, follower) in sandbox.mounts.iter().zip(followers) {
            self.mount(root, mount, follower)?;
        }
        FaultPoint::VolumesMounted.reached();
        let work = sandbox.process.working_dir.as_str();
        inside::make_directory(root, work, self.owner)
            .step(|| format!("make working directory {work}"))?;
        if sandbox.root.read_only {
            for (at, overlay) in &overlays {
                mount::restrict(overlay.as_fd(), Depth::One, Attributes::READ_ONLY)
                    .step(|| format!("make {at} read-only"))?;
            }
        }
        Ok(())
    }

    fn stage(&self, size: u64) -> Result<OwnedFd, StartError> {
        let step = || format!("mount tmpfs at {}", self.staging.display());
        let place = mount::place(nix::fcntl::AT_FDCWD, self.staging).step(step)?;
        // 0755: the workload's user 0 is not the machine's, and must pass through to its root.
        let tmpfs = mount::tmpfs(size, 0o755, (self.owner.uid, self.owner.gid), Attributes::NO_DEV)
            .step(step)?;
        mount::attach(tmpfs.as_fd(), place.as_fd()).step(step)?;
        Ok(tmpfs)
    }

    /// Mounts every overlay; gives them with their places, the root's first.
    fn overlays<'p>(
        &self,
        rootfs: &'p Rootfs,
        hostname: &str,
        staging: BorrowedFd<'_>,
    ) -> Result<Vec<(&'p str, OwnedFd)>, StartError> {
        make(staging, ROOT).step(|| "make the staging directory")?;
        let mut overlays: Vec<(&str, OwnedFd)> = Vec::new();
        for (index, lower) in visible(rootfs).enumerate() {
            let at = lower.at.as_str();
            let overlay = self.overlay(rootfs, lower, index, hostname, staging)?;
            let target = match overlays.first() {
                None => mount::place(staging, ROOT),
                Some((_, root)) => inside::make_directory(root.as_fd(), at, self.owner),
            }
            .step(|| format!("make mount point {at}"))?;
            mount::attach(overlay.as_fd(), target.as_fd())
                .step(|| format!("mount overlay at {at}"))?;
            overlays.push((at, overlay));
        }
        Ok(overlays)
    }

    fn overlay(
        &self,
        rootfs: &Rootfs,
        lower: &Lower,
        index: usize,
        hostname: &str,
        staging: BorrowedFd<'_>,
    ) -> Result<OwnedFd, StartError> {
        let at = lower.at.as_str();
        let step = || format!("mount overlay at {at}");
        let names = ["l", "h", "u", "w"].map(|letter| format!("{letter}{index}"));
        let [lower_name, hide_name, upper_name, work_name] = &names;
        let source = || format!("take {} as lower directory", lower.source.display());
        let tree = (self.tree)(&lower.source, Depth::One).step(source)?;
        make(staging, lower_name).step(source)?;
        let place = mount::place(staging, lower_name.as_str()).step(source)?;
        mount::attach(tree.as_fd(), place.as_fd()).step(source)?;

        let mut upper = Layer::new(staging, upper_name, tree.as_fd()).step(step)?;
        make(staging, work_name).step(step)?;
        let hidden = self.hide(rootfs, lower, hide_name, staging, tree.as_fd())?;
        self.empty(&hidden, lower, &mut upper)?;
        if let Some((etc, _)) = belongs(rootfs, lower, "/etc/hosts").and_then(inside::split) {
            names::write(&mut upper, etc, hostname, self.owner)?;
        }
        let layers = if hidden.is_empty() {
            lower_name.clone()
        } else {
            format!("{hide_name}:{lower_name}")
        };
        match self.mount_overlay([&layers, upper_name, work_name]) {
            Err(Errno::ENODEV) => Err(failed(&step(), "this kernel has no overlay filesystem")),
            mounted => mounted.step(step),
        }
    }

    fn mount_overlay(&self, directories: [&String; 3]) -> nix::Result<OwnedFd> {
        let [lower, upper, work] =
            directories.map(|name| CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL));
        let (lower, upper, work) = (lower?, upper?, work?);
        let mut options: Vec<(&CStr, Option<&CStr>)> = vec![
            (c"lowerdir", Some(&lower)),
            (c"upperdir", Some(&upper)),
            (c"workdir", Some(&work)),
        ];
        if self.user_namespace == UserNamespace::Own {
            options.push((c"userxattr", None));
        }
        mount::filesystem(c"overlay", &options, Attributes::NO_DEV)
    }

    /// Puts whiteouts over what is hidden of one lower; gives the paths that were there.
    fn hide<'p>(
        &self,
        rootfs: &'p Rootfs,
        lower: &Lower,
        name: &str,
        staging: BorrowedFd<'_>,
        tree: BorrowedFd<'_>,
    ) -> Result<Vec<&'p str>, StartError> {
        let mut layer = None;
        let mut hidden = Vec::new();
        for path in rootfs.hidden.iter().map(|path| path.as_str()) {
            let Some(below) = belongs(rootfs, lower, path) else { continue };
            let step = || format!("hide {path}");
            let layer = match &mut layer {
                Some(layer) => layer,
                none => none.insert(Layer::new(staging, name, tree).step(step)?),
            };
            let emptied = EMPTIED.iter().any(|(emptied, _)| *emptied == path);
            // A link such as /var/run shows nothing by itself, and programs go by it.
            if emptied && layer.is_link(below).step(step)? {
                continue;
            }
            if layer.hide(below).step(step)? {
                hidden.push(path);
            }
        }
        Ok(hidden)
    }

    /// Makes the hidden ones among the directories that every workload has, in the upper layer.
    fn empty(&self, hidden: &[&str], lower: &Lower, upper: &mut Layer) -> Result<(), StartError> {
        for (path, mode) in EMPTIED.iter().filter(|(path, _)| hidden.contains(path)) {
            let step = || format!("make an empty {path}");
            let Some((parent, name)) = below(lower.at.as_str(), path).and_then(inside::split)
            else {
                continue;
            };
            if let Some(parent) = upper.open(parent).step(step)? {
                inside::new_directory(parent.as_fd(), name, *mode, self.owner).step(step)?;
            }
        }
        Ok(())
    }

    /// Makes sure that a directory, no symlink, is there to mount one of the kernel's own on.
    fn plain_directory(&self, root: BorrowedFd<'_>, path: &str) -> Result<(), StartError> {
        let step = || format!("make mount point {path}");
        match inside::find_straight(root, path) {
            Err(Errno::ENOENT) => {
                inside::make_directory(root, path, self.owner).step(step).map(drop)
            }
            Err(Errno::ELOOP) => Err(failed(&step(), "it is a symlink")),
            found => found.step(step).map(drop),
        }
    }

    /// The trees of mounts that follow the host's. They must be taken before all mounts become
    /// private, or there would be nothing left to follow.
    fn followers(&self, mounts: &[Mount]) -> Result<Vec<Option<OwnedFd>>, StartError> {
        let follower = |mount: &Mount| match &mount.kind {
            MountKind::Bind { source, propagation: Propagation::Slave } => {
                let step = || format!("follow what is mounted below {}", source.display());
                let tree = (self.tree)(source, Depth::All).step(step)?;
                mount::make_slave(tree.as_fd(), Depth::All).step(step)?;
                Ok(Some(tree))
            }
            _ => Ok(None),
        };
        mounts.iter().map(follower).collect()
    }

    fn mount(
        &self,
        root: BorrowedFd<'_>,
        mount: &Mount,
        follower: Option<OwnedFd>,
    ) -> Result<(), StartError> {
        let target = mount.target.as_str();
        match &mount.kind {
            MountKind::Tmpfs { size } => {
                let step = || format!("mount tmpfs at {target}");
                let place = inside::make_directory(root, target, self.owner).step(step)?;
                let mut attributes = Attributes::NO_SUID.and(Attributes::NO_DEV);
                if mount.read_only {
                    attributes = attributes.and(Attributes::READ_ONLY);
                }
                let owner = (self.owner.uid, self.owner.gid);
                let tmpfs = mount::tmpfs(size.get(), 0o1777, owner, attributes).step(step)?;
                mount::attach(tmpfs.as_fd(), place.as_fd()).step(step)
            }
            MountKind::Bind { source, .. } => {
                let step = || format!("mount {} at {target}", source.display());
                let tree = match follower {
                    Some(tree) => tree,
                    None => {
                        let tree = (self.tree)(source, Depth::All).step(step)?;
                        mount::make_private(tree.as_fd(), Depth::All).step(step)?;
                        tree
                    }
                };
                let place = if is_directory(tree.as_fd()).step(step)? {
                    inside::make_directory(root, target, self.owner)
                } else {
                    inside::make_file(root, target, self.owner)
                }
                .step(step)?;
                let mut attributes = Attributes::NO_DEV;
                if mount.read_only {
                    attributes = attributes.and(Attributes::READ_ONLY);
                }
                mount::restrict(tree.as_fd(), Depth::All, attributes).step(step)?;
                mount::attach(tree.as_fd(), place.as_fd()).step(step)
            }
        }
    }
}

fn make(staging: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    mkdirat(staging, name, Mode::from_bits_truncate(0o755))
}

fn failed(step: &str, reason: impl Display) -> StartError {
    StartError::Setup { step: step.to_owned(), reason: reason.to_string() }
}

fn is_directory(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    Ok(nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// The lowers that are not hidden as a whole.
fn visible(rootfs: &Rootfs) -> impl Iterator<Item = &Lower> {
    rootfs.lowers.iter().filter(|lower| {
        !rootfs.hidden.iter().any(|hidden| below(hidden.as_str(), lower.at.as_str()).is_some())
    })
}

/// `path` as seen from `at`, starting with `/`, when it is `at` or below it.
fn below<'p>(at: &str, path: &'p str) -> Option<&'p str> {
    if at == "/" {
        return Some(path);
    }
    match path.strip_prefix(at)? {
        "" => Some("/"),
        rest => rest.starts_with('/').then_some(rest),
    }
}

/// `path` as seen from `lower`, when no deeper lower has it.
fn belongs<'p>(rootfs: &Rootfs, lower: &Lower, path: &'p str) -> Option<&'p str> {
    let seen = below(lower.at.as_str(), path).filter(|seen| *seen != "/")?;
    let deeper = visible(rootfs).any(|other| {
        other.at.as_str().len() > lower.at.as_str().len()
            && below(other.at.as_str(), path).is_some_and(|seen| seen != "/")
    });
    (!deeper).then_some(seen)
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn a_path_is_seen_from_where_it_is_mounted() {
        assert_eq!(below("/", "/home/a"), Some("/home/a"));
        assert_eq!(below("/home", "/home/a"), Some("/a"));
        assert_eq!(below("/home", "/home"), Some("/"));
        assert_eq!(below("/home", "/homes"), None);
        assert_eq!(below("/home", "/"), None);
    }
}
