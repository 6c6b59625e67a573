//! `moat doctor`

use comfy_table::{Table, presets};
use moat_core::spec::Isolation;
use serde::Serialize;

use crate::Failure;
use crate::host::Host;
use crate::output::Output;

/// What one check found.
#[derive(Debug, Serialize)]
struct Row {
    isolation: Isolation,
    check: String,
    ok: bool,
    /// Whether the isolation can't be had without it.
    needed: bool,
    found: String,
    hint: Option<String>,
}

/// Tries everything anew, whatever was found out before. The status is 1 when an isolation can't be
/// had.
pub(crate) fn doctor(output: Output) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let rows = rows(&host);
    let lacking = rows.iter().any(|row| row.needed && !row.ok);
    output.result(&rows, |rows| report(rows))?;
    Ok(u8::from(lacking))
}

fn rows(host: &Host) -> Vec<Row> {
    let checks = host.checks();
    checks
        .into_iter()
        .map(|(isolation, check)| Row {
            isolation,
            check: check.name,
            ok: check.ok,
            needed: check.needed,
            found: check.detail,
            hint: check.hint,
        })
        .collect()
}

fn report(rows: &[Row]) -> String {
    let mut text = String::new();
    for isolation in [Isolation::Container, Isolation::Vm] {
        let of_this = || rows.iter().filter(|row| row.isolation == isolation);
        let verdict = match of_this().all(|row| row.ok || !row.needed) {
            true => "can run here",
            false => "can't run here",
        };
        text.push_str(&format!("{isolation}: {verdict}\n{}\n", table(of_this())));
        for (checks, hint) in hints(of_this().filter(|row| !row.ok)) {
            text.push_str(&format!("  hint: {}: {hint}\n", checks.join(", ")));
        }
    }
    text
}

/// What to do, each once, with the checks that it is for.
fn hints<'a>(failed: impl Iterator<Item = &'a Row>) -> Vec<(Vec<&'a str>, &'a str)> {
    let mut hints: Vec<(Vec<&str>, &str)> = Vec::new();
    for row in failed {
        let Some(hint) = row.hint.as_deref() else { continue };
        match hints.iter_mut().find(|(_, known)| *known == hint) {
            Some((checks, _)) => checks.push(&row.check),
            None => hints.push((vec![&row.check], hint)),
        }
    }
    hints
}

fn table<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for row in rows {
        let verdict = match (row.ok, row.needed) {
            (true, _) => "ok",
            (false, true) => "no",
            (false, false) => "not here",
        };
        table.add_row([verdict, &row.check, &row.found]);
    }
    table.trim_fmt()
}
