//! Resource limits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;
use super::error::word;

/// A resource of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// `RLIMIT_AS`, bytes.
    As,
    /// `RLIMIT_CORE`, bytes.
    Core,
    /// `RLIMIT_CPU`, seconds.
    Cpu,
    /// `RLIMIT_DATA`, bytes.
    Data,
    /// `RLIMIT_FSIZE`, bytes.
    Fsize,
    /// `RLIMIT_LOCKS`.
    Locks,
    /// `RLIMIT_MEMLOCK`, bytes.
    Memlock,
    /// `RLIMIT_MSGQUEUE`, bytes.
    Msgqueue,
    /// `RLIMIT_NICE`.
    Nice,
    /// `RLIMIT_NOFILE`, descriptors.
    Nofile,
    /// `RLIMIT_NPROC`, processes.
    Nproc,
    /// `RLIMIT_RTPRIO`.
    Rtprio,
    /// `RLIMIT_RTTIME`, microseconds.
    Rttime,
    /// `RLIMIT_SIGPENDING`.
    Sigpending,
    /// `RLIMIT_STACK`, bytes.
    Stack,
}

/// What a limit counts, which is how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: a number.
    Count,
    /// Bytes: a size.
    Bytes,
    /// Seconds: a duration.
    Seconds,
    /// Microseconds: a duration.
    Micros,
}

/// One resource limit; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which resource.
    pub resource: Resource,
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the workload may raise it.
    pub hard: Option<u64>,
}

const WORDS: [(&str, Resource); 15] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl Resource {
    /// Every resource with its key in a spec, in the order of the keys.
    pub const ALL: [(&'static str, Self); 15] = WORDS;

    /// The key in a spec.
    pub fn name(self) -> &'static str {
        WORDS.iter().find(|(_, resource)| *resource == self).map_or("", |(name, _)| name)
    }

    /// What its limit counts (setrlimit(2)).
    pub const fn unit(self) -> Unit {
        match self {
            Self::As
            | Self::Core
            | Self::Data
            | Self::Fsize
            | Self::Memlock
            | Self::Msgqueue
            | Self::Stack => Unit::Bytes,
            Self::Cpu => Unit::Seconds,
            Self::Rttime => Unit::Micros,
            Self::Locks
            | Self::Nice
            | Self::Nofile
            | Self::Nproc
            | Self::Rtprio
            | Self::Sigpending => Unit::Count,
        }
    }
}

impl FromStr for Resource {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        word("resource", text, &WORDS)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// For messages: `nofile=1024:4096`.
impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |limit: Option<u64>| match limit {
            Some(number) => number.to_string(),
            None => "unlimited".to_owned(),
        };
        write!(f, "{}={}:{}", self.resource, limit(self.soft), limit(self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_its_own_key() {
        for (name, resource) in WORDS {
            assert_eq!(resource.name(), name);
            assert_eq!(name.parse(), Ok(resource));
        }
        let error = "nofiles".parse::<Resource>().expect_err("unknown");
        assert_eq!(error.help().as_deref(), Some("did you mean \"nofile\"?"));
        let limit = Rlimit { resource: Resource::Nofile, soft: Some(1), hard: None };
        assert_eq!(limit.to_string(), "nofile=1:unlimited");
    }
}
