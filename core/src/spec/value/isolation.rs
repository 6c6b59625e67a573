//! Words about isolation and trust.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;
use super::error::word;

/// How a workload is kept apart, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Linux namespaces: the kernel is shared with the host.
    Container,
    /// A micro-VM: a kernel of its own behind KVM.
    Vm,
}

/// What a spec or the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Policy decides.
    #[default]
    Auto,
    /// A container, or nothing.
    Container,
    /// A micro-VM, or nothing.
    Vm,
}

/// How `auto` picks among what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The strongest.
    Security,
    /// The cheapest.
    Density,
}

/// How far the workload's code is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Someone else's code.
    Untrusted,
    /// The user's own.
    Trusted,
}

impl Isolation {
    /// The name as specs and messages have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }
}

impl Level {
    /// The name as specs and messages have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }

    /// The isolation that it asks for, unless it leaves that to policy.
    pub const fn isolation(self) -> Option<Isolation> {
        match self {
            Self::Auto => None,
            Self::Container => Some(Isolation::Container),
            Self::Vm => Some(Isolation::Vm),
        }
    }
}

impl Objective {
    /// The name as specs and messages have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Density => "density",
        }
    }
}

impl Trust {
    /// The name as specs and messages have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Trusted => "trusted",
        }
    }
}

/// Display and FromStr by `as_str`.
macro_rules! words {
    ($type:ty, $what:literal, [$($value:expr),*]) => {
        impl FromStr for $type {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                word($what, text, &[$(($value.as_str(), $value)),*])
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(Isolation, "isolation", [Self::Container, Self::Vm]);
words!(Level, "isolation", [Self::Auto, Self::Container, Self::Vm]);
words!(Objective, "objective", [Self::Security, Self::Density]);
words!(Trust, "trust", [Self::Untrusted, Self::Trusted]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for level in [Level::Auto, Level::Container, Level::Vm] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        for isolation in [Isolation::Container, Isolation::Vm] {
            assert_eq!(isolation.to_string().parse(), Ok(isolation));
            assert_eq!(
                isolation.as_str().parse::<Level>().map(Level::isolation),
                Ok(Some(isolation))
            );
        }
        for objective in [Objective::Security, Objective::Density] {
            assert_eq!(objective.to_string().parse(), Ok(objective));
        }
        for trust in [Trust::Untrusted, Trust::Trusted] {
            assert_eq!(trust.to_string().parse(), Ok(trust));
        }
        let error = "vmm".parse::<Level>().expect_err("unknown");
        assert_eq!(error.to_string(), "unknown isolation \"vmm\"");
        assert_eq!(error.help().as_deref(), Some("did you mean \"vm\"?"));
        let error = "microvm".parse::<Isolation>().expect_err("unknown");
        assert_eq!(error.help().as_deref(), Some("one of container, vm"));
    }
}
