//! Where the workload's limits are held. Those that were asked for by name are held or the workload
//! is refused; those that every workload has are held where this host can, and a plan says if not.

use std::fs;
use std::path::Path;

use moat_core::cgroup::{Controller, Hierarchy, Tree, Version};
use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::Limits;
use moat_core::spec::{Bytes, CpuSet};
use moat_host::block;
use moat_host::cgroup::{Unusable, locate};
use moat_init::cgroup::Error;
use nix::errno::Errno;

/// Finds the place for all limits, and puts the disks in them in the kernel's terms. Touches
/// nothing.
///
/// # Errors
/// When a limit that was asked for can't be held here.
pub(crate) fn place(limits: &mut Limits) -> Result<Result<Hierarchy, Unusable>, Fault> {
    let asked = asked(limits);
    for (key, controller) in &asked {
        locate(&[*controller]).map_err(|unusable| refused(key, unusable))?;
    }
    let mut controllers = Controller::BASE.to_vec();
    controllers.extend(asked.iter().map(|(_, controller)| *controller));
    let hierarchy = match (locate(&controllers), asked.first()) {
        (Ok(hierarchy), _) => hierarchy,
        (Err(unusable), None) => return Ok(Err(unusable)),
        (Err(unusable), Some((key, _))) => return Err(refused(key, unusable)),
    };
    for (key, controller) in asked {
        let Some(tree) = hierarchy.0.get(&controller) else { continue };
        match key {
            "cpuset" => cpuset(limits.cpuset.as_ref(), tree)?,
            "swap" => swap(tree)?,
            "io_weight" => weight(tree)?,
            _ => disks(limits)?,
        }
    }
    Ok(Ok(hierarchy))
}

/// The keys of `container` that ask for a limit, and what holds it.
fn asked(limits: &Limits) -> Vec<(&'static str, Controller)> {
    let all = [
        ("cpuset", Controller::Cpuset, limits.cpuset.is_some()),
        ("swap", Controller::Memory, limits.swap > Bytes::new(0)),
        ("io_weight", Controller::Io, limits.io_weight.is_some()),
        ("io_max", Controller::Io, !limits.io_max.is_empty()),
    ];
    all.into_iter().filter(|limit| limit.2).map(|(key, controller, _)| (key, controller)).collect()
}

fn cannot(key: &str, why: &str) -> Fault {
    Fault::new(Code::Unavailable, format!("`container.{key}` can't be held on this host: {why}"))
}

fn refused(key: &str, unusable: Unusable) -> Fault {
    cannot(key, &unusable.what).hint(unusable.hint)
}

/// cgroup v2 would take processors that are not there, and use others.
fn cpuset(set: Option<&CpuSet>, tree: &Tree) -> Result<(), Fault> {
    let name = match tree.version {
        Version::V1 => "cpuset.effective_cpus",
        Version::V2 => "cpuset.cpus.effective",
    };
    // The group itself may not be there yet.
    let read = |dir: &Path| {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        text.trim().parse::<CpuSet>().ok()
    };
    let (Some(set), Some(there)) = (set, tree.parent.ancestors().find_map(read)) else {
        return Ok(());
    };
    let has = |cpu: &u16| there.runs().any(|run| run.contains(cpu));
    match set.runs().flatten().find(|cpu| !has(cpu)) {
        None => Ok(()),
        Some(cpu) => Err(cannot("cpuset", &format!("there is no processor {cpu} for it"))
            .hint(format!("choose among {there}"))),
    }
}

/// Every group but the root has the file, if swap is counted at all. Where none is there yet, it is
/// found out when one is made.
fn swap(tree: &Tree) -> Result<(), Fault> {
    let (memory, swap) = match tree.version {
        Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        Version::V2 => ("memory.max", "memory.swap.max"),
    };
    match tree.parent.ancestors().find(|dir| dir.join(memory).exists()) {
        Some(dir) if !dir.join(swap).exists() => Err(no_swap()),
        _ => Ok(()),
    }
}

/// Why the group could not be made with its limits.
pub(crate) fn unmade(error: Error) -> Fault {
    let hint = match &error {
        Error::NotHeld { limit: "swap", .. } => return no_swap(),
        Error::NotHeld { limit, path } => {
            return cannot(&limit.replace(' ', "_"), &format!("{} is not there", path.display()))
                .hint("use a kernel with CONFIG_BFQ_GROUP_IOSCHED, or leave the key out");
        }
        // Only a group without processes of its own may have any below it.
        Error::File { path, source, .. }
            if path.ends_with("cgroup.subtree_control")
                && source.raw_os_error() == Some(Errno::EBUSY as i32) =>
        {
            let group = path.parent().unwrap_or(path).display();
            format!("no process may be in {group} itself: move those there to a group below it")
        }
        _ => "`moat doctor` tells where cgroups can be made".to_owned(),
    };
    let what = "can't make the cgroup that holds the limits";
    Fault::new(Code::Container, what).because(error).hint(hint)
}

