//! Interrupted monitors, and what they leave.

use moat_container::Container;
use moat_core::workload::Backend;

use super::Named;
use crate::run::{Case, eventually, is_running};

pub(super) const CASES: &[Named] = &[
    ("killing the monitor ends the container, and its remains can be removed", killed_monitor),
    ("killing the monitor at any moment leaves no process", killed_at_any_moment),
    ("the remains of nothing can be removed", nothing),
    ("what the workload leaves running ends with it", leftover_processes),
    ("a further process that is given up before it runs never runs", abandoned),
    ("a broken record is told", broken_record),
    ("the plan names its steps", steps),
    ("the probe finds that this host can run containers", probe),
];

fn killed_monitor() {
    let mark = format!("sleep 47{}", std::process::id());
    for init in [true, false] {
        let case = Case::host(&mark.split(' ').collect::<Vec<_>>());
        let case = case.with(|workload| workload.init = init);
        let mut monitor = case.spawn();
        eventually("the workload runs", || is_running(&mark));
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        eventually("the workload is gone", || !is_running(&mark));
        Container::new().attach(&case.instance()).unwrap().destroy().unwrap();
        case.assert_nothing_left();
    }
}

fn killed_at_any_moment() {
    let mark = format!("sleep 48{}", std::process::id());
    for delay in (0..24).map(|step| step * 500) {
        let case = Case::host(&mark.split(' ').collect::<Vec<_>>());
        let mut monitor = case.spawn();
        std::thread::sleep(std::time::Duration::from_micros(delay));
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        Container::new().attach(&case.instance()).unwrap().destroy().unwrap();
        eventually("the workload is gone", || !is_running(&mark));
        case.assert_nothing_left();
    }
}

fn abandoned() {
    let outcome = Case::host(&["sh", "-c", "sleep 1; ls /tmp"])
        .var("MOAT_TEST_ORDERS", "abandon /tmp/ran; ".repeat(20).trim_end_matches("; "))
        .run();
    outcome.says("");
}

fn nothing() {
    let dir = tempfile::tempdir().unwrap();
    Container::new().attach(dir.path()).unwrap().destroy().unwrap();
}

fn leftover_processes() {
    let mark = format!("sleep 49{}", std::process::id());
    Case::shell(&format!("setsid {mark} > /dev/null 2>&1 & exit 4")).run().ends_with(4);
    assert!(!is_running(&mark));
}

fn broken_record() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("container.json"), "{").unwrap();
    let fault = Container::new().attach(dir.path()).err().unwrap();
    assert!(fault.what.contains("container.json"), "{fault:?}");
}

fn steps() {
    let outcome = Case::host(&["true"]).var("MOAT_TEST_STEPS", "1").run();
    for word in ["cgroup", "namespaces", "ids", "overlay", "hidden", "seccomp", "\"true\""] {
        assert!(outcome.out.contains(word), "{word} is not in {}", outcome.out);
    }
}

fn probe() {
    let outcome = Case::host(&["true"]).var("MOAT_TEST_PROBE", "1").run();
    let checks: Vec<moat_core::diagnose::Check> = serde_json::from_str(&outcome.out).unwrap();
    assert!(checks.len() > 8, "{checks:?}");
    assert_eq!(moat_core::diagnose::missing(&checks), [], "{checks:?}");
}
