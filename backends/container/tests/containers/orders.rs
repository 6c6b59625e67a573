//! What a monitor of the tests does with its workload once it runs: `MOAT_TEST_ORDERS`, a list of
//! orders with `;` between them. What they find out is said on stderr.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use moat_core::diagnose::Fault;
use moat_core::sandbox::Process;
use moat_core::spec::Signal;
use moat_core::workload::{SessionEvent, Workload};

/// Carries them out; false when the workload is to be destroyed without waiting for its end.
pub(crate) fn carry_out(created: &mut dyn Workload, dir: &Path) -> Result<bool, Fault> {
    let Ok(orders) = std::env::var("MOAT_TEST_ORDERS") else { return Ok(true) };
    let mut seen = 0;
    for order in orders.split(';').map(str::trim) {
        let (verb, argument) = order.split_once(' ').unwrap_or((order, ""));
        match verb {
            // Milliseconds.
            "wait" => {
                let limit = Duration::from_millis(argument.parse().unwrap());
                assert_eq!(created.wait(None, Some(limit))?, None, "it ended before {orders}");
            }
            "pause" => created.pause().unwrap().pause()?,
            "resume" => created.pause().unwrap().resume()?,
            "signal" => {
                created.signal(Signal::from_number(argument.parse().unwrap()).unwrap())?;
            }
            "stats" => {
                let stats = created.stats().unwrap();
                stats.ask()?;
                let figures = stats.next().unwrap()?;
                eprintln!("stats {}", serde_json::to_string(&figures).unwrap());
            }
            "abandon" => abandon(created, argument)?,
            // The length of a file.
            "length" => {
                seen = length(argument);
                eprintln!("length {seen}");
            }
            // Until a file is longer than it was when it was last looked at.
            "grow" => {
                let began = Instant::now();
                while length(argument) <= seen {
                    let limit = Some(Duration::from_millis(5));
                    assert_eq!(created.wait(None, limit)?, None, "it ended before {orders}");
                    assert!(began.elapsed().as_secs() < 60, "{argument} does not grow");
                }
            }
            // A file of the group, in whatever tree it is.
            "show" => eprintln!("{argument}: {}", group_file(dir, argument)),
            "destroy" => return Ok(false),
            "hang" => {
                eprintln!("hanging");
                loop {
                    std::thread::park();
                }
            }
            _ => panic!("no such order: {order}"),
        }
    }
    Ok(true)
}

/// 0 where there is none yet.
fn length(file: &str) -> u64 {
    std::fs::metadata(file).map_or(0, |found| found.len())
}

fn group_file(dir: &Path, name: &str) -> String {
    let group = dir.file_name().unwrap();
    let files = crate::run::groups().into_iter().map(|parent| parent.join(group).join(name));
    let found = files.filter_map(|file| std::fs::read_to_string(file).ok()).next();
    found.unwrap_or_else(|| "not there".to_owned()).trim().replace('\n', ", ")
}

/// Begins a further process that makes this file, and gives it up before it can be the command.
fn abandon(created: &mut dyn Workload, file: &str) -> Result<(), Fault> {
    let exec = created.exec().unwrap();
    let argv = vec!["touch".to_owned(), file.to_owned()];
    let process = Process { argv, terminal: None, ..exec.own().clone() };
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let session = exec.exec(&process, Some([null(), null(), null()]))?;
    exec.abandon(session)?;
    loop {
        assert_eq!(created.wait(None, Some(Duration::from_secs(60)))?, None, "it ended");
        match created.exec().unwrap().next() {
            Some((of, SessionEvent::Failed(_))) if of == session => return Ok(()),
            None => {}
            other => panic!("{other:?}"),
        }
    }
}
