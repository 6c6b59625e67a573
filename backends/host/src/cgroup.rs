//! Where on this host the groups that hold limits can be made: cgroup v2, v1, or both where the
//! controllers are split between them (cgroups(7)).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use moat_core::cgroup::{Controller, Hierarchy, Tree, Version};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, Uid, access};

use crate::mountinfo::{self, MountPoint};
use crate::procfs;

/// The group in which moat makes those of its instances.
const OURS: &str = "moat";

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

/// Finds where this user's groups with these controllers can be made. Touches nothing.
///
/// # Errors
/// Why there is no such place for one of them.
pub fn locate(controllers: &[Controller]) -> Result<Hierarchy, Unusable> {
    let mounts = customary(controllers).map_or_else(self::mounts, Ok)?;
    let unified = mounts.iter().rfind(|mount| mount.kind == "cgroup2");
    let offered = unified.map(|mount| controllers_of(&mount.at)).unwrap_or_default();
    let is_offered = |controller: &Controller| controller.is_listed(&offered);
    let (in_unified, in_legacy): (Vec<_>, Vec<_>) =
        controllers.iter().copied().partition(is_offered);
    let mut found = BTreeMap::new();
    if let Some(unified) = unified.filter(|_| !in_unified.is_empty()) {
        let above = if Uid::effective().is_root() {
            unified.at.clone()
        } else {
            delegated(&unified.at, &in_unified)?
        };
        let tree = Tree { version: Version::V2, parent: above.join(OURS) };
        found.extend(in_unified.into_iter().map(|controller| (controller, tree.clone())));
    }
    for controller in in_legacy {
        let beside = !offered.is_empty();
        // Where v2 is at the customary place, a tree that it lacks may be at any other.
        let parent = legacy(&mounts, controller, beside)
            .or_else(|_| legacy(&self::mounts()?, controller, beside))?;
        found.insert(controller, Tree { version: Version::V1, parent });
    }
    Ok(Hierarchy(found))
}

/// Every place in which this user's groups may have been made, whatever limits they hold.
pub fn everywhere() -> Hierarchy {
    let all = Controller::BASE.into_iter().chain([Controller::Cpuset, Controller::Io]);
    let found = all.filter_map(|controller| locate(&[controller]).ok());
    Hierarchy(found.flat_map(|hierarchy| hierarchy.0).collect())
}

/// The group of cgroup v1 in which those that stop processes are made, where that tree is mounted
/// and this user may write it. With cgroup v2 every group can do it.
pub fn freezer() -> Option<PathBuf> {
    let mounts = mounts().ok()?;
    writable_parent(v1_mount(&mounts, "freezer")?).ok()
}

/// Where distributions mount cgroups, as mountinfo would list them: cgroup v2 alone at the place
/// itself, or a directory for each tree. `None` when anything is otherwise. To look there costs a
/// few system calls; of mountinfo the kernel makes each line anew.
fn customary(controllers: &[Controller]) -> Option<Vec<MountPoint>> {
    const PLACE: &str = "/sys/fs/cgroup";
    let mount = |at: &Path, name: &str| {
        let kind = match statfs(at).ok()?.filesystem_type() {
            CGROUP2_SUPER_MAGIC => "cgroup2",
            CGROUP_SUPER_MAGIC => "cgroup",
            _ => return None,
        };
        let (kind, options) = (kind.to_owned(), name.to_owned());
        Some(MountPoint { at: at.to_owned(), kind, options, follows: false })
    };
    if let Some(unified) = mount(Path::new(PLACE), "") {
        return (unified.kind == "cgroup2").then(|| vec![unified]);
    }
    let tree = |name: &str| mount(&Path::new(PLACE).join(name), name);
    let legacy = controllers.iter().map(|controller| tree(controller.name(Version::V1)));
    let mut mounts: Vec<MountPoint> = legacy.collect::<Option<_>>()?;
    mounts.extend(tree("unified"));
    Some(mounts)
}

fn mounts() -> Result<Vec<MountPoint>, Unusable> {
    mountinfo::read().map_err(|error| {
        Unusable::new(format!("/proc/self/mountinfo can't be read: {error}"), "mount /proc")
    })
}

/// The controllers that a group of cgroup v2 has; none where it can't be read.
fn controllers_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default()
}

