//! `moat wait`

use std::thread::sleep;
use std::time::Duration;

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::Exit;
use serde_json::json;

use crate::Failure;
use crate::args::Named;
use crate::host::Host;
use crate::output::Output;
use crate::{instance, known};

/// How soon is looked again at what is about to begin or to end.
const SOON: Duration = Duration::from_millis(5);

/// Waits for a workload's end, prints its status and ends with it.
pub(crate) fn wait(output: Output, args: &Named) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let known = known::find(&host, &args.name, args.project.as_ref())?;
    let exit = end(&host, &known.id)?;
    let status = exit.shell_status();
    let (id, name) = (&known.id, &known.name);
    let value = json!({ "id": id, "name": name, "status": status, "exit": exit });
    output.result(&value, |_| status.to_string())?;
    Ok(status)
}

/// How an instance has ended, once it has.
fn end(host: &Host, id: &str) -> Result<Exit, Fault> {
    loop {
        let known = known::find(host, id, None)?;
        if !known.lives() {
            let state = known.kept.and_then(|kept| kept.state);
            let (exit, fault) = state.map_or((None, None), |state| (state.exit, state.fault));
            return exit.ok_or_else(|| lost(id, fault));
        }
        let attended = match instance::connect(&host.store, id) {
            Ok(mut connection) => instance::attend_end(&mut connection, &[]),
            Err(fault) => Err(fault),
        };
        match attended {
            Ok(Some(exit)) => return Ok(exit),
            // It has just ended, or was killed: what is kept of it tells.
            Ok(None) => {}
            Err(fault) if fault.code == Code::NotRunning => {}
            Err(fault) => return Err(fault),
        }
        sleep(SOON);
    }
}

fn lost(id: &str, fault: Option<String>) -> Fault {
    let lost = Fault::new(Code::State, format!("how {id} has ended is not known"));
    match fault {
        Some(reason) => lost.because(std::io::Error::other(reason)),
        None => lost.hint("its moat was killed, and the workload with it"),
    }
}
