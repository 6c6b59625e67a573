//! `moat run`

use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::{Instance, Journal};
use moat_core::policy::{Approved, decide};
use moat_core::sandbox::Exit;
use moat_core::spec::{Isolation, Name};
use moat_core::workload::{Plan, Step};
use moat_host::machine;
use moat_host::process::ProcessId;
use moat_host::state::Header;

use crate::args::Run;
use crate::background::{self, Order};
use crate::host::Host;
use crate::monitor::{Monitor, Signals};
use crate::output::Output;
use crate::verbs::kernel;
use crate::{Failure, decision, select, stdio};

/// Runs one workload to its end and gives its status.
pub(crate) fn run(output: Output, args: &Run) -> Result<u8, Failure> {
    stdio::check()?;
    let policy = select::policy(&args.selection)?;
    let workload = select::one(&args.selection, &args.command)?;
    let host = Host::open()?;
    host.sweep(output)?;
    let approved = decide(&policy, &workload, &host.facts(&policy)?).map_err(Fault::from)?;
    tell(output, &approved);
    if approved.decision().isolation == Isolation::Vm && !args.dry_run {
        kernel::ensure(output, &host, workload.vm.kernel.as_deref(), args.offline)?;
    }
    let backend = host.backend(approved.decision().isolation);
    let terminal = match args.detach {
        true => background::terminal_for(&workload),
        false => stdio::terminal_for(&workload)?,
    };
    let plan = backend.plan(&approved, terminal)?;
    for warning in plan.warnings().into_iter().chain(decision::warnings(&workload)) {
        output.warn(&warning);
    }
    if args.dry_run {
        output.result(&plan.steps(), |steps| numbered(steps))?;
        return Ok(0);
    }
    if args.detach {
        let project = match &args.project {
            Some(project) => project.clone(),
            None => select::project(&args.selection)?,
        };
        let header = header(&approved, backend.name(), Some(project.clone()))?;
        let order =
            Order { host: &host, approved: &approved, header, plan, removed_at_end: args.rm };
        return background::start(output, order, project);
    }
    let exit = carry_out(output, &host, &approved, backend.name(), plan)?;
    if exit.oom {
        output.warn(&format!(
            "{}: the memory limit of {} was reached, and the kernel killed what was over it",
            workload.name, workload.resources.memory
        ));
    }
    Ok(exit.shell_status())
}

fn tell(output: Output, approved: &Approved) {
    let decision = approved.decision();
    for warning in &decision.warnings {
        output.warn(warning);
    }
    output.note(&decision::line(decision), || decision::fields(decision));
}

fn numbered(steps: &[Step]) -> String {
    let lines = steps.iter().zip(1..);
    lines.map(|(step, number)| format!("{number:>3}  {}: {}\n", step.action, step.detail)).collect()
}

fn carry_out(
    output: Output,
    host: &Host,
    approved: &Approved,
    backend: &str,
    plan: Box<dyn Plan>,
) -> Result<Exit, Fault> {
    let workload = approved.workload();
    let signals = Signals::hold()?;
    let journal = host.store.begin(&header(approved, backend, None)?)?;
    let dir = journal.dir().to_owned();
    let mut instance = Instance::create(journal, plan)?;
    for warning in instance.warnings() {
        output.warn(&warning);
    }
    let started = instance.start().and_then(|()| Monitor::open(workload, signals, &dir, None));
    let watched = started.map(|mut monitor| {
        let outcome = monitor.watch(&mut instance);
        (monitor, outcome)
    });
    let destroyed = instance.destroy().and_then(Journal::forget);
    let (mut monitor, outcome) = watched?;
    monitor.control().tell_end(outcome.as_ref());
    let exit = outcome?;
    destroyed?;
    Ok(exit)
}

fn header(approved: &Approved, backend: &str, project: Option<Name>) -> Result<Header, Fault> {
    let lost = |what: &str| Fault::new(Code::State, what.to_owned());
    let id = machine::random::<6>().map_err(|error| lost("no id can be made").because(error))?;
    Ok(Header {
        id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        name: approved.workload().name.clone(),
        project,
        backend: backend.to_owned(),
        monitor: ProcessId::own().ok_or_else(|| {
            lost("/proc/self/stat can't be read").hint("see that /proc is mounted")
        })?,
        memory: approved.workload().resources.memory,
        decision: approved.decision().clone(),
    })
}
