//! A workload in the background: a process of its own is its monitor, which has left the terminal
//! when the command ends.
//!
//! ```text
//! moat run -d ─ fork ─▶ monitor: creates, starts ─ "it runs", or the fault ─▶ the command, which
//!                         │                                                    says so and ends
//!                         ▼
//!                       watches, keeps what is written, writes down the end
//! ```
//! Until it was told that the workload runs, nothing of it stays: a command that was interrupted
//! takes it along.

use std::os::fd::OwnedFd;

use jiff::Timestamp;
use moat_core::control::{Failure as Told, Reply};
use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::{Instance, Journal};
use moat_core::policy::Approved;
use moat_core::sandbox::{Exit, TerminalSize};
use moat_core::spec::{Name, Resolved};
use moat_core::workload::Plan;
use moat_host::kept::{Effective, Identity, KeptJournal};
use moat_host::process::ProcessId;
use moat_host::socket::{Connection, Incoming};
use moat_host::state::Header;
use serde_json::json;

use crate::Failure;
use crate::capture::Capture;
use crate::detach::{self, Side, Streams};
use crate::host::Host;
use crate::instance::misunderstood;
use crate::monitor::{Monitor, Signals};
use crate::output::Output;

/// The size of a terminal that nobody looks at.
const TERMINAL: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// What is to be started.
pub(crate) struct Order<'a> {
    pub(crate) host: &'a Host,
    pub(crate) approved: &'a Approved,
    pub(crate) header: Header,
    pub(crate) plan: Box<dyn Plan>,
    /// Whether nothing is kept of it after its end.
    pub(crate) removed_at_end: bool,
}

/// The terminal that a workload in the background gets: none, unless its spec says so.
pub(crate) fn terminal_for(workload: &Resolved) -> Option<TerminalSize> {
    (workload.tty == Some(true)).then_some(TERMINAL)
}

/// Starts it, and says which it is.
pub(crate) fn start(output: Output, order: Order<'_>, project: Name) -> Result<u8, Failure> {
    let (ours, theirs) = Connection::pair().map_err(misunderstood)?;
    let forked = detach::begin().map_err(|errno| {
        Fault::new(Code::State, "no process can be made for the background")
            .hint("see that this user may have more processes: `ulimit -u`")
            .because(errno)
    })?;
    match forked {
        Side::Command => {
            drop(theirs);
            heard(ours)?;
            let Header { id, name, .. } = &order.header;
            output
                .result(&json!({ "id": id, "name": name, "project": project }), |_| id.clone())?;
            Ok(0)
        }
        Side::Stays => {
            drop(ours);
            let identity = identity(&order, project);
            Ok(stay(output, order, &identity, &theirs))
        }
    }
}

/// Waits until the workload runs.
fn heard(mut line: Connection) -> Result<(), Fault> {
    match line.receive().map_err(misunderstood)? {
        Incoming::Message(Reply::Started, _) => Ok(()),
        Incoming::Message(Reply::Failed(failure), _) => Err(failure.into()),
        _ => Err(Fault::new(Code::State, "the moat in the background was killed")
            .hint("not by moat: `dmesg` tells whether this host ran out of memory")),
    }
}

fn identity(order: &Order<'_>, project: Name) -> Identity {
    let header = &order.header;
    Identity {
        id: header.id.clone(),
        name: header.name.clone(),
        project,
        created: Timestamp::now(),
        removed_at_end: order.removed_at_end,
        requested: order.approved.workload().clone(),
        decided: header.decision.clone(),
        effective: Effective {
            backend: header.backend.clone(),
            steps: order.plan.steps(),
            warnings: order.plan.warnings(),
        },
    }
}

/// The monitor's life.
fn stay(output: Output, order: Order<'_>, identity: &Identity, line: &Connection) -> u8 {
    let removed_at_end = order.removed_at_end;
    let workload = order.approved.workload();
    let running = match Running::begin(output, order, identity) {
        Ok(running) => running,
        Err(fault) => {
            // The command may be gone.
            let _ = line.send(&Reply::Failed(Told::from(&fault)), &[]);
            return fault.code.exit_status();
        }
    };
    // What is said from here on nobody hears.
    match line.send(&Reply::Started, &[]) {
        Ok(()) => running.watch(workload, removed_at_end),
        Err(_) => {
            let _ = running.instance.destroy().and_then(Journal::forget);
        }
    }
    0
}

