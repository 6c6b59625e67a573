//! What is wrong with a spec, and where.

use std::error::Error;
use std::fmt;

use serde::Serialize;

use super::ValueError;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line, the first is 1.
    pub line: usize,
    /// The character in the line, the first is 1.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as it was named to [`parse`](super::parse).
    pub file: String,
    /// Where in the file; nowhere when the file as a whole is wrong. In JSON its `line` and
    /// `column` stand beside the other fields.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// The key with its tables: `workload.api.resources.memory`.
    pub key: Option<String>,
    /// What is wrong, in one sentence without the key.
    pub message: String,
    /// What to write instead; may have several lines.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with a file as a whole.
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        let (file, message) = (file.into(), message.into());
        Self { file, place: None, key: None, message, help: None }
    }

    /// With its place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// With its key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A value that is not what it should be.
    pub(crate) fn value(file: impl Into<String>, error: &ValueError) -> Self {
        let problem = Self::new(file, error.to_string());
        Self { help: error.help(), ..problem }
    }
}

/// `specs/x.toml:4:1: workload.x.comand: unknown key; did you mean "command"?` A help of several
/// lines stands below, indented.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            None => Ok(()),
            Some(help) if !help.contains('\n') => write!(f, "; {help}"),
            Some(help) => help.lines().try_for_each(|line| write!(f, "\n    {line}")),
        }
    }
}

/// All that is wrong, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The problems, at most [`Problems::LIMIT`].
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub omitted: usize,
}

impl Problems {
    /// How many are kept: nobody reads more, and a hostile file may have a million.
    pub const LIMIT: usize = 100;

    /// The problems in the order of the file, if there are any.
    pub(crate) fn from_list(mut problems: Vec<Problem>, omitted: usize) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by(|a, b| (&a.file, a.place).cmp(&(&b.file, b.place)));
        let beyond = problems.len().saturating_sub(Self::LIMIT);
        problems.truncate(Self::LIMIT);
        Err(Self { problems, omitted: omitted + beyond })
    }

    /// How many there are, with those that are not kept.
    pub fn count(&self) -> usize {
        self.problems.len() + self.omitted
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], omitted: 0 }
    }
}

/// One problem a line, the last line without a newline.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl Error for Problems {}
