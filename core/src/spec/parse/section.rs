//! Tables and values of a TOML document, read key by key.
//!
//! There is no list of known keys: a key is known because it is asked for, so that no key can be
//! known and not read. What is left in a table when all its keys were asked for is unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Report, below};
use crate::spec::nearest::nearest;
use crate::spec::value::Quoted;
use crate::spec::written::At;
use crate::spec::{Bytes, ValueError, parse_duration};

/// A value with its key.
pub(super) struct Node<'d> {
    /// The key with its tables.
    pub(super) key: String,
    /// Where the key begins, in bytes.
    pub(super) key_at: usize,
    value: &'d Spanned<DeValue<'d>>,
}

/// A table of known keys. A table that is not there has no entries, but knows its keys all the
/// same.
pub(super) struct Section<'r, 'f, 'd> {
    pub(super) report: &'r mut Report<'f>,
    /// The table's own key with its tables.
    pub(super) key: String,
    entries: BTreeMap<&'d str, Node<'d>>,
    /// The keys asked for; those that are there with the byte at which they begin.
    asked: BTreeMap<&'static str, Option<usize>>,
}

/// The most entries of an array other than a command.
const LIST_LIMIT: usize = 256;
const LIST_HELP: &str = "at most 256";

/// The entries of a table that has this key.
fn entries<'d>(key: &str, table: &'d DeTable<'d>) -> BTreeMap<&'d str, Node<'d>> {
    let entry = |(name, value): (&'d Spanned<_>, &'d Spanned<DeValue<'d>>)| {
        let text: &'d std::borrow::Cow<'d, str> = name.get_ref();
        let node = Node { key: below(key, text), key_at: name.span().start, value };
        (text.as_ref(), node)
    };
    table.iter().map(entry).collect()
}

impl<'r, 'f, 'd> Section<'r, 'f, 'd> {
    /// The table, or an empty one.
    pub(super) fn new(
        report: &'r mut Report<'f>,
        key: String,
        table: Option<&'d DeTable<'d>>,
    ) -> Self {
        let entries = table.map(|table| entries(&key, table)).unwrap_or_default();
        Self { report, key, entries, asked: BTreeMap::new() }
    }