/// The highest group above the caller's own that this user may write: only from there may it move
/// processes into groups below (cgroup-v2.rst, "Delegation Containment").
fn delegated(mount: &Path, wanted: &[Controller]) -> Result<PathBuf, Unusable> {
    let own = procfs::read("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = mount.join(own);
    let above = own.ancestors().take_while(|dir| dir.starts_with(mount));
    let writable: Vec<&Path> = above.filter(|dir| is_writable(dir)).collect();
    let lacks = |dir: &Path| {
        let there = controllers_of(dir);
        wanted.iter().copied().find(|controller| !controller.is_listed(&there))
    };
    if let Some(highest) = writable.iter().rfind(|dir| lacks(dir).is_none()) {
        return Ok(highest.to_path_buf());
    }
    match writable.last().and_then(|dir| Some((dir, lacks(dir)?))) {
        None => Err(Unusable::new(
            format!("cgroup {} is not delegated to this user", own.display()),
            "start moat with `systemd-run --user --scope -p Delegate=yes moat ...`, or as root",
        )),
        Some((dir, controller)) => Err(Unusable::new(
            format!("cgroup {} has no {controller} controller for this user", dir.display()),
            format!(
                "have systemd delegate it (`Delegate=cpu cpuset io memory pids` for \
                 user@{}.service), or start moat as root",
                Uid::effective()
            ),
        )),
    }
}

fn is_writable(dir: &Path) -> bool {
    let may = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
    may(dir) && may(&dir.join("cgroup.procs")) && may(&dir.join("cgroup.subtree_control"))
}

fn v1_mount<'m>(mounts: &'m [MountPoint], controller: &str) -> Option<&'m MountPoint> {
    let has = |mount: &&MountPoint| {
        mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller)
    };
    mounts.iter().rfind(has)
}

/// The parent in the tree of cgroup v1 that has this controller.
fn legacy(
    mounts: &[MountPoint],
    controller: Controller,
    beside_unified: bool,
) -> Result<PathBuf, Unusable> {
    let name = controller.name(Version::V1);
    let mount = v1_mount(mounts, name).ok_or_else(|| {
        let hint = if beside_unified {
            "use a kernel, or a container around moat, whose cgroups have it"
        } else {
            "mount cgroup2 at /sys/fs/cgroup: `mount -t cgroup2 none /sys/fs/cgroup`"
        };
        Unusable::new(format!("no cgroup hierarchy with the {name} controller is mounted"), hint)
    })?;
    writable_parent(mount)
}

fn writable_parent(mount: &MountPoint) -> Result<PathBuf, Unusable> {
    let parent = mount.at.join(OURS);
    let may = access(&parent, AccessFlags::W_OK).or_else(|_| access(&mount.at, AccessFlags::W_OK));
    may.map_err(|_| {
        Unusable::new(
            format!("{} can't be written by this user", mount.at.display()),
            "start moat as root, or boot with cgroup v2 (`systemd.unified_cgroup_hierarchy=1`)",
        )
    })?;
    Ok(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(at: &Path, options: &str) -> MountPoint {
        let (at, options) = (at.to_owned(), options.to_owned());
        MountPoint { at, kind: "cgroup".to_owned(), options, follows: false }
    }

    #[test]
    fn each_controller_is_found_in_its_own_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let trees: Vec<PathBuf> = ["a", "b"].iter().map(|name| dir.path().join(name)).collect();
        trees.iter().for_each(|tree| fs::create_dir(tree).unwrap());
        let mounts = [mount(&trees[0], "rw,blkio"), mount(&trees[1], "rw,cpu,cpuacct")];
        let find = |controller| legacy(&mounts, controller, false).unwrap();
        assert_eq!(find(Controller::Io), trees[0].join("moat"));
        assert_eq!(find(Controller::Cpu), trees[1].join("moat"));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let mounts = [mount(Path::new("/x"), "rw,cpuset"), mount(Path::new("/y"), "rw,cpuacct")];
        let unusable = legacy(&mounts, Controller::Io, true).unwrap_err();
        assert!(unusable.what.contains("the blkio controller"), "{unusable}");
        assert!(!unusable.hint.contains("mount cgroup2"), "it is: {}", unusable.hint);
        assert!(legacy(&mounts, Controller::Cpu, false).is_err(), "cpuacct is not cpu");
    }
}
