//! What this host can do of what a container needs, found out by doing it.
use moat_core::diagnose::Check;

/// The checks.
pub(crate) fn checks() -> Vec<Check> {
    Vec::new()
}
