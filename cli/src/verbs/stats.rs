//! `moat stats`

use std::time::Duration;

use comfy_table::{Table, presets};
use moat_core::control::{Reply, Request};
use moat_core::diagnose::{Code, Fault};
use moat_core::spec::Bytes;
use moat_core::workload::{Figures, Io};
use moat_host::state::Header;
use serde::Serialize;

use crate::Failure;
use crate::args::Stats;
use crate::host::Host;
use crate::instance;
use crate::output::Output;

/// What one workload uses.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: String,
    /// `null` where it can't be told.
    figures: Option<Told>,
}

/// The figures, in units that a script needs not look up.
#[derive(Debug, Serialize)]
struct Told {
    cpu_microseconds: Option<u64>,
    memory_bytes: Bytes,
    memory_limit_bytes: Bytes,
    pids: u64,
    pids_limit: u64,
    /// Bytes read and written of block devices.
    io: Option<Io>,
    oom_kills: u64,
}

/// Tells what a workload uses now, or every one that runs. One of many that can't tell is a
/// warning, one that was named an error.
pub(crate) fn stats(output: Output, args: &Stats) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let rows = match &args.name {
        Some(name) => {
            let (_, header) = instance::find(&host.store, name, None)?;
            vec![Row { figures: Some(told(ask(&host, &header)?)), ..empty(&header) }]
        }
        None => all(output, &host)?,
    };
    output.result(&rows, |rows| table(rows))?;
    Ok(0)
}

fn all(output: Output, host: &Host) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    for (_, header) in instance::all(&host.store)? {
        let figures = match ask(host, &header) {
            Ok(figures) => Some(told(figures)),
            // It has ended since.
            Err(fault) if fault.code == Code::NotRunning => continue,
            Err(fault) => {
                output.warn(&format!("{} ({}): {fault}", header.name, header.id));
                None
            }
        };
        rows.push(Row { figures, ..empty(&header) });
    }
    Ok(rows)
}

fn empty(header: &Header) -> Row {
    Row { id: header.id.clone(), name: header.name.to_string(), figures: None }
}

fn ask(host: &Host, header: &Header) -> Result<Figures, Fault> {
    match instance::ask(&mut instance::connect(&host.store, &header.id)?, &Request::Stats)? {
        Reply::Figures(figures) => Ok(figures),
        _ => Err(instance::unexpected()),
    }
}

fn told(figures: Figures) -> Told {
    let microseconds = |cpu: Duration| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
    Told {
        cpu_microseconds: figures.cpu.map(microseconds),
        memory_bytes: figures.memory,
        memory_limit_bytes: figures.memory_limit,
        pids: figures.pids,
        pids_limit: figures.pids_limit,
        io: figures.io,
        oom_kills: figures.oom_kills,
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ID", "NAME", "CPU TIME", "MEMORY", "PIDS", "READ", "WRITTEN", "OOM KILLS"]);
    for row in rows {
        let cells = row.figures.as_ref().map_or_else(|| [const { String::new() }; 6], cells);
        table.add_row([row.id.clone(), row.name.clone()].into_iter().chain(cells));
    }
    table.trim_fmt()
}

fn cells(told: &Told) -> [String; 6] {
    let unknown = || "-".to_owned();
    let cpu = told
        .cpu_microseconds
        .map(|cpu| format!("{}.{:02}s", cpu / 1_000_000, cpu % 1_000_000 / 10_000));
    let size =
        |what: fn(&Io) -> Bytes| told.io.as_ref().map_or_else(unknown, |io| rounded(what(io)));
    [
        cpu.unwrap_or_else(unknown),
        format!("{} of {}", rounded(told.memory_bytes), rounded(told.memory_limit_bytes)),
        format!("{} of {}", told.pids, told.pids_limit),
        size(|io| io.read),
        size(|io| io.written),
        told.oom_kills.to_string(),
    ]
}

/// With one decimal, in the largest unit of which there is one.
fn rounded(size: Bytes) -> String {
    let bytes = size.get();
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        None => format!("{bytes}B"),
        Some((unit, shift)) => {
            let tenth = (bytes >> (shift - 10) & 1023) * 10 / 1024;
            match tenth {
                0 => format!("{}{unit}", bytes >> shift),
                _ => format!("{}.{tenth}{unit}", bytes >> shift),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down_to_a_tenth() {
        let shown = |bytes| rounded(Bytes::new(bytes));
        assert_eq!([0, 1023, 1024, 1536].map(shown), ["0B", "1023B", "1KiB", "1.5KiB"]);
        assert_eq!(shown((512 << 20) - 1), "511.9MiB");
        assert_eq!(shown(u64::MAX), "16777215.9TiB");
    }
}
