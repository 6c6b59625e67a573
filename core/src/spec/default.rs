//! What holds where a spec says nothing.

use std::time::Duration;

use super::{Bytes, Cpus, Resources, Signal};

/// What a workload may use.
pub const DEFAULT_RESOURCES: Resources =
    Resources { cpus: Cpus::from_milli(1000), memory: Bytes::mib(512), pids: 512 };

/// What asks a workload to end.
pub const DEFAULT_STOP_SIGNAL: Signal = Signal::TERM;

/// How long a workload has between its stop signal and SIGKILL.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where commands are looked for.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
