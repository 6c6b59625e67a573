//! Capabilities and resource limits of the VMM's process.

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the file server needs to act for the guest's users on volumes: own, read, write and mark
/// files of any user, in the VMM's own user namespace. Not `CAP_DAC_READ_SEARCH`, with which a file
/// of the host could be opened by its handle, past every mount namespace (open_by_handle_at(2));
/// not `CAP_MKNOD`.
const KEPT: [Capability; 6] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// Gives up all rights but those to files, for this thread and those that it makes, and every way
/// to get more. Irrevocable.
///
/// # Errors
/// The kernel's.
pub(crate) fn keep_file_rights() -> nix::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let had = caps::read(None, CapSet::Permitted).map_err(refused)?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|cap| had.contains(cap)).collect();
    let bounding = caps::read(None, CapSet::Bounding).map_err(refused)?;
    // Without CAP_SETPCAP the bounding set can't be changed, and then there is nothing to gain.
    if had.contains(&Capability::CAP_SETPCAP) {
        for cap in bounding.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *cap).map_err(refused)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(refused)?;
    let none = CapsHashSet::new();
    caps::set(None, CapSet::Inheritable, &none).map_err(refused)?;
    caps::set(None, CapSet::Effective, &kept).map_err(refused)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(refused)
}

/// Gives up all rights of this thread.
///
/// # Errors
/// The kernel's.
pub(super) fn give_up_all() -> nix::Result<()> {
    caps::clear(None, CapSet::Effective).map_err(refused)?;
    caps::clear(None, CapSet::Permitted).map_err(refused)
}

/// The crate keeps the kernel's reason to itself; that of a capability call is always this.
fn refused(_: caps::errors::CapsError) -> Errno {
    Errno::EPERM
}

/// Descriptors for the files of a shared tree, one for each that the guest remembers. The same
/// as Linux's default ceiling (fs.nr_open).
pub(crate) const FILES: u64 = 1 << 20;

/// As many descriptors as the file server may have; no core dump, which would hold guest memory.
/// Its owner has raised the hard limit before, if it could: this process may not.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_limits() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}

/// No process and no thread more, and no memory that can't be swapped out.
///
/// # Errors
/// The kernel's.
pub(super) fn end_growth() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0)
}