/// A workload that was started.
struct Running {
    instance: Instance<KeptJournal>,
    signals: Signals,
    capture: Capture,
    /// The other end of its stdin, where it has a terminal: that ends with its stdin.
    _input: Option<OwnedFd>,
}

impl Running {
    /// Creates and starts it. When a step fails, nothing is left.
    fn begin(output: Output, order: Order<'_>, identity: &Identity) -> Result<Self, Fault> {
        let Order { host, approved, mut header, plan, .. } = order;
        let signals = Signals::hold()?;
        header.monitor = ProcessId::own().unwrap_or(header.monitor);
        let keeper = host.shelf.begin(identity)?;
        let kept = keeper.dir().to_owned();
        let journal = match host.store.begin(&header) {
            Ok(run) => KeptJournal::new(run, keeper),
            Err(error) => {
                let _ = keeper.forget();
                return Err(error.into());
            }
        };
        let failed = |error| Fault::new(Code::State, "its output can't be kept").because(error);
        let opened = Capture::open(&kept).and_then(|(capture, ends)| {
            let own = Streams::current()?;
            let (streams, input) = streams(ends, approved.workload())?;
            streams.put()?;
            Ok((capture, own, input))
        });
        let (capture, own, input) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = journal.forget();
                return Err(failed(error));
            }
        };
        let created = Instance::create(journal, plan);
        // The ends of the workload's streams are its alone now.
        let put_back = own.put().map_err(failed);
        let mut instance = created?;
        for warning in instance.warnings() {
            output.warn(&warning);
        }
        let nowhere = || Streams::nowhere().and_then(|nowhere| nowhere.put()).map_err(failed);
        match put_back.and_then(|()| instance.start()).and_then(|()| nowhere()) {
            Ok(()) => Ok(Self { instance, signals, capture, _input: input }),
            Err(fault) => {
                let _ = instance.destroy().and_then(Journal::forget);
                Err(fault)
            }
        }
    }

    /// Waits for its end, and writes that down.
    fn watch(mut self, workload: &Resolved, removed_at_end: bool) {
        let dir = self.instance.dir().to_owned();
        let opened = Monitor::open(workload, self.signals, &dir, Some(self.capture));
        let (mut monitor, outcome) = match opened {
            Ok(mut monitor) => {
                let outcome = monitor.watch(&mut self.instance);
                (Some(monitor), outcome)
            }
            Err(fault) => (None, Err(fault)),
        };
        let output_lost =
            monitor.as_mut().is_some_and(|monitor| monitor.control().finish_capture());
        let told = settle(self.instance, &outcome, removed_at_end, output_lost);
        if let Some(monitor) = &mut monitor {
            monitor
                .control()
                .tell_end(outcome.as_ref().map_err(|fault| told.as_ref().unwrap_or(fault)));
        }
    }
}

/// Clears up after it, and leaves what is to be kept. Gives what went wrong last, if anything did.
fn settle(
    instance: Instance<KeptJournal>,
    outcome: &Result<Exit, Fault>,
    removed_at_end: bool,
    output_lost: bool,
) -> Option<Fault> {
    let journal = match instance.destroy() {
        Ok(journal) => journal,
        Err(fault) => return Some(fault),
    };
    let (forgotten, keeper) = journal.apart();
    let fault = outcome.as_ref().err().or(forgotten.as_ref().err());
    let kept = match removed_at_end {
        true => keeper.forget(),
        false => keeper.end(fault, output_lost),
    };
    forgotten.err().or(kept.err().map(Fault::from))
}

/// What become the workload's stdin, stdout and stderr.
fn streams(
    [output, errors]: [OwnedFd; 2],
    workload: &Resolved,
) -> std::io::Result<(Streams, Option<OwnedFd>)> {
    let streams = Streams { output, errors, ..Streams::nowhere()? };
    if terminal_for(workload).is_none() {
        return Ok((streams, None));
    }
    let (input, held) = std::io::pipe()?;
    Ok((Streams { input: input.into(), ..streams }, Some(held.into())))
}
