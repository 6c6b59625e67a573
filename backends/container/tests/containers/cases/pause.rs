//! All processes stopped for a while, and what a workload uses.

use std::time::{Duration, Instant};

use moat_container::Container;
use moat_core::spec::{Bytes, Propagation, Volume, VolumeSource};
use moat_core::workload::{Backend, Figures};

use super::Named;
use crate::run::{Case, Outcome, eventually, is_running};

pub(super) const CASES: &[Named] = &[
    ("a paused container stands still, and goes on", paused),
    ("a container can be paused again and again", often),
    ("a paused container can be destroyed", destroyed),
    ("a signal to a paused container is taken when it goes on", signalled),
    ("what a paused container has left can be removed", killed_monitor),
    ("figures are what the workload uses", figures_of_a_hog),
    ("the time of children that have ended is counted", children),
    ("without a cgroup there are no figures", no_figures),
];

/// Two processes that fork without end and each write a byte into a file for it.
const COUNTING: &str = "while :; do /bin/true; printf x >> /v/count; done & \
    while :; do /bin/true; printf x >> /v/count; done";

fn counting(init: bool) -> (Case, String) {
    with_count(Case::shell(COUNTING).with(|workload| workload.init = init))
}

/// With a file /v/count, and its path outside.
fn with_count(case: Case) -> (Case, String) {
    let dir = case.dir.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    let count = dir.join("count");
    std::fs::write(&count, "").unwrap();
    let case = case.with(|workload| {
        let source = VolumeSource::Bind(dir);
        let (target, propagation) = ("/v".parse().unwrap(), Propagation::Private);
        workload.volumes.push(Volume { source, target, read_only: false, propagation });
    });
    (case, count.to_str().unwrap().to_owned())
}

fn lengths(outcome: &Outcome) -> Vec<u64> {
    let lines = outcome.err.lines().filter_map(|line| line.strip_prefix("length "));
    lines.map(|length| length.parse().unwrap()).collect()
}

pub(super) fn figures(outcome: &Outcome) -> Vec<Figures> {
    let lines = outcome.err.lines().filter_map(|line| line.strip_prefix("stats "));
    let figures: Vec<_> = lines.map(|text| serde_json::from_str(text).unwrap()).collect();
    assert!(!figures.is_empty(), "{outcome:?}");
    figures
}

fn paused() {
    for init in [true, false] {
        let (case, count) = counting(init);
        let orders = format!(
            "grow {count}; pause; length {count}; wait 500; length {count}; resume; \
             grow {count}; length {count}; destroy"
        );
        let outcome = case.var("MOAT_TEST_ORDERS", &orders).run();
        outcome.ends_with(0);
        let [before, during, after] = lengths(&outcome)[..] else { panic!("{outcome:?}") };
        assert!(before > 0 && before == during && during < after, "{outcome:?}");
    }
}

fn often() {
    let (case, count) = counting(true);
    let once = format!("pause; length {count}; wait 20; length {count}; resume; grow {count}; ");
    let orders = format!("grow {count}; {}pause; pause; resume; resume; destroy", once.repeat(20));
    let outcome = case.var("MOAT_TEST_ORDERS", &orders).run();
    outcome.ends_with(0);
    let lengths = lengths(&outcome);
    assert_eq!(lengths.len(), 40);
    for pair in lengths.chunks(2) {
        assert_eq!(pair[0], pair[1], "it went on while it was paused: {lengths:?}");
    }
    assert!(lengths[0] < lengths[39], "it did not go on in between: {lengths:?}");
}

fn destroyed() {
    let mark = format!("sleep 51{}", std::process::id());
    for init in [true, false] {
        let case = Case::host(&mark.split(' ').collect::<Vec<_>>());
        let case = case.with(|workload| workload.init = init);
        let began = Instant::now();
        case.var("MOAT_TEST_ORDERS", "wait 200; pause; destroy").run().ends_with(0);
        assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
        assert!(!is_running(&mark));
    }
}

fn signalled() {
    let script = "trap 'echo heard; exit 4' TERM; while :; do sleep 0.05; done";
    for init in [true, false] {
        let case = Case::shell(script).with(|workload| workload.init = init);
        let orders = "wait 300; pause; signal 15; wait 300; resume";
        case.var("MOAT_TEST_ORDERS", orders).run().ends_with(4);
    }
}

fn killed_monitor() {
    let mark = format!("sleep 52{}", std::process::id());
    for init in [true, false] {
        let case = Case::host(&mark.split(' ').collect::<Vec<_>>());
        let case = case.with(|workload| workload.init = init);
        let case = case.var("MOAT_TEST_ORDERS", "wait 200; pause; hang");
        let mut monitor = case.spawn();
        let mut said = String::new();
        let mut stderr = std::io::BufReader::new(monitor.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut stderr, &mut said).unwrap();
        assert_eq!(said, "hanging\n");
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        let began = Instant::now();
        Container::new().attach(&case.instance()).unwrap().destroy().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
        eventually("the workload is gone", || !is_running(&mark));
        case.assert_nothing_left();
    }
}

fn figures_of_a_hog() {
    let script = "import time\nx = bytearray(64 << 20)\nb = time.process_time()\n\
        while time.process_time() < b + 0.5: pass\nopen('/v/count', 'w').write('x')\n\
        time.sleep(600)";
    let case = Case::host(&["python3", "-c", script]);
    let case = case.with(|workload| {
        workload.resources.memory = Bytes::mib(256);
        workload.resources.pids = 77;
    });
    let (case, count) = with_count(case);
    let orders = format!("grow {count}; stats; destroy");
    let outcome = case.var("MOAT_TEST_ORDERS", &orders).run();
    let figures = figures(&outcome)[0];
    let cpu = figures.cpu.unwrap();
    // Starting python takes its time in the bed.
    assert!((Duration::from_millis(450)..Duration::from_secs(20)).contains(&cpu), "{figures:?}");
    assert!((Bytes::mib(64)..Bytes::mib(256)).contains(&figures.memory), "{figures:?}");
    assert_eq!((figures.memory_limit, figures.pids_limit), (Bytes::mib(256), 77));
    assert_eq!((figures.pids, figures.oom_kills), (2, 0), "the reaper and python: {figures:?}");
}

fn children() {
    let burn = "import time\nwhile time.process_time() < 0.3: pass";
    let script = format!(
        "python3 -c '{burn}'; (sh -c \"python3 -c '{burn}'; printf x >> /v/count\" &); sleep 600"
    );
    let (case, count) = with_count(Case::shell(&script));
    // Time enough for the reaper.
    let orders = format!("grow {count}; wait 300; stats; destroy");
    let outcome = case.var("MOAT_TEST_ORDERS", &orders).run();
    let cpu = figures(&outcome)[0].cpu.unwrap();
    assert!(cpu > Duration::from_millis(550), "two children of 0.3 s each took {cpu:?}");
}

fn no_figures() {
    let case = Case::shell("sleep 1").user(54_321).var("MOAT_TEST_ORDERS", "stats");
    case.run().ends_with(5).complains("takes a cgroup").complains("hint: ");
}
