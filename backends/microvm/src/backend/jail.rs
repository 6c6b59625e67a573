//! What can go wrong when the VMM's process is confined.

use std::path::PathBuf;

use nix::errno::Errno;

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
