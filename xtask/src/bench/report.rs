//! What was measured: as a table to read, or as JSON.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use super::Format;

/// A benchmark's result.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) benchmark: &'static str,
    /// What ran, how often, and where.
    pub(super) method: String,
    /// What each peer says of itself, and other things that the figures depend on.
    pub(super) versions: Vec<String>,
    pub(super) machine: Machine,
    pub(super) rows: Vec<Row>,
}

/// The code and the machine that the figures are of.
#[derive(Serialize)]
pub(super) struct Machine {
    /// As git names it, with `+` when the tree has changes.
    commit: String,
    date: String,
    kernel: String,
    processors: usize,
    /// Of one minute, when the measuring began.
    load: String,
}

/// One contender.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    /// What it does not do as the others do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// What came of one contender.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Figures(Figures),
    /// It could not be asked, for this reason.
    Skipped(String),
    /// It was asked and did not do it.
    Failed(String),
}

/// Figures by the name of their column.
pub(super) type Figures = BTreeMap<String, f64>;

/// A column of the table: the figure's name, and the decimals that are worth showing.
pub(super) struct Column(pub(super) &'static str, pub(super) usize);

impl Machine {
    pub(super) fn here() -> Result<Self> {
        let changed = !output("git", &["status", "--porcelain", "-uno"])?.is_empty();
        let mut commit = output("git", &["rev-parse", "--short", "HEAD"])?;
        if changed {
            commit.push('+');
        }
        let load = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
        Ok(Self {
            commit,
            date: output("date", &["-u", "+%F"])?,
            kernel: output("uname", &["-r"])?,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

impl Report {
    pub(super) fn print(&self, columns: &[Column], format: Format) -> Result<()> {
        match format {
            Format::Text => print!("{}", self.text(columns)),
            Format::Json => println!("{}", serde_json::to_string_pretty(self)?),
        }
        Ok(())
    }

    fn text(&self, columns: &[Column]) -> String {
        let Machine { commit, date, kernel, processors, load } = &self.machine;
        let mut text = format!(
            "{}\nmoat {commit}, {date}, Linux {kernel}, {processors} processors, load {load}\n\
             {}\n\n",
            self.method,
            self.versions.join("; ")
        );
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        let mut line = format!("{:width$}", "");
        for Column(name, _) in columns {
            let _ = write!(line, "  {:>9}", name.replace('_', " "));
        }
        text.push_str(&line);
        text.push('\n');
        for Row { name, outcome, .. } in &self.rows {
            let _ = write!(text, "{name:width$}");
            match outcome {
                Outcome::Figures(figures) => cells(&mut text, figures, columns),
                Outcome::Skipped(why) => text.push_str(&format!("  skipped: {why}")),
                Outcome::Failed(why) => text.push_str(&format!("  failed: {why}")),
            }
            text.push('\n');
        }
        for Row { name, note, .. } in &self.rows {
            if let Some(note) = note {
                let _ = write!(text, "\n{name}: {note}");
            }
        }
        text.push('\n');
        text
    }
}

fn cells(text: &mut String, figures: &Figures, columns: &[Column]) {
    for Column(name, decimals) in columns {
        let width = name.len().max(9);
        let _ = match figures.get(*name) {
            Some(figure) => write!(text, "  {figure:>width$.decimals$}"),
            None => write!(text, "  {:>width$}", "-"),
        };
    }
}

/// Adds each row's `of`, divided by that of `reference`, as `name`.
pub(super) fn compare(rows: &mut [Row], reference: &str, of: &str, name: &str) {
    let figure = |row: &Row| match &row.outcome {
        Outcome::Figures(figures) => figures.get(of).copied(),
        _ => None,
    };
    let Some(base) = rows.iter().find(|row| row.name == reference).and_then(figure) else {
        return;
    };
    for row in rows {
        let value = figure(row);
        if let (Outcome::Figures(figures), Some(value)) = (&mut row.outcome, value) {
            figures.insert(name.to_owned(), value / base);
        }
    }
}

/// The value below which `percent` of `values` are; not a number when there are none.
pub(super) fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// The first line that `program --version` writes; nothing where it is not installed.
pub(super) fn version(program: &str) -> Option<String> {
    let text = output(program, &["--version"]).ok()?;
    text.lines().next().map(str::to_owned)
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, ms: f64) -> Row {
        let figures = Figures::from([("median_ms".to_owned(), ms)]);
        Row { name: name.to_owned(), outcome: Outcome::Figures(figures), note: None }
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!([0, 10, 50, 100].map(|at| quantile(&values, at)), [1.0, 1.0, 3.0, 5.0]);
        assert!(quantile(&[], 50).is_nan());
    }

    #[test]
    fn ratios_are_to_the_reference_and_left_out_without_it() {
        let mut rows = [row("crun", 4.0), row("moat", 6.0)];
        compare(&mut rows, "runc", "median_ms", "ratio");
        let shown = |rows: &[Row]| serde_json::to_value(rows).unwrap();
        assert!(shown(&rows)[1]["figures"]["ratio"].is_null());
        compare(&mut rows, "crun", "median_ms", "ratio");
        assert_eq!(shown(&rows)[1]["figures"]["ratio"], 1.5);
    }
}
