//! `moat inspect`

use jiff::Timestamp;
use moat_core::lifecycle::Phase;
use moat_core::policy::Decision;
use moat_core::sandbox::Exit;
use moat_core::spec::{Isolation, Name, Resolved};
use moat_host::kept::Effective;
use serde::Serialize;

use crate::Failure;
use crate::args::Named;
use crate::host::Host;
use crate::known::{self, Known};
use crate::output::Output;

/// All that is known. What moat does not keep of a workload in the foreground is `null`.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    name: Option<Name>,
    project: Option<Name>,
    isolation: Option<Isolation>,
    state: Phase,
    /// The process that stands for it on the host, while there is one.
    pid: Option<u32>,
    /// The moat that runs it, while it lives.
    monitor: Option<u32>,
    created: Option<Timestamp>,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    exit: Option<Exit>,
    /// The status that `moat wait` gives.
    status: Option<u8>,
    restarts: u32,
    /// Why it was lost, or what could not be cleared.
    fault: Option<String>,
    /// Whether some of its output could not be kept.
    output_lost: bool,
    /// Where its log and records are.
    directory: Option<std::path::PathBuf>,
    requested: Option<Resolved>,
    decided: Option<Decision>,
    effective: Option<Effective>,
}

/// Tells all that is known of a workload; it is JSON in either format.
pub(crate) fn inspect(output: Output, args: &Named) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let known = known::find(&host, &args.name, args.project.as_ref())?;
    output.json(&told(known))?;
    Ok(0)
}

fn told(known: Known) -> Told {
    let (directory, identity, state) = match known.kept {
        Some(kept) => (Some(kept.dir), kept.identity, kept.state),
        None => (None, None, None),
    };
    let header = known.running.map(|(_, header)| header);
    let of_state = state.as_ref();
    let exit = of_state.and_then(|state| state.exit);
    let (created, requested, decided, effective) = match identity {
        Some(one) => {
            (Some(one.created), Some(one.requested), Some(one.decided), Some(one.effective))
        }
        None => (None, None, header.as_ref().map(|header| header.decision.clone()), None),
    };
    Told {
        id: known.id,
        name: known.name,
        project: known.project,
        isolation: known.isolation,
        state: known.phase,
        pid: known.pid,
        monitor: header.map(|header| header.monitor.pid),
        created,
        started: of_state.and_then(|state| state.started),
        ended: of_state.and_then(|state| state.ended),
        exit,
        status: exit.map(|exit| exit.shell_status()),
        restarts: of_state.map_or(0, |state| state.restarts),
        fault: of_state.and_then(|state| state.fault.clone()),
        output_lost: of_state.is_some_and(|state| state.output_lost),
        directory,
        requested,
        decided,
        effective,
    }
}
