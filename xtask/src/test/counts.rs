//! Counts what test executables report, and what they say they skipped.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};

/// What all executables together reported.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Stands before each line that is passed on.
    label: String,
    passed: u64,
    failed: u64,
    /// Why each skipped test was skipped, by executable and name.
    skipped: BTreeMap<(String, String), String>,
    /// Executables that failed otherwise than by a counted test.
    broken: Vec<String>,
}

impl Counts {
    /// Counts of what runs at the same time as others: each line that is passed on says whose it is.
    pub(crate) fn labelled(label: String) -> Self {
        Self { label, ..Self::default() }
    }

    /// Runs a test executable, passing its output on, and counts.
    pub(crate) fn run(&mut self, name: &str, mut command: Command) -> Result<ExitStatus> {
        println!("{}-- {name}", self.label);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{name} can't be run"))?;
        let (sender, lines) = mpsc::channel();
        let readers = [
            forward(child.stdout.take(), self.label.clone(), io::stdout(), sender.clone()),
            forward(child.stderr.take(), self.label.clone(), io::stderr(), sender),
        ];
        let failed_before = self.failed;
        for line in lines {
            self.read(name, &line);
        }
        for reader in readers {
            // A reader that panicked has passed on what it could.
            let _ = reader.join();
        }
        let status = child.wait()?;
        if !status.success() && self.failed == failed_before {
            self.broken.push(format!("{name} ({status})"));
        }
        Ok(status)
    }

    /// Adds what others counted.
    pub(crate) fn add(&mut self, others: Self) {
        self.passed += others.passed;
        self.failed += others.failed;
        self.skipped.extend(others.skipped);
        self.broken.extend(others.broken);
    }

    /// Notes something that was not run, and says so.
    pub(crate) fn skipped(&mut self, name: &str, reason: &str) {
        println!("skipped: {name}: {reason}");
        self.skipped.insert((String::new(), name.to_owned()), reason.to_owned());
    }

    /// Forgets what an executable skipped of the tests that have a part of `filter` in their names,
    /// which will be run again where they need not skip. An empty filter is all of them.
    pub(crate) fn forget_skips(&mut self, executable: &str, filter: &str) {
        let is_run = |name: &str| {
            filter.is_empty() || filter.split_whitespace().any(|part| name.contains(part))
        };
        self.skipped.retain(|(skipping, name), _| skipping != executable || !is_run(name));
    }

    fn read(&mut self, executable: &str, line: &str) {
        if let Some((name, reason)) =
            line.strip_prefix("skipped: ").and_then(|rest| rest.split_once(": "))
        {
            self.skipped.insert((executable.to_owned(), name.to_owned()), reason.to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && self.broken.is_empty() && self.passed > 0
    }

    /// The last line: one that CI systems read.
    pub(crate) fn closing_line(&self) -> String {
        let failed = self.failed + self.broken.len() as u64;
        format!("{} passed, {failed} failed, {} skipped", self.passed, self.skipped.len())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((_, name), reason) in &self.skipped {
            writeln!(f, "skipped: {name}: {reason}")?;
        }
        for name in &self.broken {
            writeln!(f, "broken: {name}")?;
        }
        f.write_str("all tests ran")
    }
}

fn number_before(text: &str, unit: &str) -> u64 {
    let before = text.split(unit).next().filter(|before| before.len() < text.len());
    before.and_then(|before| before.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

fn forward(
    from: Option<impl Read + Send + 'static>,
    label: String,
    mut to: impl Write + Send + 'static,
    lines: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let Some(from) = from else { return };
        let mut from = BufReader::new(from);
        let mut line = label.clone().into_bytes();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // Whoever reads us may be gone; the counting goes on.
            let _ = to.write_all(&line);
            let text = String::from_utf8_lossy(line.get(label.len()..).unwrap_or_default());
            let _ = lines.send(text.trim_end().to_owned());
            line.truncate(label.len());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_and_skips_are_named() {
        let mut counts = Counts::default();
        counts.read("a", "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured");
        counts.read("a", "test result: FAILED. 3 passed; 2 failed; 0 ignored");
        counts.read("a", "skipped: probe: /dev/kvm is not there");
        assert_eq!(counts.closing_line(), "15 passed, 2 failed, 1 skipped");
        assert!(!counts.is_good());
        counts.forget_skips("a", "other another");
        assert_eq!(counts.closing_line(), "15 passed, 2 failed, 1 skipped");
        counts.forget_skips("a", "other prob");
        assert_eq!(counts.closing_line(), "15 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn an_executable_that_dies_counts_as_failed() {
        let mut counts = Counts::default();
        counts.run("false", Command::new("false")).unwrap();
        assert_eq!(counts.closing_line(), "0 passed, 1 failed, 0 skipped");
    }
}
