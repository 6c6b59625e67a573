//! From the text of a spec to what is [written](super::written) in it, with every problem at once.

mod check;
mod container;
mod report;
mod section;
mod security;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::default::FILE_LIMIT;
use super::value::Quoted;
use super::{Name, Problem, Problems, Spec, ValueError};
use report::{Report, below};
use section::Section;

/// What an empty file is answered with.
const EXAMPLE: &str = "a spec begins like this:\n[workload.hello]\nimage = \"host\"\n\
    command = [\"echo\", \"hello\"]";

/// Reads a spec. `file` is its name for messages.
///
/// # Errors
/// With everything that is wrong: syntax, unknown keys, values, and what is not supported yet.
pub fn parse(text: impl AsRef<[u8]>, file: &str) -> Result<Spec, Problems> {
    let text = text_of(text.as_ref(), file)?;
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut report = Report::new(file, text);
    if syntax(&mut report, &errors) {
        let workloads = document_of(&mut report, document.get_ref());
        report.finish()?;
        return Ok(Spec { file: file.to_owned(), workloads });
    }
    report.finish()?;
    Err(Problem::new(file, "is not TOML").into())
}

/// Every key of the format, with its tables below the workload's: `resources.memory`. What the
/// user names is `NAME`.
pub fn known_keys() -> BTreeSet<String> {
    let mut report = Report::recording();
    let section = Section::new(&mut report, String::new(), None);
    workload::workload(section, 0, &BTreeSet::new());
    report.recorded()
}

/// The text of a file, if it is text and not too much.
fn text_of<'t>(bytes: &'t [u8], file: &str) -> Result<&'t str, Problems> {
    let wrong = |message: String| Problem::new(file, message);
    if bytes.len() > FILE_LIMIT {
        let message = format!("{} bytes are too many for a spec", bytes.len());
        return Err(wrong(message).help(format!("at most {FILE_LIMIT} bytes")).into());
    }
    let hint = "a spec is a TOML file";
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(wrong(format!("is a binary file: NUL at byte {offset}")).help(hint).into());
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let byte = bytes.get(offset).copied().unwrap_or_default();
        wrong(format!("is not UTF-8: {byte:#04x} at byte {offset}")).help(hint).into()
    })
}

/// Reports what the TOML parser found; whether what was read can be relied on. After a syntax
/// error it can't: what follows is a guess, and its problems may be none.
fn syntax(report: &mut Report<'_>, errors: &[toml::de::Error]) -> bool {
    let mut sound = true;
    let mut lines = BTreeSet::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        if error.message() == "duplicate key" {
            let message = format!("duplicate key {}", Quoted(report.slice(span.clone())));
            report.add_with_help(span.start, "", message, "a key or table can stand only once");
            continue;
        }
        sound = false;
        // The second error of a line is nearly always the first one's echo.
        if lines.insert(report.line(span.start)) {
            report.add(span.start, "", error.message());
        }
    }
    sound
}

fn document_of(
    report: &mut Report<'_>,
    document: &DeTable<'_>,
) -> BTreeMap<Name, super::written::Workload> {
    let mut root = Section::new(report, String::new(), Some(document));
    let entries = root.entries("workload");
    let report = root.finish();
    let empty = || entries.as_ref().is_none_or(BTreeMap::is_empty);
    if !report.has_problems() && empty() {
        report.add_with_help(0, "", "no [workload.NAME] table", EXAMPLE);
    }
    let entries = entries.unwrap_or_default();
    let names: BTreeSet<&str> = entries.keys().copied().collect();
    let mut workloads = BTreeMap::new();
    for (name, node) in entries {
        let key = below("workload", name);
        let Some(table) = node.as_table() else {
            let help = "write [workload.NAME] above the workload's keys";
            node.expected::<()>(report, "the table of a workload", Some(help.to_owned()));
            continue;
        };
        let typed: Result<Name, ValueError> = name.parse();
        if let Err(error) = &typed {
            report.add_value(node.key_at, &key, error);
        }
        let section = Section::new(report, key, Some(table));
        let written = workload::workload(section, node.key_at, &names);
        if let Ok(name) = typed {
            workloads.insert(name, written);
        }
    }
    workloads
}
