//! Where on this host the groups that hold limits can be made: cgroup v2, or v1 where the
//! controllers are still there (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use crate::mountinfo::{self, MountPoint};

/// The group in which moat makes those of its instances.
const OURS: &str = "moat";

/// The controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// The groups in which those of instances are made. They need not be there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// cgroup v2.
    Unified {
        /// The parent.
        parent: PathBuf,
    },
    /// cgroup v1.
    Legacy {
        /// The parent in the hierarchy of `memory`.
        memory: PathBuf,
        /// The parent in the hierarchy of `cpu`.
        cpu: PathBuf,
        /// The parent in the hierarchy of `pids`.
        pids: PathBuf,
    },
}

/// Why none can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unusable {
    /// What stands against it.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl Unusable {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// Finds where this user's groups can be made. Touches nothing.
///
/// # Errors
/// Why there is no such place.
pub fn locate() -> Result<Location, Unusable> {
    let mounts = mountinfo::read().map_err(|error| {
        Unusable::new(format!("/proc/self/mountinfo can't be read: {error}"), "mount /proc")
    })?;
    let unified = mounts.iter().rfind(|mount| mount.kind == "cgroup2");
    if let Some(unified) = unified.filter(|unified| has_controllers(&unified.at)) {
        let parent = if Uid::effective().is_root() {
            unified.at.join(OURS)
        } else {
            delegated(&unified.at)?.join(OURS)
        };
        return Ok(Location::Unified { parent });
    }
    legacy(&mounts)
}

fn has_controllers(dir: &Path) -> bool {
    let Ok(text) = fs::read_to_string(dir.join("cgroup.controllers")) else { return false };
    CONTROLLERS.iter().all(|wanted| text.split_whitespace().any(|word| word == *wanted))
}

/// The highest group above the caller's own that this user may write: only from there may it move
/// processes into groups below (cgroup-v2.rst, "Delegation Containment").
fn delegated(mount: &Path) -> Result<PathBuf, Unusable> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = mount.join(own);
    own.ancestors()
        .take_while(|dir| dir.starts_with(mount))
        .filter(|dir| writable(dir) && has_controllers(dir))
        .last()
        .map(Path::to_owned)
        .ok_or_else(|| {
            Unusable::new(
                format!("cgroup {} is not delegated to this user", own.display()),
                "start moat with `systemd-run --user --scope -p Delegate=yes moat ...`, or as root",
            )
        })
}

fn writable(dir: &Path) -> bool {
    let may = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
    may(dir) && may(&dir.join("cgroup.procs")) && may(&dir.join("cgroup.subtree_control"))
}

fn legacy(mounts: &[MountPoint]) -> Result<Location, Unusable> {
    let find = |controller: &str| {
        let has = |mount: &&MountPoint| {
            mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller)
        };
        let mount = mounts.iter().rfind(has).ok_or_else(|| {
            Unusable::new(
                format!("no cgroup hierarchy with the {controller} controller is mounted"),
                "mount cgroup2 at /sys/fs/cgroup: `mount -t cgroup2 none /sys/fs/cgroup`",
            )
        })?;
        let parent = mount.at.join(OURS);
        let may =
            access(&parent, AccessFlags::W_OK).or_else(|_| access(&mount.at, AccessFlags::W_OK));
        may.map_err(|_| {
            Unusable::new(
                format!("{} can't be written by this user", mount.at.display()),
                "start moat as root, or boot with cgroup v2 (`systemd.unified_cgroup_hierarchy=1`)",
            )
        })?;
        Ok(parent)
    };
    let [memory, cpu, pids] = CONTROLLERS.map(find);
    Ok(Location::Legacy { memory: memory?, cpu: cpu?, pids: pids? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(at: &Path, options: &str) -> MountPoint {
        MountPoint { at: at.to_owned(), kind: "cgroup".into(), options: options.into() }
    }

    #[test]
    fn each_controller_is_found_in_its_own_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = [
            mount(dir.path(), "rw,memory"),
            mount(dir.path(), "rw,cpu,cpuacct"),
            mount(dir.path(), "rw,pids"),
        ];
        let parent = dir.path().join("moat");
        let found = legacy(&mounts).unwrap();
        let expected =
            Location::Legacy { memory: parent.clone(), cpu: parent.clone(), pids: parent };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_missing_controller_is_named() {
        let mounts = [mount(Path::new("/x"), "rw,cpuset"), mount(Path::new("/y"), "rw,cpuacct")];
        assert!(legacy(&mounts).unwrap_err().what.contains("the memory controller"));
    }
}
