//! Where the cgroups that hold limits are made, as data: found on a host by moat-host, carried out
//! by moat-init, kept in an instance's record so that a later moat finds them again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A part of the kernel that holds one kind of limit (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Memory and swap space.
    Memory,
    /// Processor time.
    Cpu,
    /// Processes and threads.
    Pids,
    /// Which processors.
    Cpuset,
    /// Block devices.
    Io,
}

impl Controller {
    /// Those of the limits that every workload has.
    pub const BASE: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// Its name in a tree of this version.
    pub const fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Memory, _) => "memory",
            (Self::Cpu, _) => "cpu",
            (Self::Pids, _) => "pids",
            (Self::Cpuset, _) => "cpuset",
            (Self::Io, Version::V2) => "io",
            (Self::Io, Version::V1) => "blkio",
        }
    }

    /// Whether a file of a group of cgroup v2 lists it (`cgroup.controllers` and
    /// `cgroup.subtree_control`).
    pub fn is_listed(self, controllers: &str) -> bool {
        controllers.split_whitespace().any(|word| word == self.name(Version::V2))
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name(Version::V2))
    }
}

/// The kernel's two ways to arrange groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// A tree for each controller, or for a few together.
    V1,
    /// One tree for all.
    V2,
}

/// A group in one tree, in which groups are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tree {
    /// The tree's kind.
    pub version: Version,
    /// The group's directory; made itself where it is missing.
    pub parent: PathBuf,
}

/// Where groups are made, for each controller that is needed. The controllers may be in trees of
/// both versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hierarchy(pub BTreeMap<Controller, Tree>);

impl Hierarchy {
    /// The limits that every workload has, all below one group of cgroup v2.
    pub fn unified(parent: impl Into<PathBuf>) -> Self {
        let tree = Tree { version: Version::V2, parent: parent.into() };
        Self(Controller::BASE.into_iter().map(|controller| (controller, tree.clone())).collect())
    }

    /// Whether any of it is cgroup v2.
    pub fn is_unified(&self) -> bool {
        self.0.values().any(|tree| tree.version == Version::V2)
    }

    /// The trees, each once, with the controllers that are needed of each.
    pub fn trees(&self) -> Vec<(&Tree, Vec<Controller>)> {
        let mut trees: Vec<(&Tree, Vec<Controller>)> = Vec::new();
        for (controller, tree) in &self.0 {
            match trees.iter_mut().find(|(known, _)| *known == tree) {
                Some((_, controllers)) => controllers.push(*controller),
                None => trees.push((tree, vec![*controller])),
            }
        }
        trees
    }

    /// The groups in which groups are made, each once.
    pub fn parents(&self) -> Vec<&Path> {
        self.trees().into_iter().map(|(tree, _)| tree.parent.as_path()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_matched_whole() {
        assert!(Controller::Cpu.is_listed("cpuset cpu io\n"));
        assert!(!Controller::Cpu.is_listed("cpuset hugetlb\n"));
    }

    #[test]
    fn controllers_that_share_a_tree_share_a_group() {
        let both = Tree { version: Version::V1, parent: "/cpu,cpuacct/moat".into() };
        let unified = Tree { version: Version::V2, parent: "/unified/moat".into() };
        let hierarchy = Hierarchy(BTreeMap::from([
            (Controller::Memory, unified.clone()),
            (Controller::Cpu, both.clone()),
            (Controller::Cpuset, both.clone()),
            (Controller::Pids, unified.clone()),
        ]));
        let trees = hierarchy.trees();
        assert_eq!(trees.len(), 2);
        assert_eq!(trees[0], (&unified, vec![Controller::Memory, Controller::Pids]));
        assert_eq!(trees[1], (&both, vec![Controller::Cpu, Controller::Cpuset]));
    }

    #[test]
    fn a_record_reads_well() {
        let text = serde_json::to_string(&Hierarchy::unified("/sys/fs/cgroup/moat")).unwrap();
        assert!(text.starts_with(r#"{"memory":{"version":"v2","parent":"/sys"#), "{text}");
        let read: Hierarchy = serde_json::from_str(&text).unwrap();
        assert_eq!(read, Hierarchy::unified("/sys/fs/cgroup/moat"));
    }
}
