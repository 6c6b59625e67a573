//! What a run showed, and what can be asked of it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Exit status as a shell gives it.
    pub status: i32,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
}

impl Seen {
    /// stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Checks the exit status.
    ///
    /// # Errors
    /// When it is another; all that was seen is in the message.
    pub fn status(&self, expected: i32) -> Result<&Self> {
        ensure!(self.status == expected, "status is not {expected}\n{}", self.shown());
        Ok(self)
    }

    /// Checks all of stdout.
    ///
    /// # Errors
    /// When it is other than expected.
    pub fn stdout(&self, expected: &str) -> Result<&Self> {
        ensure!(self.out() == expected, "stdout is not {expected:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks that stdout has this somewhere.
    ///
    /// # Errors
    /// When it has not.
    pub fn stdout_has(&self, part: &str) -> Result<&Self> {
        ensure!(self.out().contains(part), "stdout lacks {part:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks all of stderr but moat's own isolation line.
    ///
    /// # Errors
    /// When it is other than expected.
    pub fn stderr(&self, expected: &str) -> Result<&Self> {
        ensure!(self.workload_stderr() == expected, "stderr is not {expected:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks that stderr has this somewhere.
    ///
    /// # Errors
    /// When it has not.
    pub fn stderr_has(&self, part: &str) -> Result<&Self> {
        ensure!(self.err().contains(part), "stderr lacks {part:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks that stdout has this nowhere.
    ///
    /// # Errors
    /// When it has.
    pub fn stdout_lacks(&self, part: &str) -> Result<&Self> {
        ensure!(!self.out().contains(part), "stdout has {part:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks that stderr has this nowhere.
    ///
    /// # Errors
    /// When it has.
    pub fn stderr_lacks(&self, part: &str) -> Result<&Self> {
        ensure!(!self.err().contains(part), "stderr has {part:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks that moat refused: this status, and on stderr one error of this code, without a
    /// backtrace or a panic; with a hint.
    ///
    /// # Errors
    /// When it did not.
    pub fn refused(&self, status: i32, code: &str) -> Result<&Self> {
        self.status(status)?.stdout("")?.stderr_has(&format!("error[{code}]: "))?;
        let errors = self.err().lines().filter(|line| line.starts_with("error[")).count();
        ensure!(errors == 1, "{errors} errors where one was expected\n{}", self.shown());
        self.stderr_has("hint: ")?.stderr_lacks("panicked at")
    }

    /// stdout as JSON.
    ///
    /// # Errors
    /// When it is not one JSON value.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.stdout)
            .with_context(|| format!("stdout is no JSON\n{}", self.shown()))
    }

    /// The `error` object on stderr, of a run with `--format json`.
    ///
    /// # Errors
    /// When stderr has none, or a line that is no JSON.
    pub fn json_error(&self) -> Result<Value> {
        let mut found = None;
        for line in self.err().lines() {
            let value: Value = serde_json::from_str(line)
                .with_context(|| format!("a line of stderr is no JSON\n{}", self.shown()))?;
            found = value.get("error").cloned().or(found);
        }
        found.with_context(|| format!("stderr has no error object\n{}", self.shown()))
    }

    /// stderr without moat's own isolation line.
    pub fn workload_stderr(&self) -> String {
        let text = self.err();
        text.split_inclusive('\n').filter(|line| !line.starts_with("isolation: ")).collect()
    }

    /// Everything, shortened for a message.
    pub fn shown(&self) -> String {
        let short = |text: String| match text.char_indices().nth(4000) {
            Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
            None => text,
        };
        format!(
            "status: {}\nstdout: {}\nstderr: {}",
            self.status,
            short(self.out()),
            short(self.err())
        )
    }
}
