//! Work done with moat's own rights inside a container's mount namespace.

use std::os::fd::{AsFd, OwnedFd};

use moat_core::sandbox::StartError;
use moat_init::sys::clone::Child;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

/// Does `work` in the mount namespace of `container`, and comes back. Entered by this process
/// itself, which has one thread: a process aside would cost a fork and all that comes of it.
///
/// # Errors
/// What the work gave, or why it could not be done there.
pub(crate) fn do_inside(
    container: &Child,
    work: impl FnOnce() -> Result<(), StartError>,
) -> Result<(), StartError> {
    let own = Place::own().map_err(failed("open moat's own mount namespace"))?;
    setns(container, CloneFlags::CLONE_NEWNS)
        .map_err(failed("enter the container's mount namespace"))?;
    let done = work();
    own.enter().map_err(failed("leave the container's mount namespace"))?;
    done
}

fn failed(step: &'static str) -> impl Fn(nix::errno::Errno) -> StartError {
    move |errno| StartError::Setup { step: step.to_owned(), reason: errno.desc().to_lowercase() }
}

/// Where a process is among the mounts: setns(2) takes root and working directory along.
struct Place {
    namespace: OwnedFd,
    root: OwnedFd,
    working_dir: OwnedFd,
}

impl Place {
    fn own() -> nix::Result<Self> {
        let place = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let namespace = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(Self {
            namespace: open("/proc/self/ns/mnt", namespace, Mode::empty())?,
            root: open("/", place, Mode::empty())?,
            working_dir: open(".", place, Mode::empty())?,
        })
    }

    fn enter(&self) -> nix::Result<()> {
        setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWNS)?;
        fchdir(&self.root)?;
        chroot(".")?;
        fchdir(&self.working_dir)
    }
}
