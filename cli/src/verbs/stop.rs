//! `moat stop`

use moat_core::control::Request;
use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::Phase;
use moat_core::sandbox::Exit;
use moat_core::spec::Name;
use serde::Serialize;

use crate::Failure;
use crate::args::Stop;
use crate::host::Host;
use crate::output::Output;
use crate::{instance, known};

/// What was stopped.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    name: Option<Name>,
    state: Phase,
    exit: Option<Exit>,
}

/// Asks workloads to end and waits until they have, and nothing is left of them but what is kept.
/// One that has ended already is as it is to be.
pub(crate) fn stop(output: Output, args: &Stop) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let mut rows = Vec::new();
    for name in &args.named.names {
        rows.push(one(&host, name, args)?);
    }
    output.result(&rows, |rows| rows.iter().map(told).collect())?;
    Ok(0)
}

fn one(host: &Host, name: &str, args: &Stop) -> Result<Row, Fault> {
    let project = args.named.project.as_ref();
    let (_, header) = match instance::find(&host.store, name, project) {
        Ok(found) => found,
        Err(fault) if fault.code == Code::NotRunning => {
            let known = known::find(host, name, project).map_err(|_| fault)?;
            let exit = known.kept.and_then(|kept| kept.state?.exit);
            return Ok(Row { id: known.id, name: known.name, state: known.phase, exit });
        }
        Err(fault) => return Err(fault),
    };
    let mut connection = instance::connect(&host.store, &header.id)?;
    let exit = instance::attend_end(&mut connection, &[Request::Stop(args.timeout)])?;
    Ok(Row { id: header.id, name: Some(header.name), state: Phase::Ended, exit })
}

fn told(row: &Row) -> String {
    let name = row.name.as_ref().map_or_else(String::new, |name| format!("{name} "));
    match &row.exit {
        Some(exit) => format!("{name}({}) has ended with {}\n", row.id, exit.shell_status()),
        None => format!("{name}({}) has ended\n", row.id),
    }
}
