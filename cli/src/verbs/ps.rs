//! `moat ps`

use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use moat_core::lifecycle::Phase;
use moat_core::spec::{Isolation, Name};
use moat_host::process::ProcessId;
use serde::Serialize;

use crate::Failure;
use crate::args::Ps;
use crate::host::Host;
use crate::known::{self, Known};
use crate::output::Output;

/// One workload.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    /// `null` where what is kept of it is damaged.
    name: Option<Name>,
    /// The project that it has its name in, if it is kept after its end.
    project: Option<Name>,
    isolation: Option<Isolation>,
    /// Its phase: `running`, `paused`, ...
    state: Phase,
    /// The process that stands for it on the host, once there is one.
    pid: Option<u32>,
    /// The moat that runs it, while it does.
    monitor: Option<u32>,
    /// Whole seconds since that started.
    age_seconds: Option<u64>,
    /// The status with which it has ended, if that is known.
    status: Option<u8>,
    /// When it ended.
    ended: Option<Timestamp>,
}

/// Lists the workloads of this user that run, or all that there are.
pub(crate) fn ps(output: Output, args: &Ps) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let known = if args.all { known::all(&host)? } else { known::running(&host)? };
    let rows: Vec<Row> = known.into_iter().map(row).collect();
    output.result(&rows, |rows| table(rows))?;
    Ok(0)
}

fn row(known: Known) -> Row {
    let monitor = known.running.map(|(_, header)| header.monitor);
    let state = known.kept.filter(|_| known.phase == Phase::Ended).and_then(|kept| kept.state);
    Row {
        id: known.id,
        name: known.name,
        project: known.project,
        isolation: known.isolation,
        state: known.phase,
        pid: known.pid,
        monitor: monitor.map(|monitor| monitor.pid),
        age_seconds: monitor.and_then(ProcessId::age).map(|age| age.as_secs()),
        status: state.as_ref().and_then(|state| state.exit).map(|exit| exit.shell_status()),
        ended: state.and_then(|state| state.ended),
    }
}

fn table(rows: &[Row]) -> String {
    let unknown = || "-".to_owned();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ID", "NAME", "PROJECT", "ISOLATION", "STATE", "PID", "AGE"]);
    for row in rows {
        let state = match row.status {
            Some(status) => format!("{} ({status})", row.state.as_str()),
            None => row.state.as_str().to_owned(),
        };
        table.add_row([
            row.id.clone(),
            row.name.as_ref().map_or_else(unknown, Name::to_string),
            row.project.as_ref().map_or_else(unknown, Name::to_string),
            row.isolation.map_or_else(unknown, |isolation| isolation.to_string()),
            state,
            row.pid.map_or_else(unknown, |pid| pid.to_string()),
            row.age_seconds.map_or_else(unknown, |age| ago(Duration::from_secs(age))),
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
