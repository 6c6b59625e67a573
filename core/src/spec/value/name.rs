//! Names of workloads and hosts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A workload's name: 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit (a label
/// of RFC 1123, section 2.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A host name inside the workload: labels of letters, digits and `-`, with dots between them; at
/// most 63 bytes (RFC 1123, section 2.1; Linux's own limit is 64, uname(2)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

/// The name of a kernel bundle, which is a file name: letters, digits, `.`, `_`, `+`, `-`, beginning
/// with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelName(String);

/// The most bytes of a kernel bundle's name.
const KERNEL_LIMIT: usize = 128;

/// The most bytes of a name or host name.
const LIMIT: usize = 63;

const NAME_HELP: &str = "write a-z, 0-9 and -, beginning and ending with a letter or digit";
const HOSTNAME_HELP: &str =
    "write letters, digits, - and dots; each part begins and ends with a letter or digit";

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The valid name nearest to a text: `My Project_2` gives `my-project-2`. Where nothing is
    /// left of it, `workload`.
    pub fn nearest_to(text: &str) -> Self {
        let mut name = String::new();
        for c in text.chars().take(LIMIT) {
            match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9') => name.push(c),
                _ if name.ends_with('-') => {}
                _ => name.push('-'),
            }
        }
        match name.trim_matches('-') {
            "" => Self("workload".to_owned()),
            valid => Self(valid.to_owned()),
        }
    }
}

impl FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        check_length("a name", text, LIMIT)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !text.bytes().all(plain) || text.starts_with('-') || text.ends_with('-') {
            return Err(ValueError::malformed(text, "a name", NAME_HELP));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Hostname {
    /// The host name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        check_length("a host name", text, LIMIT)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !text.split('.').all(label) {
            return Err(ValueError::malformed(text, "a host name", HOSTNAME_HELP));
        }
        Ok(Self(text.to_owned()))
    }
}

impl From<&Name> for Hostname {
    fn from(name: &Name) -> Self {
        Self(name.0.clone())
    }
}

impl KernelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KernelName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        check_length("a kernel's name", text, KERNEL_LIMIT)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-');
        if !text.bytes().all(plain) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let help = "write a name that `moat kernel ls` shows, such as \"default\"";
            return Err(ValueError::malformed(text, "a kernel's name", help));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<(), ValueError> {
    match text.len() {
        0 => Err(ValueError::Empty { what }),
        length if length > limit => Err(ValueError::TooLong { what, length, limit }),
        _ => Ok(()),
    }
}

impl TryFrom<String> for Name {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Hostname {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(hostname: Hostname) -> Self {
        hostname.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for text in ["a", "0", "api", "my-api-2", &"x".repeat(63)] {
            assert_eq!(text.parse::<Name>().map(|n| n.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a/b", "..", &"x".repeat(64)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn hostnames() {
        for text in ["api", "API", "api.example.com", "a-1.b-2"] {
            assert_eq!(text.parse::<Hostname>().map(|n| n.to_string()).as_deref(), Ok(text));
        }
        for text in ["", ".", "a.", ".a", "a..b", "-a", "a-.b", "a_b", "a b", &"x".repeat(64)] {
            assert!(text.parse::<Hostname>().is_err(), "{text}");
        }
    }

    #[test]
    fn kernel_names() {
        for text in ["default", "6.12.1+deb12-cloud-amd64", "0"] {
            assert_eq!(text.parse::<KernelName>().map(|n| n.to_string()).as_deref(), Ok(text));
        }
        for text in ["", ".", "..", "../x", "a/b", "-x", "a b", &"x".repeat(129)] {
            assert!(text.parse::<KernelName>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_from_directories() {
        for (text, name) in [
            ("My Project_2", "my-project-2"),
            ("--x--", "x"),
            ("...", "workload"),
            ("", "workload"),
            ("日本", "workload"),
            ("a  b", "a-b"),
            (&"x".repeat(100), &"x".repeat(63)),
        ] {
            assert_eq!(Name::nearest_to(text).as_str(), name, "{text}");
        }
    }

    #[test]
    fn hostile_names_do_not_deserialize() {
        assert!(serde_json::from_str::<Name>("\"../x\"").is_err());
        assert!(serde_json::from_str::<Hostname>("\"a b\"").is_err());
        assert_eq!(serde_json::to_string(&Name("a".into())).ok().as_deref(), Some("\"a\""));
    }
}
