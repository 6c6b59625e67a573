//! Work done with moat's own rights inside a container's mount namespace, in a process aside: the
//! namespace, root and working directory that it changes are its own.

use std::fs::File;
use std::io::{Read, Write};

use moat_core::sandbox::StartError;
use moat_init::sys::clone::{self, Child, Namespaces};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal::SIGKILL;
use nix::unistd::{getpid, getppid, pipe2};

/// Does `work` in the mount namespace of `container`.
///
/// # Errors
/// What the work gave, or why it could not be done there.
pub(crate) fn in_mounts_of(
    container: &Child,
    work: impl FnOnce() -> Result<(), StartError>,
) -> Result<(), StartError> {
    let failed = |errno: nix::errno::Errno| StartError::Setup {
        step: "enter the container's mount namespace".to_owned(),
        reason: errno.desc().to_lowercase(),
    };
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let options = clone::Options { namespaces: Namespaces::NONE, cgroup: None };
    let moat = getpid();
    let helper = clone::spawn(options, || {
        // Whatever it waits for, it ends with moat, which may be gone already.
        if set_pdeathsig(SIGKILL).is_err() || getppid() != moat {
            return 1;
        }
        let done = setns(container, CloneFlags::CLONE_NEWNS).map_err(failed).and_then(|()| work());
        let said = match done {
            Ok(()) => return 0,
            Err(error) => postcard::to_stdvec(&error).unwrap_or_default(),
        };
        // The reader waits for it.
        let _ = File::from(write).write_all(&said);
        1
    })
    .map_err(failed)?;
    let mut said = Vec::new();
    // An end without words is told by the status.
    let _ = File::from(read).read_to_end(&mut said);
    let status = helper.wait().map_err(failed)?;
    if status == moat_core::sandbox::ExitStatus::Code(0) {
        return Ok(());
    }
    Err(postcard::from_bytes(&said).unwrap_or_else(|_| StartError::Setup {
        step: "build the root".to_owned(),
        reason: "the process that does it was killed".to_owned(),
    }))
}
