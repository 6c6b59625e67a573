//! Whatever is asked of an instance in whatever order, its backend is called only as its traits
//! promise, the journal is a walk through the table, and nothing that was created is left.
// Test helpers fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::{Event, Instance, Journal, Mark, Phase};
use moat_core::sandbox::{Exit, ExitStatus};
use moat_core::spec::Signal;
use moat_core::workload::{Pause, Plan, Step, Workload};
use proptest::prelude::*;

/// What the fake backend was asked, and what the journal was told.
#[derive(Debug, Default)]
struct Log {
    calls: Vec<&'static str>,
    marks: Vec<Mark>,
    forgotten: bool,
}

type Shared = Arc<Mutex<Log>>;

/// At which calls the fake fails.
#[derive(Debug, Clone, Copy, Default)]
struct Failing {
    create: bool,
    start: bool,
    wait: bool,
    /// From the journal's n-th record on.
    journal_after: Option<usize>,
}

#[derive(Debug)]
struct Fake {
    log: Shared,
    failing: Failing,
}

impl Fake {
    fn call(&self, name: &'static str, fails: bool) -> Result<(), Fault> {
        self.log.lock().unwrap().calls.push(name);
        if fails { Err(Fault::new(Code::Container, name)) } else { Ok(()) }
    }
}

impl Plan for Fake {
    fn steps(&self) -> Vec<Step> {
        Vec::new()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn create(self: Box<Self>, _dir: &Path) -> Result<Box<dyn Workload>, Fault> {
        self.call("create", self.failing.create)?;
        Ok(self)
    }
}

impl Workload for Fake {
    fn start(&mut self) -> Result<u32, Fault> {
        self.call("start", self.failing.start).map(|()| 7)
    }

    fn signal(&mut self, _signal: Signal) -> Result<(), Fault> {
        self.call("signal", false)
    }

    fn wait(
        &mut self,
        _: Option<BorrowedFd<'_>>,
        _: Option<Duration>,
    ) -> Result<Option<Exit>, Fault> {
        self.call("wait", self.failing.wait)?;
        Ok(Some(Exit { status: ExitStatus::Code(3), oom: false }))
    }

    fn destroy(self: Box<Self>) -> Result<(), Fault> {
        self.call("destroy", false)
    }

    fn pause(&mut self) -> Option<&mut dyn Pause> {
        Some(self)
    }
}

impl Pause for Fake {
    fn pause(&mut self) -> Result<(), Fault> {
        self.call("pause", false)
    }

    fn resume(&mut self) -> Result<(), Fault> {
        self.call("resume", false)
    }
}

struct Memory {
    log: Shared,
    failing_after: Option<usize>,
}

impl Journal for Memory {
    fn dir(&self) -> &Path {
        Path::new("/")
    }

    fn record(&mut self, mark: Mark) -> Result<(), Fault> {
        let mut log = self.log.lock().unwrap();
        if self.failing_after.is_some_and(|after| log.marks.len() >= after) {
            return Err(Fault::new(Code::State, "no space left"));
        }
        log.marks.push(mark);
        Ok(())
    }