    /// The value of a key.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node<'d>> {
        if self.report.is_recording() {
            self.report.record(below(&self.key, key));
        }
        let node = self.entries.remove(key);
        self.asked.insert(key, node.as_ref().map(|node| node.key_at));
        node
    }

    /// Where a key that was asked for begins, if it is there.
    pub(super) fn offset(&self, key: &str) -> Option<usize> {
        self.asked.get(key).copied().flatten()
    }

    /// The table of a key.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'_, 'f, 'd> {
        let node = self.take(key);
        let table = node.and_then(|node| node.table(self.report));
        Section::new(self.report, below(&self.key, key), table)
    }

    /// A value that is written as a string.
    pub(super) fn parse<T>(&mut self, key: &'static str, example: &str) -> Option<T>
    where
        T: FromStr<Err = ValueError>,
    {
        self.take(key)?.parse(self.report, example)
    }

    /// A value that is written as a string, with its place.
    pub(super) fn parse_at<T>(&mut self, key: &'static str, example: &str) -> Option<At<T>>
    where
        T: FromStr<Err = ValueError>,
    {
        self.take(key)?.parse_at(self.report, example)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        match node.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => node.expected(self.report, "true or false", None),
        }
    }

    /// A whole number in the range.
    pub(super) fn integer<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + fmt::Display,
    {
        self.take(key)?.integer(self.report, range)
    }

    /// A size in the range.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        example: &str,
        range: &RangeInclusive<Bytes>,
    ) -> Option<Bytes> {
        let node = self.take(key)?;
        let size = node.parse(self.report, example)?;
        if range.contains(&size) {
            return Some(size);
        }
        let range = format!("{} to {}", range.start(), range.end());
        node.refuse(self.report, &ValueError::range(&size, range))
    }

    /// A duration.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.take(key)?.duration(self.report)
    }

    /// An array.
    pub(super) fn list(&mut self, key: &'static str, example: &str) -> Option<Vec<Node<'d>>> {
        self.take(key)?.list(self.report, example)
    }

    /// An array of no more entries than a person writes.
    fn short_list(&mut self, key: &'static str, example: &str) -> Option<Vec<Node<'d>>> {
        let nodes = self.list(key, &format!("[{example}]"))?;
        if nodes.len() > LIST_LIMIT {
            self.wrong(key, format!("{} entries are too many", nodes.len()), LIST_HELP);
            return None;
        }
        Some(nodes)
    }

    /// An array of values that are written as strings, less those that are wrong.
    pub(super) fn parse_list<T>(&mut self, key: &'static str, example: &str) -> Option<Vec<T>>
    where
        T: FromStr<Err = ValueError>,
    {
        let nodes = self.short_list(key, example)?;
        Some(nodes.iter().filter_map(|node| node.parse(self.report, example)).collect())
    }

    /// The same, each with its place.
    pub(super) fn parse_list_at<T>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Vec<At<T>>>
    where
        T: FromStr<Err = ValueError>,
    {
        let nodes = self.short_list(key, example)?;
        Some(nodes.iter().filter_map(|node| node.parse_at(self.report, example)).collect())
    }

    /// The entries of a table whose keys are the user's.
    pub(super) fn entries(&mut self, key: &'static str) -> Option<BTreeMap<&'d str, Node<'d>>> {
        let node = self.take(key)?;
        Some(entries(&node.key, node.table(self.report)?))
    }

    /// Says that a key is not supported yet, if it is there.
    pub(super) fn not_yet(&mut self, key: &'static str) {
        if let Some(offset) = self.offset(key) {
            self.report.add(offset, &below(&self.key, key), "not supported yet");
        }
    }

    /// Says that this value of a key is not supported yet.
    pub(super) fn value_not_yet(
        &mut self,
        key: &'static str,
        value: &dyn fmt::Display,
        help: &str,
    ) {
        let message = format!("{} is not supported yet", Quoted(&value.to_string()));
        let offset = self.offset(key).unwrap_or_default();
        self.report.add_with_help(offset, &below(&self.key, key), message, help);
    }

    /// Says what is wrong with a key that was asked for.
    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let offset = self.offset(key).unwrap_or_default();
        self.report.add_with_help(offset, &below(&self.key, key), message, help);
    }

    /// What was not asked for is unknown. Gives the report back.
    pub(super) fn finish(self) -> &'r mut Report<'f> {
        for (name, node) in self.entries {
            let help =
                if self.report.is_full() { String::new() } else { unknown_help(name, &self.asked) };
            self.report.add_with_help(node.key_at, &node.key, "unknown key", help);
        }
        self.report
    }
}

impl<'d> Node<'d> {
    /// Where the value begins, in bytes.
    pub(super) fn at(&self) -> usize {
        self.value.span().start
    }

    /// Its text, if it is a string.
    pub(super) fn text(&self) -> Option<&'d str> {
        self.value.get_ref().as_str()
    }

    /// The value, if it is a table.
    pub(super) fn as_table(&self) -> Option<&'d DeTable<'d>> {
        self.value.get_ref().as_table()
    }

    /// Whether it is a number, and its text.
    pub(super) fn number(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A table.
    pub(super) fn table(&self, report: &mut Report<'_>) -> Option<&'d DeTable<'d>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => self.expected(report, "a table", None),
        }
    }

    /// A string.
    pub(super) fn string(&self, report: &mut Report<'_>, example: &str) -> Option<&'d str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => {
                let help = self.bare().map(|bare| format!("put it in quotes: \"{bare}\""));
                self.expected(report, &format!("a string such as {example}"), help)
            }
        }
    }

    /// A value that is written as a string.
    pub(super) fn parse<T>(&self, report: &mut Report<'_>, example: &str) -> Option<T>
    where
        T: FromStr<Err = ValueError>,
    {
        if let Some(bare) = self.bare() {
            let help = match bare.parse::<T>() {
                Ok(_) => Some(format!("put it in quotes: \"{bare}\"")),
                Err(error) => error.help(),
            };
            return self.expected(report, &format!("a string such as {example}"), help);
        }
        match self.string(report, example)?.parse() {
            Ok(value) => Some(value),
            Err(error) => self.refuse(report, &error),
        }
    }

    fn parse_at<T>(&self, report: &mut Report<'_>, example: &str) -> Option<At<T>>
    where
        T: FromStr<Err = ValueError>,
    {
        let value = self.parse(report, example)?;
        Some(At { value, place: report.place(self.at()), key: self.key.clone() })
    }

    pub(super) fn duration(&self, report: &mut Report<'_>) -> Option<Duration> {
        if let Some(bare) = self.bare() {
            let help = parse_duration(&bare).err().and_then(|error| error.help());
            return self.expected(report, "a string such as \"10s\"", help);
        }
        match parse_duration(self.string(report, "\"10s\"")?) {
            Ok(duration) => Some(duration),
            Err(error) => self.refuse(report, &error),
        }
    }

    pub(super) fn integer<T>(&self, report: &mut Report<'_>, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + fmt::Display,
    {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.expected(report, "a whole number", None);
        };
        let value = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let value = value.and_then(|value| T::try_from(value).ok());
        match value.filter(|value| range.contains(value)) {
            Some(value) => Some(value),
            None => {
                let range = format!("{} to {}", range.start(), range.end());
                self.refuse(report, &ValueError::range(number, range))
            }
        }
    }

    /// The elements of an array.
    pub(super) fn list(&self, report: &mut Report<'_>, example: &str) -> Option<Vec<Node<'d>>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            let help = self.text().filter(|text| text.len() <= 200).map(as_array);
            return self.expected(report, &format!("an array such as {example}"), help);
        };
        let node = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| Node {
            key: format!("{}[{index}]", self.key),
            key_at: value.span().start,
            value,
        };
        Some(array.iter().enumerate().map(node).collect())
    }

    /// Says that the value is of another type.
    pub(super) fn expected<T>(
        &self,
        report: &mut Report<'_>,
        expected: &str,
        help: Option<String>,
    ) -> Option<T> {
        let message = format!("expected {expected}, found {}", self.describe());
        match help {
            Some(help) => report.add_with_help(self.at(), &self.key, message, help),
            None => report.add(self.at(), &self.key, message),
        }
        None
    }

    /// Says that the value is not what it should be.
    pub(super) fn refuse<T>(&self, report: &mut Report<'_>, error: &ValueError) -> Option<T> {
        report.add_value(self.at(), &self.key, error);
        None
    }

    /// The text of what people forget to quote: numbers and booleans.
    fn bare(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(value.to_string()),
            _ => self.number(),
        }
    }

    fn describe(&self) -> String {
        let value = self.value.get_ref();
        match value {
            DeValue::String(text) => format!("string {}", Quoted(text)),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
                let text: String = self.bare().unwrap_or_default().chars().take(40).collect();
                format!("{} {text}", value.type_str())
            }
            DeValue::Table(_) | DeValue::Datetime(_) => format!("a {}", value.type_str()),
            DeValue::Array(_) => "an array".to_owned(),
        }
    }
}

/// What to write instead of an unknown key.
fn unknown_help(name: &str, known: &BTreeMap<&'static str, Option<usize>>) -> String {
    let known = || known.keys().copied();
    match (nearest(name, known()), known().count()) {
        (Some(near), _) => format!("did you mean \"{near}\"?"),
        (None, 0) => "this table has no keys yet".to_owned(),
        (None, 1..=8) => format!("known: {}", known().collect::<Vec<_>>().join(", ")),
        (None, _) => "`moat schema` prints all keys".to_owned(),
    }
}

/// A string as the array that was meant: its words, or a shell's command where it needs a shell.
fn as_array(text: &str) -> String {
    let shell = |c: char| "$|&;<>()*?[]{}~#'\"\\`=".contains(c) || c.is_control();
    if text.contains(shell) {
        return format!("write [\"sh\", \"-c\", {text:?}]");
    }
    let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
    format!("write [{}]", words.join(", "))
}
