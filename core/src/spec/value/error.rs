//! Why a text is not a value.

use std::fmt;

use crate::spec::nearest::nearest;

/// Why a text is not the value it should be. Its Display is one sentence without the key, which
/// the [`Problem`](crate::spec::Problem) around it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// There is nothing.
    #[error("{what} must not be empty")]
    Empty {
        /// What it should be, with its article: `a name`.
        what: &'static str,
    },
    /// It is not of the form.
    #[error("{} is not {what}", Quoted(text))]
    Malformed {
        /// As written.
        text: String,
        /// What it should be, with its article: `a size`.
        what: &'static str,
        /// How it is written.
        help: String,
    },
    /// It is of the form, but too small or too large.
    #[error("{text} is out of range")]
    OutOfRange {
        /// As written.
        text: String,
        /// The smallest and the largest that is allowed: `0.01 to 256`.
        range: String,
    },
    /// It has more bytes than fit.
    #[error("{what} of {length} bytes is too long")]
    TooLong {
        /// What it should be, with its article.
        what: &'static str,
        /// How long it is, in bytes.
        length: usize,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// It is none of the words that are known.
    #[error("unknown {what} {}", Quoted(text))]
    Unknown {
        /// What it should be: `signal`.
        what: &'static str,
        /// As written.
        text: String,
        /// What to write instead.
        help: String,
    },
}

impl ValueError {
    pub(crate) fn malformed(text: &str, what: &'static str, help: impl Into<String>) -> Self {
        Self::Malformed { text: text.to_owned(), what, help: help.into() }
    }

    pub(crate) fn range(text: &dyn fmt::Display, range: impl Into<String>) -> Self {
        Self::OutOfRange { text: text.to_string(), range: range.into() }
    }

    /// None of the known words; the help names the nearest, or all of them when they are few.
    pub(crate) fn unknown(what: &'static str, text: &str, known: &[&str]) -> Self {
        let help = match nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.len() <= 8 => format!("one of {}", known.join(", ")),
            None => format!("such as {}", known[..3].join(", ")),
        };
        Self::Unknown { what, text: text.to_owned(), help }
    }

    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Empty { .. } => None,
            Self::Malformed { help, .. } | Self::Unknown { help, .. } => Some(help.clone()),
            Self::OutOfRange { range, .. } => Some(format!("allowed: {range}")),
            Self::TooLong { limit, .. } => Some(format!("at most {limit} bytes")),
        }
    }
}

/// A text from outside, quoted, escaped and cut, so that it can neither flood nor steer the
/// terminal on which it is shown.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Quoted<'_> {
    /// Characters shown.
    const LIMIT: usize = 60;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(Self::LIMIT) {
            None => write!(f, "{:?}", self.0),
            Some((cut, _)) => write!(f, "{:?}...", &self.0[..cut]),
        }
    }
}

/// The value of a word, among the few that are known.
pub(crate) fn word<T: Copy>(
    what: &'static str,
    text: &str,
    words: &[(&'static str, T)],
) -> Result<T, ValueError> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        ValueError::unknown(what, text, &known)
    })
}

#[cfg(test)]
mod tests {
    use super::Quoted;

    #[test]
    fn hostile_text_is_escaped_and_cut() {
        assert_eq!(Quoted("a\u{1b}[31m\n\u{202e}").to_string(), r#""a\u{1b}[31m\n\u{202e}""#);
        let long = "ä".repeat(1000);
        assert_eq!(Quoted(&long).to_string(), format!("\"{}\"...", "ä".repeat(60)));
    }
}