/// Why swap can't be limited.
fn no_swap() -> Fault {
    cannot("swap", "its kernel does not count swap")
        .hint("boot it with `swapaccount=1`, or leave the key out: then there is no swap")
}

/// Weights count only on a disk that shares by them: by its scheduler or, in v2, by a cost model.
fn weight(tree: &Tree) -> Result<(), Fault> {
    let (weighing, others) = block::by_scheduler();
    if !weighing.is_empty() || tree.version == Version::V2 && has_cost_model(tree) {
        return Ok(());
    }
    // One that a person would mean: memory and files stand behind these.
    let is_real =
        |name: &&String| !["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
    let example = others.iter().find(is_real).map_or("DISK", String::as_str);
    Err(cannot("io_weight", "no disk's scheduler shares by weight").hint(format!(
        "choose one that does: `modprobe bfq; echo bfq > /sys/block/{example}/queue/scheduler`"
    )))
}

/// `8:16 enable=1 ctrl=auto ...` in the root's file (cgroup-v2.rst, `io.cost.qos`).
fn has_cost_model(tree: &Tree) -> bool {
    let read = |dir: &Path| fs::read_to_string(dir.join("io.cost.qos")).ok();
    tree.parent.ancestors().find_map(read).is_some_and(|text| text.contains("enable=1"))
}

/// Each path becomes that of its disk.
fn disks(limits: &mut Limits) -> Result<(), Fault> {
    let mut seen = Vec::new();
    for (path, _) in &mut limits.io_max {
        let disk = block::disk(path).map_err(|error| {
            Fault::new(Code::Unavailable, "`container.io_max` names what can't be limited")
                .because(error)
                .hint("name a disk of this host: `lsblk` lists them")
        })?;
        if seen.contains(&disk.device) {
            let what = format!("`container.io_max` has the disk {} twice", disk.path.display());
            return Err(Fault::new(Code::Unavailable, what)
                .hint("give one limit for the whole disk: its partitions have none of their own"));
        }
        seen.push(disk.device);
        *path = disk.path;
    }
    Ok(())
}

/// The limits in words, for a plan.
pub(crate) fn described(limits: &Limits) -> String {
    let mut words = vec![
        format!("memory {}", limits.memory),
        format!("cpus {}", limits.cpus),
        format!("processes {}", limits.pids),
    ];
    if limits.swap > Bytes::new(0) {
        words.push(format!("swap {}", limits.swap));
    }
    words.extend(limits.cpuset.as_ref().map(|set| format!("processors {set}")));
    if let Some(weight) = limits.io_weight {
        let (weighing, _) = block::by_scheduler();
        let on =
            if weighing.is_empty() { "by cost model".to_owned() } else { weighing.join(" and ") };
        words.push(format!("io weight {weight} ({on})"));
    }
    words.extend(limits.io_max.iter().map(|(path, max)| format!("{}: {max}", path.display())));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_core::spec::{IoMax, Resolved};

    fn limits() -> Limits {
        let workload = Resolved::for_command(vec!["true".to_owned()], "/src".into(), None).unwrap();
        Limits::from(&workload.resources)
    }

    #[test]
    fn only_what_is_asked_for_needs_more_controllers() {
        let mut limits = limits();
        assert_eq!(asked(&limits), []);
        limits.swap = Bytes::mib(1);
        limits.cpuset = Some("0".parse().unwrap());
        assert_eq!(asked(&limits), [("cpuset", Controller::Cpuset), ("swap", Controller::Memory)]);
    }

    #[test]
    fn a_path_that_is_no_disk_is_refused() {
        let mut limits = limits();
        limits.io_max = vec![("/dev/null".into(), IoMax::default())];
        let fault = disks(&mut limits).unwrap_err();
        assert_eq!(fault.code, Code::Unavailable);
        let cause = std::error::Error::source(&fault).unwrap().to_string();
        assert_eq!(cause, "/dev/null is no block device");
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpuset.cpus.effective"), "0-1,4\n").unwrap();
        let tree = Tree { version: Version::V2, parent: dir.path().join("moat") };
        let check = |set: &str| cpuset(Some(&set.parse().unwrap()), &tree);
        assert!(check("0-1").is_ok() && check("4").is_ok());
        let fault = check("1-4").unwrap_err();
        assert!(fault.what.contains("no processor 2"), "{fault}");
        assert_eq!(fault.hint.as_deref(), Some("choose among 0-1,4"));
    }
}
