//! Capabilities by name and number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A Linux capability by its number (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Capability(u8);

/// What a list of capabilities in a spec holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CapabilitySet {
    /// `ALL`.
    All,
    /// One.
    One(Capability),
}

macro_rules! capabilities {
    ($($name:ident = $number:literal),* $(,)?) => {
        impl Capability {
            $(#[doc = concat!("`CAP_", stringify!($name), "` (capabilities(7)).")]
            pub const $name: Self = Self($number);)*

            /// Every capability, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self($number)),*];
        }

        /// The names without `CAP_`, in the order of the numbers.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

// include/uapi/linux/capability.h
capabilities! {
    CHOWN = 0, DAC_OVERRIDE = 1, DAC_READ_SEARCH = 2, FOWNER = 3, FSETID = 4, KILL = 5, SETGID = 6,
    SETUID = 7, SETPCAP = 8, LINUX_IMMUTABLE = 9, NET_BIND_SERVICE = 10, NET_BROADCAST = 11,
    NET_ADMIN = 12, NET_RAW = 13, IPC_LOCK = 14, IPC_OWNER = 15, SYS_MODULE = 16, SYS_RAWIO = 17,
    SYS_CHROOT = 18, SYS_PTRACE = 19, SYS_PACCT = 20, SYS_ADMIN = 21, SYS_BOOT = 22, SYS_NICE = 23,
    SYS_RESOURCE = 24, SYS_TIME = 25, SYS_TTY_CONFIG = 26, MKNOD = 27, LEASE = 28, AUDIT_WRITE = 29,
    AUDIT_CONTROL = 30, SETFCAP = 31, MAC_OVERRIDE = 32, MAC_ADMIN = 33, SYSLOG = 34,
    WAKE_ALARM = 35, BLOCK_SUSPEND = 36, AUDIT_READ = 37, PERFMON = 38, BPF = 39,
    CHECKPOINT_RESTORE = 40,
}

/// What a workload has unless its spec says otherwise: what services that start as root and then
/// change their user need, and nothing that reaches outside the workload's own files, processes
/// and ports.
pub const DEFAULT_CAPABILITIES: &[Capability] = &[
    Capability::CHOWN,
    Capability::DAC_OVERRIDE,
    Capability::FOWNER,
    Capability::FSETID,
    Capability::KILL,
    Capability::SETGID,
    Capability::SETUID,
    Capability::SETPCAP,
    Capability::NET_BIND_SERVICE,
    Capability::SYS_CHROOT,
    Capability::SETFCAP,
];

impl Capability {
    /// The capability with this number, if capabilities(7) knows it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Capability {
    type Error = ValueError;

    fn try_from(number: u8) -> Result<Self, ValueError> {
        let last = Self::ALL.len() - 1;
        Self::from_number(number).ok_or_else(|| ValueError::range(&number, format!("0 to {last}")))
    }
}

impl From<Capability> for u8 {
    fn from(capability: Capability) -> Self {
        capability.0
    }
}

impl FromStr for Capability {
    type Err = ValueError;

    /// `NET_ADMIN`, `CAP_NET_ADMIN`, in capitals or not.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        (0..)
            .zip(NAMES)
            .find(|(_, known)| **known == name)
            .map(|(number, _)| Self(number))
            .ok_or_else(|| ValueError::unknown("capability", text, NAMES))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => write!(f, "CAP_{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for CapabilitySet {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        text.parse().map(Self::One)
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::One(capability) => capability.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        for (text, number) in
            [("NET_ADMIN", 12), ("CAP_NET_ADMIN", 12), ("cap_chown", 0), ("CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(text.parse().map(Capability::number), Ok(number), "{text}");
        }
        for (index, capability) in (0..).zip(Capability::ALL) {
            assert_eq!(capability.number(), index, "the table is in order");
            assert_eq!(capability.to_string().parse(), Ok(*capability));
        }
        assert_eq!("all".parse(), Ok(CapabilitySet::All));
        let error = "NET_ADMN".parse::<Capability>().expect_err("unknown");
        assert_eq!(error.help().as_deref(), Some("did you mean \"NET_ADMIN\"?"));
        assert!(postcard::from_bytes::<Capability>(&[41]).is_err());
    }
}
