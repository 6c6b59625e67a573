//! Users and groups.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A user or group, by number or by a name that the root's own files resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Id {
    /// A numeric id.
    Number(u32),
    /// A name of the root's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// Whom the workload runs as: `user` or `user:group`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub user: Id,
    /// The group; by default the user's own from `/etc/passwd`, else 0.
    pub group: Option<Id>,
}

/// The largest id: the one above it means "no change" (chown(2)).
const LARGEST_ID: u32 = u32::MAX - 1;

/// The most bytes of a user's or group's name (useradd(8)).
const NAME_LIMIT: usize = 32;

const HELP: &str = "write \"1000\", \"1000:1000\", a name, or \"name:group\"";

impl User {
    /// User and group 0.
    pub const ROOT: Self = Self { user: Id::Number(0), group: Some(Id::Number(0)) };
}

impl FromStr for Id {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const WHAT: &str = "a user or group";
        if text.is_empty() {
            return Err(ValueError::Empty { what: WHAT });
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse() {
                Ok(number) if number <= LARGEST_ID => Ok(Self::Number(number)),
                _ => Err(ValueError::range(&text, format!("0 to {LARGEST_ID}"))),
            };
        }
        if text.len() > NAME_LIMIT {
            return Err(ValueError::TooLong { what: WHAT, length: text.len(), limit: NAME_LIMIT });
        }
        // useradd(8), and the capitals, dots and closing $ that directory services add.
        let body = text.strip_suffix('$').unwrap_or(text);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if body.is_empty() || body.starts_with('-') || !body.bytes().all(plain) {
            return Err(ValueError::malformed(text, WHAT, HELP));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for User {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() || group == Some("") {
            return Err(ValueError::malformed(text, "a user", HELP));
        }
        Ok(Self { user: user.parse()?, group: group.map(str::parse).transpose()? })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        let number = Id::Number;
        let name = |text: &str| Id::Name(text.to_owned());
        for (text, user, group) in [
            ("0", number(0), None),
            ("1000:1000", number(1000), Some(number(1000))),
            ("www-data", name("www-data"), None),
            ("nobody:nogroup", name("nobody"), Some(name("nogroup"))),
            ("1000:staff", number(1000), Some(name("staff"))),
            ("4294967294", number(4_294_967_294), None),
            ("0x10", name("0x10"), None),
        ] {
            assert_eq!(text.parse(), Ok(User { user, group }), "{text}");
        }
        for text in
            ["", ":", "a:", ":a", "a:b:c", "4294967295", "-1", "a b", "a/b", "$", &"x".repeat(33)]
        {
            assert!(text.parse::<User>().is_err(), "{text}");
        }
    }
}
