//! `moat ps`

use std::time::Duration;

use comfy_table::{Table, presets};
use moat_core::lifecycle::Phase;
use moat_core::spec::{Isolation, Name};
use moat_host::state::Found;
use serde::Serialize;

use crate::Failure;
use crate::host::Host;
use crate::output::Output;

/// One workload that runs.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: Name,
    isolation: Isolation,
    /// Its phase: `running`, `paused`, ...
    state: Phase,
    /// The process that stands for it on the host, once there is one.
    pid: Option<u32>,
    /// The moat that runs it.
    monitor: u32,
    /// Whole seconds since that started.
    age_seconds: Option<u64>,
}

/// Lists the workloads of this user that run.
pub(crate) fn ps(output: Output) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let mut rows: Vec<Row> = host.store.list()?.into_iter().filter_map(row).collect();
    rows.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    output.result(&rows, |rows| table(rows))?;
    Ok(0)
}

/// `None` for one without a living monitor, or of which nothing is left but its record.
fn row(found: Found) -> Option<Row> {
    let header = found.header.filter(|_| found.owned)?;
    let state = found.mark.map_or(Phase::Creating, |mark| mark.phase);
    (state != Phase::Destroyed).then(|| Row {
        id: header.id,
        name: header.name,
        isolation: header.decision.isolation,
        state,
        pid: found.mark.and_then(|mark| mark.pid),
        monitor: header.monitor.pid,
        age_seconds: header.monitor.age().map(|age| age.as_secs()),
    })
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ID", "NAME", "ISOLATION", "STATE", "PID", "AGE"]);
    for row in rows {
        table.add_row([
            row.id.clone(),
            row.name.to_string(),
            row.isolation.to_string(),
            row.state.as_str().to_owned(),
            row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            row.age_seconds.map_or_else(|| "-".to_owned(), |age| ago(Duration::from_secs(age))),
        ]);
    }
    table.trim_fmt()
}

/// In the two largest units that say something.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        let shown = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!([0, 59, 61, 3_599].map(shown), ["0s", "59s", "1m1s", "59m59s"]);
        assert_eq!([3_600, 90_000, 172_800].map(shown), ["1h0m", "1d1h", "2d0h"]);
    }
}
