//! Filters of system calls in the OCI's JSON format (runtime-spec `config-linux.md`, "Seccomp"),
//! and in the format of Docker's and Podman's profiles, which has more. [`read`] makes a
//! [`Profile`] of a file's text: names are numbers then, and what depends on capabilities and
//! architecture is decided. What depends on the kernel is left to whoever makes the kernel filter.

mod calls;
mod errno;
mod file;
#[cfg(test)]
mod tests;
mod written;

pub use calls::{LAST, numbered};
pub use file::{Mistake, Read, TEXT_LIMIT, read};

use serde::{Deserialize, Serialize};

/// A filter of system calls, for x86_64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The file that it is from, as shown to the user.
    pub name: String,
    /// What is done with a call that no rule is for.
    pub default: Action,
    /// In the order of the file: the first that matches decides.
    pub rules: Vec<Rule>,
    /// Whether the kernel logs what is done, but for what is allowed
    /// (`SECCOMP_FILTER_FLAG_LOG`, seccomp(2)).
    pub log: bool,
    /// Whether the mitigation of Speculative Store Bypass stays off
    /// (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`).
    pub speculation: bool,
}

/// What is done with some calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The calls' numbers.
    pub calls: Vec<u32>,
    /// What is done.
    pub action: Action,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// The rule is there only from this kernel on.
    pub since: Option<Kernel>,
    /// The rule is there only before this kernel.
    pub before: Option<Kernel>,
}

/// What is done with a call (seccomp(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The whole process is killed.
    KillProcess,
    /// The calling thread is killed.
    KillThread,
    /// It gets SIGSYS.
    Trap,
    /// The call fails with this error.
    Errno(u16),
    /// A tracer is told, with this message; without one the call fails with `ENOSYS`.
    Trace(u16),
    /// It is done, and logged.
    Log,
    /// It is done.
    Allow,
}

/// What an argument is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which of the six, from 0.
    pub argument: u8,
    /// How, as unsigned numbers of 64 bits.
    pub operator: Operator,
    /// With what.
    pub value: u64,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Is it the value?
    Equal,
    /// Is it another?
    NotEqual,
    /// Is it less?
    Less,
    /// Is it less or the value?
    LessOrEqual,
    /// Is it more?
    Greater,
    /// Is it more or the value?
    GreaterOrEqual,
    /// Are its bits in this mask those of the value?
    MaskedEqual(u64),
}

/// A kernel's version, its first two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kernel {
    /// 6 of 6.18.
    pub major: u32,
    /// 18 of 6.18.
    pub minor: u32,
}

impl std::str::FromStr for Kernel {
    type Err = std::num::ParseIntError;

    /// `6.18`, and anything that begins so, as uname(2) gives it: `6.18.44-cloud`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text.get(..end).unwrap_or_default().parse()
        };
        let (major, rest) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self { major: major.parse()?, minor: number(rest)? })
    }
}
