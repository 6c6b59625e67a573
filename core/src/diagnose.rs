//! Codes, exit statuses and faults: the one vocabulary in which moat says what went wrong.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong; printed as `error[code]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The command line makes no sense.
    Usage,
    /// A spec is wrong.
    Spec,
    /// Policy refuses.
    Denied,
    /// The host lacks something.
    Unavailable,
    /// The workload's command does not exist.
    NotFound,
    /// The workload's command can't be executed.
    NotExecutable,
    /// No running workload is meant, or more than one.
    NotRunning,
    /// A name is taken, or the instance still runs.
    InUse,
    /// A kernel bundle is missing or wrong.
    Kernel,
    /// A container could not be set up or was lost.
    Container,
    /// A micro-VM could not be set up, crashed or was lost.
    Microvm,
    /// A file or directory of moat's own state can't be used.
    State,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Usage,
        Self::Spec,
        Self::Denied,
        Self::Unavailable,
        Self::NotFound,
        Self::NotExecutable,
        Self::NotRunning,
        Self::InUse,
        Self::Kernel,
        Self::Container,
        Self::Microvm,
        Self::State,
    ];

    /// The code as users see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Spec => "spec",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not-found",
            Self::NotExecutable => "not-executable",
            Self::NotRunning => "not-running",
            Self::InUse => "in-use",
            Self::Kernel => "kernel",
            Self::Container => "container",
            Self::Microvm => "microvm",
            Self::State => "state",
        }
    }

    /// The status with which moat ends on it, documented in `docs/exit-codes.md`.
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Spec => 3,
            Self::Denied => 4,
            Self::Unavailable => 5,
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::NotRunning
            | Self::InUse
            | Self::Kernel
            | Self::Container
            | Self::Microvm
            | Self::State => 125,
        }
    }

    /// What it means, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Usage => "the command line makes no sense",
            Self::Spec => "a spec is wrong, or asks for what moat does not do yet",
            Self::Denied => "policy refuses, or the ask is below the floor",
            Self::Unavailable => "this host lacks what the asked isolation needs",
            Self::NotFound => "the workload's command does not exist in its root",
            Self::NotExecutable => "the workload's command can't be executed",
            Self::NotRunning => {
                "no workload of which that could be asked has that name or id, or several have; it has just ended, or is paused"
            }
            Self::InUse => "the name is another instance's, or the instance still runs",
            Self::Kernel => "a kernel bundle is missing, broken or could not be made",
            Self::Container => "a container could not be set up, or was lost",
            Self::Microvm => "a micro-VM could not be set up, crashed, or was lost",
            Self::State => "moat's own state could not be read or written",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a backend answers when something fails: every library error that reaches the user is
/// turned into one of these by the crate that knows it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// What kind of thing went wrong.
    pub code: Code,
    /// What failed, with the path, key or name. Never repeats the source.
    pub what: String,
    /// What the user can do about it, where something can be done.
    pub hint: Option<String>,
    /// Why.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault without hint or source.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), hint: None, source: None }
    }

    /// With what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the reason.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Something that the host lacks to run an isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is missing or does not work, with what was tried: `/dev/kvm: permission denied`.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// One thing that was tried on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was tried: `user namespace`.
    pub name: String,
    /// Whether it worked.
    pub ok: bool,
    /// Whether the isolation can't be had without it.
    pub needed: bool,
    /// What was found: `made and entered`, `/dev/kvm: permission denied`.
    pub detail: String,
    /// What to do about it, where it did not work.
    pub hint: Option<String>,
}

/// What stands between a host and an isolation: the needed checks that failed.
pub fn missing(checks: &[Check]) -> Vec<Missing> {
    let failed = checks.iter().filter(|check| check.needed && !check.ok);
    failed
        .map(|check| Missing {
            what: format!("{}: {}", check.name, check.detail),
            hint: check.hint.clone().unwrap_or_else(|| "`moat doctor` tells more".to_owned()),
        })
        .collect()
}
