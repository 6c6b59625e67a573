//! What this host offers micro-VMs, found out by trying.

use std::error::Error;

use moat_core::diagnose::{Check, Code, Fault};
use nix::errno::Errno;

use super::vmm;
use crate::probe::{self, KvmReport};

/// A KVM that answers but can't run Linux: nothing on this host helps.
const NO_HELP: &str = "this KVM can't run Linux guests: use a machine with hardware \
                       virtualization, or try moat in an emulated one with `cargo xtask bed`";

/// Runs a tiny guest, and makes a process as a VMM's.
pub(super) fn all() -> Vec<Check> {
    let mut checks = match probe::probe() {
        Ok(report) => of_report(&report),
        Err(error) => vec![failed("/dev/kvm", chain(&error), hint(&error))],
    };
    checks.push(match vmm::try_namespaces() {
        Ok(()) => passed("VMM namespaces", "made".to_owned()),
        Err(errno) => failed("VMM namespaces", errno.desc().to_lowercase(), namespaces_hint(errno)),
    });
    checks
}

/// The three things that a KVM may only pretend, each shown; then whatever else a guest found.
fn of_report(report: &KvmReport) -> Vec<Check> {
    let speed = match report.ring0_speed {
        Some(speed) => format!("{} million instructions a second", speed / 1_000_000),
        None => "not measured".to_owned(),
    };
    let is = |fault: &probe::Fault, name| of_fault(fault) == name;
    let mut checks =
        vec![passed("/dev/kvm", "opened, and ran a guest of a few instructions".to_owned())];
    let tried =
        [(SPEED, speed), (CPUID, "as set".to_owned()), (SYSCALL, "reaches ring 0".to_owned())];
    for (name, detail) in tried {
        checks.push(match report.faults.iter().find(|fault| is(fault, name)) {
            Some(fault) => failed(name, fault.to_string(), NO_HELP),
            None => passed(name, detail),
        });
    }
    let others = report.faults.iter().filter(|fault| is(fault, GUEST));
    checks.extend(others.map(|fault| failed(GUEST, fault.to_string(), NO_HELP)));
    checks
}

const SPEED: &str = "guest kernel speed";
const CPUID: &str = "guest CPUID";
const SYSCALL: &str = "guest SYSCALL";
const GUEST: &str = "tiny guest";

fn of_fault(fault: &probe::Fault) -> &'static str {
    match fault {
        probe::Fault::Slow { .. } => SPEED,
        probe::Fault::Cpuid => CPUID,
        probe::Fault::Syscall => SYSCALL,
        probe::Fault::Guest { .. } => GUEST,
    }
}

fn hint(error: &probe::Error) -> &'static str {
    match error {
        probe::Error::Absent { .. } => {
            "switch virtualization on in the firmware, then `modprobe kvm-intel` or `modprobe \
             kvm-amd`; in a container or VM, have /dev/kvm passed in"
        }
        probe::Error::Denied { .. } => {
            "add yourself to the group kvm, `sudo usermod -aG kvm $USER`, and log in again"
        }
        probe::Error::Open { .. } => "`modprobe kvm-intel` or `modprobe kvm-amd`, as root",
        _ => "look into the kernel's log: `dmesg | grep -i kvm`",
    }
}

pub(super) fn namespaces_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => {
            "allow user namespaces, `sysctl kernel.unprivileged_userns_clone=1`, or run moat as root"
        }
        _ => "raise the limits, `sysctl user.max_user_namespaces=10000`, or end some processes",
    }
}

/// What a KVM that can't be opened is to a run that needs it.
pub fn kvm_fault(error: probe::Error) -> Fault {
    let hint = hint(&error);
    Fault::new(Code::Unavailable, "micro-VMs can't run here").hint(hint).because(error)
}

fn passed(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), ok: true, needed: true, detail, hint: None }
}

fn failed(name: &str, detail: String, hint: &str) -> Check {
    let (name, hint) = (name.to_owned(), Some(hint.to_owned()));
    Check { name, ok: false, needed: true, detail, hint }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_kvm_is_a_failed_check() {
        let faults = [
            probe::Fault::Slow { per_second: 1_500_000 },
            probe::Fault::Cpuid,
            probe::Fault::Syscall,
            probe::Fault::Guest { reason: "it hangs".to_owned() },
        ];
        for fault in faults {
            let report = KvmReport { ring0_speed: None, faults: vec![fault.clone()] };
            let failed: Vec<Check> =
                of_report(&report).into_iter().filter(|check| !check.ok).collect();
            let [check] = failed.as_slice() else { panic!("{failed:?}") };
            assert_eq!((check.detail.as_str(), check.needed), (fault.to_string().as_str(), true));
        }
        let fine = KvmReport { ring0_speed: Some(900_000_000), faults: Vec::new() };
        assert!(of_report(&fine).iter().all(|check| check.ok));
    }
}
