//! The only printer: results go to stdout, all else to stderr, as text or as JSON.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

use moat_core::diagnose::{Code, Fault};
use moat_core::spec::Problems;
use serde::Serialize;
use serde_json::json;

use crate::args::Format;

/// Where and how moat speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Whether moving pictures are welcome on stderr.
    pub(crate) fn draws(self) -> bool {
        self.format == Format::Text && !self.quiet && io::stderr().is_terminal()
    }

    /// Writes a verb's result: `value` as JSON, or what `text` makes of it.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Fault> {
        let mut out = match self.format {
            Format::Text => text(value),
            Format::Json => serde_json::to_string_pretty(value)
                .map_err(|error| Fault::new(Code::State, "the result is no JSON").because(error))?,
        };
        if !out.ends_with('\n') {
            out.push('\n');
        }
        self.raw(&out)
    }

    /// Writes a verb's result that is JSON in either format.
    pub(crate) fn json<T: Serialize>(self, value: &T) -> Result<(), Fault> {
        Self { format: Format::Json, ..self }.result(value, |_| String::new())
    }

    /// Writes a verb's result that a script may want to know, and people know already.
    pub(crate) fn outcome<T: Serialize>(self, value: &T) -> Result<(), Fault> {
        if self.is_json() { self.json(value) } else { Ok(()) }
    }

    /// Whether results are for scripts.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Writes a verb's result that is the same in either format.
    pub(crate) fn raw(self, out: &str) -> Result<(), Fault> {
        match io::stdout().lock().write_all(out.as_bytes()) {
            // Whoever reads us has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Fault::new(Code::State, "stdout can't be written").because(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Tells what is going on: one line for people, or one JSON object with the same facts.
    pub(crate) fn note(self, text: &str, fields: impl FnOnce() -> serde_json::Value) {
        if self.quiet {
            return;
        }
        match self.format {
            Format::Text => say(text),
            Format::Json => say(&fields().to_string()),
        }
    }

    /// Warns. Not even `--quiet` hides a warning.
    pub(crate) fn warn(self, text: &str) {
        match self.format {
            Format::Text => say(&format!("warning: {text}")),
            Format::Json => say(&json!({ "warning": text }).to_string()),
        }
    }

    /// Says what went wrong, why, and what can be done about it.
    pub(crate) fn error(self, fault: &Fault) {
        let causes = causes(fault);
        match self.format {
            Format::Text => {
                let mut text = format!("error[{}]: {fault}", fault.code);
                for cause in &causes {
                    text.push_str(&format!("\n  caused by: {cause}"));
                }
                if let Some(hint) = &fault.hint {
                    text.push_str(&format!("\n  hint: {hint}"));
                }
                say(&text);
            }
            Format::Json => say(&json!({
                "error": {
                    "code": fault.code,
                    "status": fault.code.exit_status(),
                    "message": fault.what,
                    "causes": causes,
                    "hint": fault.hint,
                }
            })
            .to_string()),
        }
    }

    /// Says every problem of a spec.
    pub(crate) fn problems(self, problems: &Problems) {
        match self.format {
            Format::Text => {
                let count = match problems.count() {
                    1 => "1 problem".to_owned(),
                    count => format!("{count} problems"),
                };
                say(&format!("error[{}]: {count}\n{problems}", Code::Spec));
            }
            Format::Json => say(&json!({
                "error": {
                    "code": Code::Spec,
                    "status": Code::Spec.exit_status(),
                    "problems": problems.problems,
                    "omitted": problems.omitted,
                }
            })
            .to_string()),
        }
    }
}

fn causes(fault: &Fault) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = fault.source();
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    causes
}

/// One write, so that the line stays whole beside what the workload writes.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
