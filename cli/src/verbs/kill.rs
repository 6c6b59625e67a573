//! `moat kill`

use moat_core::control::{Reply, Request};
use serde_json::json;

use crate::Failure;
use crate::args::Kill;
use crate::host::Host;
use crate::instance;
use crate::output::Output;

/// Sends a signal to the processes of running workloads, and waits for nothing.
pub(crate) fn kill(output: Output, args: &Kill) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let mut told = Vec::new();
    for name in &args.named.names {
        let project = args.named.project.as_ref();
        let (_, header) = instance::find(&host.store, name, project)?;
        let mut connection = instance::connect(&host.store, &header.id)?;
        match instance::ask(&mut connection, &Request::Kill(args.signal))? {
            Reply::Done => {}
            _ => return Err(instance::unexpected().into()),
        }
        told.push(json!({ "id": header.id, "name": header.name, "signal": args.signal }));
    }
    // Nothing to see for people, as with kill(1).
    output.outcome(&told)?;
    Ok(0)
}
