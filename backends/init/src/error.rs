//! From the kernel's answers to [`StartError`]: each names the step that failed.

use std::fmt::Display;
use std::io;

use moat_core::sandbox::StartError;
use nix::errno::Errno;

/// A kernel's refusal, in words that a user reads.
pub(crate) trait Reason {
    /// Without number or symbol.
    fn reason(&self) -> String;
}

impl Reason for Errno {
    fn reason(&self) -> String {
        let text = self.desc();
        let mut chars = text.chars();
        chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
    }
}

impl Reason for io::Error {
    fn reason(&self) -> String {
        self.raw_os_error()
            .map_or_else(|| self.to_string(), |number| Errno::from_raw(number).reason())
    }
}

impl Reason for String {
    fn reason(&self) -> String {
        self.clone()
    }
}

/// Names the step that a failure belongs to.
pub(crate) trait Step<T> {
    /// `step` says what was being done, with the path.
    fn step<S: Display>(self, step: impl FnOnce() -> S) -> Result<T, StartError>;
}

impl<T, E: Reason> Step<T> for Result<T, E> {
    fn step<S: Display>(self, step: impl FnOnce() -> S) -> Result<T, StartError> {
        self.map_err(|error| StartError::Setup { step: step().to_string(), reason: error.reason() })
    }
}
