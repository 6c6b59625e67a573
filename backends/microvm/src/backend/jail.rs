//! What the VMM's process gives up before a hostile guest runs in it.

use std::path::PathBuf;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A step of the VMM's own confinement that failed.
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

/// What the file server needs to act for the guest's users on volumes: own, read, write and mark
/// files of any user. Not `CAP_DAC_READ_SEARCH`, with which a file of the host could be opened by
/// its handle, past every mount namespace (open_by_handle_at(2)); not `CAP_MKNOD`.
const KEPT: [Capability; 6] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// Gives up all rights but those to files, and every way to get more. Irrevocable.
pub(super) fn drop_rights() -> Result<(), JailError> {
    nix::sys::prctl::set_no_new_privs().map_err(failed("set", "no_new_privs"))?;
    let had = caps::read(None, CapSet::Permitted).map_err(caps_failed("read"))?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|cap| had.contains(cap)).collect();
    let bounding = caps::read(None, CapSet::Bounding).map_err(caps_failed("read"))?;
    // Without CAP_SETPCAP the bounding set can't be changed, and then there is nothing to gain.
    if had.contains(&Capability::CAP_SETPCAP) {
        for cap in bounding.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *cap).map_err(caps_failed("drop"))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(caps_failed("clear"))?;
    let none = CapsHashSet::new();
    caps::set(None, CapSet::Inheritable, &none).map_err(caps_failed("drop"))?;
    caps::set(None, CapSet::Effective, &kept).map_err(caps_failed("drop"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(caps_failed("drop"))
}

/// Descriptors for the files of a shared tree, one for each that the guest remembers. The same
/// as Linux's default ceiling (fs.nr_open).
const FILES: u64 = 1 << 20;

/// As many descriptors as the file server may have; no core dump, which would hold guest memory.
/// To be called while there are rights to exceed the hard limit with.
pub(super) fn set_limits() -> Result<(), JailError> {
    let error = || failed("set", "resource limits");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(error())?;
    // A plain user has no more than the hard limit.
    if hard >= FILES || setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(error())?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(error())
}

pub(super) fn failed(action: &'static str, what: &str) -> impl FnOnce(Errno) -> JailError {
    move |source| JailError { action, path: what.into(), source }
}

fn caps_failed(action: &'static str) -> impl FnOnce(caps::errors::CapsError) -> JailError {
    // The crate keeps the kernel's reason to itself; that of a capability call is always this.
    move |_| JailError { action, path: "capabilities".into(), source: Errno::EPERM }
}
