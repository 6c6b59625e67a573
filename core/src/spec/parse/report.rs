//! Where problems are collected.

use std::collections::BTreeSet;

use crate::spec::value::Quoted;
use crate::spec::{Place, Problem, Problems, ValueError};

/// The problems of one file, found so far.
pub(super) struct Report<'f> {
    file: &'f str,
    text: &'f str,
    /// Byte offsets at which lines begin.
    lines: Vec<usize>,
    /// How many characters begin before each [`BLOCK`] of bytes, so that a place in a line of a
    /// megabyte costs no more than one in a short line.
    characters: Vec<usize>,
    problems: Vec<Problem>,
    omitted: usize,
    /// Every key that was asked for, when someone wants to know.
    known: Option<BTreeSet<String>>,
}

/// Bytes of text to one entry of [`Report::characters`].
const BLOCK: usize = 128;

impl<'f> Report<'f> {
    pub(super) fn new(file: &'f str, text: &'f str) -> Self {
        let newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let lines = [0].into_iter().chain(newlines).collect();
        let mut characters = vec![0];
        for block in text.as_bytes().chunks(BLOCK) {
            let before = characters.last().copied().unwrap_or_default();
            characters.push(before + count_characters(block));
        }
        Self { file, text, lines, characters, problems: Vec::new(), omitted: 0, known: None }
    }

    /// A report that keeps the keys that are asked for.
    pub(super) fn recording() -> Self {
        Self { known: Some(BTreeSet::new()), ..Self::new("", "") }
    }

    pub(super) fn is_recording(&self) -> bool {
        self.known.is_some()
    }

    pub(super) fn record(&mut self, key: String) {
        if let Some(known) = &mut self.known {
            known.insert(key);
        }
    }

    pub(super) fn recorded(self) -> BTreeSet<String> {
        self.known.unwrap_or_default()
    }

    /// The line of a byte of the file, the first is 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// The place of a byte of the file.
    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let start = line.checked_sub(1).and_then(|index| self.lines.get(index)).unwrap_or(&0);
        let column = self.characters_before(offset) - self.characters_before(*start) + 1;
        Place { line, column }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        let block = offset / BLOCK;
        let rest = self.text.as_bytes().get(block * BLOCK..offset).unwrap_or_default();
        self.characters.get(block).copied().unwrap_or_default() + count_characters(rest)
    }

    /// A slice of the file.
    pub(super) fn slice(&self, span: std::ops::Range<usize>) -> &'f str {
        self.text.get(span).unwrap_or_default()
    }

    pub(super) fn add(&mut self, offset: usize, key: &str, message: impl Into<String>) {
        self.push(self.place(offset), key, message.into(), None);
    }

    pub(super) fn add_with_help(
        &mut self,
        offset: usize,
        key: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(self.place(offset), key, message.into(), Some(help.into()));
    }

    pub(super) fn add_at(&mut self, place: Place, key: &str, message: String, help: String) {
        self.push(place, key, message, Some(help));
    }

    pub(super) fn add_value(&mut self, offset: usize, key: &str, error: &ValueError) {
        self.push(self.place(offset), key, error.to_string(), error.help());
    }

    /// Whether more problems are only counted; what costs time to say need not be found then.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= Problems::LIMIT
    }

    fn push(&mut self, place: Place, key: &str, message: String, help: Option<String>) {
        if self.is_full() {
            self.omitted += 1;
            return;
        }
        let key = (!key.is_empty()).then(|| key.to_owned());
        let (file, place) = (self.file.to_owned(), Some(place));
        self.problems.push(Problem { file, place, key, message, help });
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The problems, if there are any.
    pub(super) fn finish(self) -> Result<(), Problems> {
        Problems::from_list(self.problems, self.omitted)
    }
}

/// How many characters begin in a piece of UTF-8: all bytes but those that continue one.
fn count_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

/// A key below a table, as one writes it: quoted where it is not bare.
pub(super) fn below(table: &str, key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let key = if !key.is_empty() && key.len() <= 64 && key.bytes().all(bare) {
        key.to_owned()
    } else {
        Quoted(key).to_string()
    };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters() {
        let text = "ab\nüx = 1\n\n日本z";
        let report = Report::new("f", text);
        for (needle, line, column) in [("ab", 1, 1), ("x", 2, 2), ("1", 2, 6), ("z", 4, 3)] {
            let offset = text.find(needle).expect(needle);
            assert_eq!(report.place(offset), Place { line, column }, "{needle}");
        }
        assert_eq!(report.place(text.len()), Place { line: 4, column: 4 });
        assert_eq!(Report::new("f", "").place(0), Place { line: 1, column: 1 });
        let long = format!("\n{}", "日".repeat(1000));
        let report = Report::new("f", &long);
        for column in [1, 42, 43, 44, 128, 129, 1000, 1001] {
            assert_eq!(report.place(1 + (column - 1) * 3), Place { line: 2, column });
        }
    }

    #[test]
    fn keys_are_quoted_where_they_must_be() {
        assert_eq!(below("", "workload"), "workload");
        assert_eq!(below("env", "a b\n"), "env.\"a b\\n\"");
        assert_eq!(below("env", ""), "env.\"\"");
    }
}
