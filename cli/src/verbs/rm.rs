//! `moat rm`

use std::thread::sleep;
use std::time::{Duration, Instant};

use moat_core::control::Request;
use moat_core::diagnose::{Code, Fault};
use moat_host::state::Header;
use serde_json::json;

use crate::Failure;
use crate::args::Rm;
use crate::host::Host;
use crate::known::Known;
use crate::output::Output;
use crate::{instance, known};

/// How long a monitor may take to heed what it is asked, before it is ended itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the kernel may take to end a monitor that was killed.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Removes what is kept of workloads; each one that still runs is ended first with `--force`, and
/// else refused.
pub(crate) fn rm(output: Output, args: &Rm) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let mut told = Vec::new();
    for name in &args.named.names {
        let known = known::find(&host, name, args.named.project.as_ref())?;
        one(output, &host, &known, args.force)?;
        told.push(json!({ "id": known.id, "name": known.name }));
    }
    output.outcome(&told)?;
    Ok(0)
}

fn one(output: Output, host: &Host, known: &Known, force: bool) -> Result<(), Fault> {
    if known.lives() {
        if !force {
            return Err(Fault::new(Code::InUse, format!("{} still runs", known.shown()))
                .hint(format!("`moat stop {}` first, or `moat rm --force` it", known.id)));
        }
        if let Some((_, header)) = &known.running {
            end(output, host, header)?;
        }
    }
    match &known.kept {
        Some(kept) => Ok(host.shelf.remove(&kept.dir)?),
        None => Ok(()),
    }
}

/// Ends a workload at once: by its monitor, or with it, if that does nothing any more.
fn end(output: Output, host: &Host, header: &Header) -> Result<(), Fault> {
    let asked = instance::connect_within(&host.store, &header.id, PATIENCE);
    let asked = asked.and_then(|mut connection| {
        instance::attend_end(&mut connection, &[Request::Stop(Some(Duration::ZERO))])
    });
    // Why it was lost, if it was, matters no more.
    let began = Instant::now();
    if asked.is_err() {
        header.monitor.kill().map_err(|error| {
            let pid = header.monitor.pid;
            Fault::new(Code::State, format!("process {pid} can't be ended")).because(error)
        })?;
    }
    while header.monitor.is_alive() && began.elapsed() < END_PATIENCE {
        sleep(Duration::from_millis(1));
    }
    host.sweep(output)
}
