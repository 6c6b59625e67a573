//! This program as a container's monitor: `MOAT_TEST_WORKLOAD` holds a workload as JSON,
//! `MOAT_TEST_DIR` an instance's directory.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use moat_container::Container;
use moat_core::diagnose::Fault;
use moat_core::policy::{Approved, Facts, builtin, decide};
use moat_core::sandbox::{Exit, ExitStatus, TerminalSize};
use moat_core::spec::{Bytes, Isolation, Resolved, Signal};
use moat_core::workload::Backend;

use crate::orders;

pub(crate) fn approved(workload: &Resolved) -> Approved {
    let facts = Facts {
        container: Vec::new(),
        vm: vec![moat_core::diagnose::Missing { what: "x".into(), hint: "x".into() }],
        memory: Bytes::gib(64),
        committed_memory: Bytes::new(0),
    };
    let approved = decide(&builtin("dev").unwrap(), workload, &facts).unwrap();
    assert_eq!(approved.decision().isolation, Isolation::Container);
    approved
}

pub(crate) fn be_one_if_asked() -> Option<ExitCode> {
    let workload = std::env::var("MOAT_TEST_WORKLOAD").ok()?;
    let dir = std::env::var_os("MOAT_TEST_DIR").unwrap();
    let workload: Resolved = serde_json::from_str(&workload).unwrap();
    if std::env::var_os("MOAT_TEST_PROBE").is_some() {
        let checks = Container::new().probe();
        println!("{}", serde_json::to_string(&checks).unwrap());
        return Some(ExitCode::SUCCESS);
    }
    let status = match run(&workload, Path::new(&dir)) {
        Ok(exit) => {
            if exit.oom {
                eprintln!("oom");
            }
            exit.shell_status()
        }
        Err(fault) => {
            eprintln!("error[{}]: {fault}", fault.code);
            let mut source = std::error::Error::source(&fault);
            while let Some(error) = source {
                eprintln!("caused by: {error}");
                source = error.source();
            }
            if let Some(hint) = &fault.hint {
                eprintln!("hint: {hint}");
            }
            fault.code.exit_status()
        }
    };
    Some(ExitCode::from(status))
}

fn terminal() -> Option<TerminalSize> {
    let text = std::env::var("MOAT_TEST_TERMINAL").ok()?;
    let (columns, rows) = text.split_once('x').unwrap();
    Some(TerminalSize { columns: columns.parse().unwrap(), rows: rows.parse().unwrap() })
}

fn run(workload: &Resolved, dir: &Path) -> Result<Exit, Fault> {
    let container = Container::new();
    let plan = container.plan(&approved(workload), terminal())?;
    if std::env::var_os("MOAT_TEST_STEPS").is_some() {
        for step in plan.steps() {
            println!("{}: {}", step.action, step.detail);
        }
    }
    let mut created = plan.create(dir)?;
    for warning in created.warnings() {
        eprintln!("{warning}");
    }
    let started = created.start();
    if let Err(fault) = started {
        created.destroy()?;
        return Err(fault);
    }
    // `MILLISECONDS SIGNAL`: sent then.
    if let Ok(order) = std::env::var("MOAT_TEST_SIGNAL") {
        let (after, signal) = order.split_once(' ').unwrap();
        let after = Duration::from_millis(after.parse().unwrap());
        assert_eq!(created.wait(None, Some(after))?, None, "it ended before the signal");
        created.signal(Signal::from_number(signal.parse().unwrap()).unwrap())?;
    }
    if let Ok(size) = std::env::var("MOAT_TEST_RESIZE") {
        let (columns, rows) = size.split_once('x').unwrap();
        created.wait(None, Some(Duration::from_millis(300)))?;
        let size = TerminalSize { columns: columns.parse().unwrap(), rows: rows.parse().unwrap() };
        created.terminal().unwrap().resize(size)?;
    }
    match orders::carry_out(created.as_mut(), dir) {
        Ok(true) => {}
        Ok(false) => {
            created.destroy()?;
            return Ok(Exit { status: ExitStatus::Code(0), oom: false });
        }
        Err(fault) => {
            created.destroy()?;
            return Err(fault);
        }
    }
    let exit = created.wait(None, None)?.unwrap();
    assert_eq!(created.wait(None, None)?, Some(exit), "the same exit once there is one");
    created.destroy()?;
    Ok(exit)
}
