//! Which filter of system calls.

use std::fmt;
use std::str::FromStr;

use super::{HostPath, ValueError};

/// `security.seccomp` as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WrittenSeccomp {
    /// `default`: moat's own.
    Default,
    /// A file in the OCI's JSON format: whatever has a slash or ends with `.json`.
    File(HostPath),
}

impl FromStr for WrittenSeccomp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "default" => Ok(Self::Default),
            _ if text.contains('/') || text.ends_with(".json") => Ok(Self::File(text.parse()?)),
            _ => Err(ValueError::unknown("filter", text, &["default", "./FILE.json"])),
        }
    }
}

impl fmt::Display for WrittenSeccomp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for text in ["default", "./default", "filters/web.json", "web.json", "~/x.json"] {
            let filter: WrittenSeccomp = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(filter.to_string(), text);
            assert_eq!(filter == WrittenSeccomp::Default, text == "default");
        }
        for text in ["", "unconfined", "Default", "~me/x.json", "a\0/b"] {
            assert!(text.parse::<WrittenSeccomp>().is_err(), "{text}");
        }
    }
}