    fn forget(self) -> Result<(), Fault> {
        self.log.lock().unwrap().forgotten = true;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Start,
    Stop,
    Signal,
    Wait,
    Pause,
    Resume,
}

/// Lives a whole life: creates, asks, and destroys what was created.
fn live(asks: &[Ask], failing: Failing) -> Log {
    let log = Shared::default();
    let journal = Memory { log: Arc::clone(&log), failing_after: failing.journal_after };
    let plan = Box::new(Fake { log: Arc::clone(&log), failing });
    if let Ok(mut instance) = Instance::create(journal, plan) {
        for ask in asks {
            // A refusal is an answer; what matters is what reached the backend.
            let _ = match ask {
                Ask::Start => instance.start(),
                Ask::Stop => instance.stop(Signal::TERM),
                Ask::Signal => instance.signal(Signal::INT),
                Ask::Wait => instance.wait(None, None).map(drop),
                Ask::Pause => instance.pause().map(drop),
                Ask::Resume => instance.resume().map(drop),
            };
        }
        let _ = instance.destroy().and_then(Journal::forget);
    }
    Arc::try_unwrap(log).unwrap().into_inner().unwrap()
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let all = [Ask::Start, Ask::Stop, Ask::Signal, Ask::Wait, Ask::Pause, Ask::Resume];
    prop::collection::vec(prop::sample::select(all.to_vec()), 0..12)
}

fn failing() -> impl Strategy<Value = Failing> {
    let journal = prop::option::weighted(0.3, 0usize..8);
    (any::<bool>(), any::<bool>(), any::<bool>(), journal).prop_map(
        |(create, start, wait, journal_after)| Failing { create, start, wait, journal_after },
    )
}

proptest! {
    #[test]
    fn a_backend_is_called_only_as_promised(asks in asks(), failing in failing()) {
        let log = live(&asks, failing);
        let count = |name| log.calls.iter().filter(|call| **call == name).count();
        let created = count("create") == 1 && !failing.create;
        prop_assert!(count("create") <= 1 && count("start") <= 1);
        prop_assert_eq!(count("destroy"), usize::from(created), "{:?}", log.calls);
        let started = log.calls.iter().position(|call| *call == "start");
        for (at, call) in log.calls.iter().enumerate() {
            if matches!(*call, "signal" | "wait" | "pause" | "resume") {
                prop_assert!(started.is_some_and(|start| start < at && !failing.start), "{:?}", log.calls);
            }
        }
        prop_assert!(log.forgotten, "what could not be made, or is gone, is still on record");
        prop_assert!(!created || log.calls.last() == Some(&"destroy"));
    }

    #[test]
    fn the_journal_is_a_walk_through_the_table(asks in asks(), failing in failing()) {
        let phases: Vec<Phase> = live(&asks, failing).marks.iter().map(|mark| mark.phase).collect();
        let events = [
            Event::Created, Event::Start, Event::Started, Event::Pause, Event::Resume, Event::Stop,
            Event::Exited, Event::Failed, Event::Destroy, Event::Destroyed,
        ];
        prop_assert!(phases.first().is_none_or(|first| *first == Phase::Creating));
        for pair in phases.windows(2) {
            let reachable = events.iter().any(|event| pair[0].next(*event) == Some(pair[1]));
            prop_assert!(reachable, "{:?} -> {:?} is not in the table", pair[0], pair[1]);
        }
    }
}

#[test]
fn an_undisturbed_life_is_written_down_whole() {
    let log = live(&[Ask::Start, Ask::Pause, Ask::Stop, Ask::Wait], Failing::default());
    let phases: Vec<Phase> = log.marks.iter().map(|mark| mark.phase).collect();
    assert_eq!(phases, Phase::ALL);
    let end = log.marks.last().unwrap();
    assert_eq!(end.pid, Some(7));
    assert_eq!(end.exit.unwrap().status, ExitStatus::Code(3));
}

#[test]
fn what_is_paused_is_asked_to_end_and_then_goes_on_to_do_so() {
    let asks = [Ask::Start, Ask::Pause, Ask::Pause, Ask::Stop, Ask::Pause, Ask::Wait];
    let log = live(&asks, Failing::default());
    let calls = ["create", "start", "pause", "signal", "resume", "wait", "destroy"];
    assert_eq!(log.calls, calls);
}

#[test]
fn a_pause_that_can_not_be_written_down_is_taken_back() {
    // Creating, Created, Starting, Running.
    let failing = Failing { journal_after: Some(4), ..Failing::default() };
    let log = live(&[Ask::Start, Ask::Pause], failing);
    assert_eq!(log.calls, ["create", "start", "pause", "resume", "destroy"]);
}

#[test]
fn a_phase_is_shown_as_it_is_on_record() {
    for phase in Phase::ALL {
        let text = serde_json::to_string(&phase).unwrap();
        assert_eq!(text, format!("{:?}", phase.as_str()));
    }
}

#[test]
fn every_phase_but_the_last_can_be_left_and_leads_to_the_end() {
    for phase in Phase::ALL {
        let failed = phase.next(Event::Failed).unwrap_or(phase);
        let end = failed.next(Event::Destroy).and_then(|phase| phase.next(Event::Destroyed));
        let past = matches!(phase, Phase::Destroying | Phase::Destroyed);
        assert_eq!(end == Some(Phase::Destroyed), !past, "{phase:?}");
    }
}
