//! Where a filesystem can't be seen through an id map, the workload's user 0 is the host's. It may do
//! no more for that.

use anyhow::{Result, ensure};

use crate::cases::{
    Case, cgroup_files, devices_made, executable_of_pid1, kernel_log, masks_bypassed,
    memory_of_pid1, name_and_clock, namespaces_entered, ptrace_of_pid1, sysctls, sysfs_writes,
};
use crate::evidence::Evidence;
use crate::field::{Field, disk};
use crate::inside::{Tries, read};

pub(super) const CASE: Case = Case {
    behind,
    open: |field| field.naive_with(&[&disk().to_string()], |_| {}),
    ..Case::new(
        "identity_map",
        "tries the attacks that file owners would stop once more, where ids can't be mapped: on masks, settings, devices, cgroups, PID 1",
        attack,
    )
};

const ATTACKS: [Case; 11] = [
    sysctls::CASE,
    sysfs_writes::CASE,
    cgroup_files::CASE,
    kernel_log::CASE,
    name_and_clock::CASE,
    devices_made::CASE,
    executable_of_pid1::CASE,
    memory_of_pid1::CASE,
    ptrace_of_pid1::CASE,
    namespaces_entered::CASE,
    masks_bypassed::CASE,
];

fn attack(tries: &Tries, arguments: &[&str]) {
    let map = read("/proc/self/uid_map").unwrap_or_default();
    let map: Vec<&str> = map.split_whitespace().collect();
    tries.absent("ids", map.join(" "));
    for case in ATTACKS {
        tries.apart(case.name, |tries| (case.attack)(tries, arguments));
    }
}

/// sysfs can't be seen through a map.
fn behind(field: &Field<'_>) -> Result<Vec<Evidence>> {
    let found =
        field.moat_with("volumes = [\"/sys/kernel:/volume:ro\"]", &[&disk().to_string()])?;
    let mapped = found.iter().any(|evidence| evidence.how.starts_with("0 0 "));
    ensure!(mapped, "the ids were mapped otherwise: {found:?}");
    Ok(found)
}
