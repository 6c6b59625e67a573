//! Mounts whose owners are mapped by a user namespace's ids (mount_setattr(2),
//! `MOUNT_ATTR_IDMAP`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use moat_core::fault_point::FaultPoint;
use moat_core::spec::Signal;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal::SIGKILL;
use nix::unistd::{Pid, getpid, getppid, pause};

use crate::sys::clone::{self, Child, Namespaces};
use crate::sys::mount::{self, Depth};

/// A copy of what is at `path`, attached nowhere, its owners mapped by `user_namespace`.
///
/// # Errors
/// The kernel's: `EINVAL` when the filesystem can't.
pub fn mapped_tree(
    path: &Path,
    depth: Depth,
    user_namespace: BorrowedFd<'_>,
) -> nix::Result<OwnedFd> {
    let tree = mount::clone_path(path, depth)?;
    mount::map_owners(tree.as_fd(), depth, user_namespace)?;
    Ok(tree)
}

/// The user namespace of a process.
///
/// # Errors
/// When it is gone.
pub fn user_namespace(process: &Child) -> io::Result<File> {
    File::open(format!("/proc/{}/ns/user", process.pid()))
}

/// A user namespace to try maps with, held by a process that does nothing.
pub struct Trial {
    holder: Child,
    namespace: File,
}

impl Trial {
    /// Makes it, and lets `give` give it its ids.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(give: impl FnOnce(Pid) -> io::Result<()>) -> nix::Result<Self> {
        let options = clone::Options { namespaces: Namespaces::USER, cgroup: None };
        let moat = getpid();
        let holder = clone::spawn(options, || {
            // Ended by SIGKILL, or with moat, which may be gone already.
            while set_pdeathsig(SIGKILL).is_ok() && getppid() == moat {
                pause();
            }
            1
        })?;
        let number = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        FaultPoint::TrialMade.reached();
        let made = give(holder.pid()).and_then(|()| user_namespace(&holder));
        match made {
            Ok(namespace) => Ok(Self { holder, namespace }),
            Err(error) => {
                end(&holder);
                Err(number(error))
            }
        }
    }

    /// Whether what is at `path` can be seen through the map.
    pub fn maps(&self, path: &Path, depth: Depth) -> bool {
        mapped_tree(path, depth, self.namespace.as_fd()).is_ok()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        end(&self.holder);
    }
}

/// A trial that is made when it is needed for the first time.
#[derive(Default)]
pub struct Trials(Option<Trial>);

impl Trials {
    /// Whether what is at `path` can be seen through the map that `give` gives a user namespace.
    ///
    /// # Errors
    /// The kernel's, where there is no such namespace.
    pub fn maps(
        &mut self,
        give: impl FnOnce(Pid) -> io::Result<()>,
        path: &Path,
        depth: Depth,
    ) -> nix::Result<bool> {
        let trial = match self.0.take() {
            Some(trial) => trial,
            None => Trial::new(give)?,
        };
        Ok(self.0.insert(trial).maps(path, depth))
    }
}

fn end(holder: &Child) {
    // Both fail only for one that has ended already.
    let _ = holder.signal(Signal::KILL);
    let _ = holder.wait();
}
