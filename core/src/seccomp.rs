//! Filters of system calls in the OCI's JSON format (runtime-spec `config-linux.md`, "Seccomp").

use serde::{Deserialize, Serialize};

/// A filter of system calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {}
