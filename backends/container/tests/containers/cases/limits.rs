//! Memory, processes, processor.

use std::time::Instant;

use moat_core::spec::{Bytes, Cpus};

use super::Named;
use crate::run::Case;

pub(super) const CASES: &[Named] = &[
    ("too much memory ends the workload, and is told", memory),
    ("a child that takes too much memory is told too", memory_of_a_child),
    ("files in memory count", files_in_memory),
    ("too many processes are refused", pids),
    ("a share of a processor is not exceeded", cpu),
];

const HOG: &str = "x = bytearray(200 << 20); print(len(x))";

fn memory() {
    let case = Case::host(&["python3", "-c", HOG]);
    let outcome = case.with(|workload| workload.resources.memory = Bytes::mib(64)).run();
    outcome.ends_with(137).complains("oom");
    let case = Case::host(&["python3", "-c", HOG]);
    let outcome = case.with(|workload| workload.resources.memory = Bytes::mib(512)).run();
    outcome.says("209715200");
    assert!(!outcome.err.contains("oom"), "{outcome:?}");
}

fn memory_of_a_child() {
    let case = Case::shell(&format!("python3 -c '{HOG}'; echo $?"));
    let outcome = case.with(|workload| workload.resources.memory = Bytes::mib(64)).run();
    outcome.complains("oom");
    assert!(outcome.out.contains("137"), "{outcome:?}");
}

fn files_in_memory() {
    let case = Case::shell("head -c 100M /dev/zero > /dev/shm/x; head -c 300M /dev/zero > /x");
    let outcome = case.with(|workload| workload.resources.memory = Bytes::mib(128)).run();
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
}

fn pids() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done";
    let case = Case::shell(script).with(|workload| workload.resources.pids = 8);
    let outcome = case.run();
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    outcome.complains("fork");
}

fn cpu() {
    let script = "import time\ns = time.monotonic()\np = time.process_time()\nwhile time.process_time() < p + 0.5: pass\n\
        print(time.monotonic() - s)";
    let case = Case::host(&["python3", "-c", script]);
    let began = Instant::now();
    let outcome = case.with(|workload| workload.resources.cpus = Cpus::from_milli(250)).run();
    let took: f64 = outcome.out.trim().parse().unwrap_or_else(|_| panic!("{outcome:?}"));
    assert!(took > 1.3, "half a second of processor at a quarter took {took} s");
    assert!(began.elapsed().as_secs_f64() >= took);
}
