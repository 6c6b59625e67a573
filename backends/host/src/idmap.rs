//! Which ids of the host stand for the workload's (user_namespaces(7)).

use std::fs;
use std::io;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How many ids a workload has where there are enough: those of every ordinary user, and `nobody`.
pub const COUNT: u32 = 65536;

/// A run of ids: `inside..` in the workload is `outside..` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first in the workload.
    pub inside: u32,
    /// The first on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Ids of the workload, from 0 on and without gaps: at least one range, each after the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// Id 0 is this id of the host; there is no other yet.
    pub fn single(outside: u32) -> Self {
        Self(vec![Range { inside: 0, outside, count: 1 }])
    }

    /// One range of [`COUNT`] ids.
    pub fn whole(outside: u32) -> Self {
        Self(vec![Range { inside: 0, outside, count: COUNT }])
    }

    /// Every id is itself.
    pub fn identity() -> Self {
        Self(vec![Range { inside: 0, outside: 0, count: u32::MAX }])
    }

    /// Adds ids of the host, as many of `count` as the workload still lacks to [`COUNT`].
    pub(crate) fn add(&mut self, outside: u32, count: u32) {
        let inside = self.count();
        let count = count.min(COUNT.saturating_sub(inside));
        if count > 0 {
            self.0.push(Range { inside, outside, count });
        }
    }

    /// The ranges, in order.
    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }

    /// How many ids there are.
    pub fn count(&self) -> u32 {
        self.0.last().map_or(0, |last| last.inside.saturating_add(last.count))
    }

    /// The host's id for 0.
    pub fn first(&self) -> u32 {
        self.0.first().map_or(0, |first| first.outside)
    }

    /// Whether an id of the host is one of the workload's.
    pub fn has(&self, outside: u32) -> bool {
        self.0.iter().any(|range| {
            outside.checked_sub(range.outside).is_some_and(|offset| offset < range.count)
        })
    }

    /// The lines of `uid_map` or `gid_map`.
    fn lines(&self) -> String {
        let line = |range: &Range| format!("{} {} {}\n", range.inside, range.outside, range.count);
        self.0.iter().map(line).collect()
    }
}

/// The maps of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Of users.
    pub users: Ranges,
    /// Of groups.
    pub groups: Ranges,
}

impl Map {
    /// Every id is itself.
    pub fn identity() -> Self {
        Self { users: Ranges::identity(), groups: Ranges::identity() }
    }

    /// User and group 0 alone, which are these of the host.
    pub fn single(user: u32, group: u32) -> Self {
        Self { users: Ranges::single(user), groups: Ranges::single(group) }
    }

    /// Gives a process's new user namespace this map; as the machine's root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_to(&self, pid: Pid) -> io::Result<()> {
        give_users(pid, &self.users)?;
        fs::write(format!("/proc/{pid}/gid_map"), self.groups.lines())
    }

    /// As [`Map::give_to`], as the plain user whose own ids the map has: setgroups(2) must be
    /// given up for it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_own_to(&self, pid: Pid) -> io::Result<()> {
        give_users(pid, &self.users)?;
        give_own_group(pid, &self.groups)
    }
}

/// Gives a new user namespace its users: any as root, the caller's own alone as a plain user.
pub(crate) fn give_users(pid: Pid, users: &Ranges) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), users.lines())
}

/// Gives a new user namespace the caller's own group alone, as a plain user.
pub(crate) fn give_own_group(pid: Pid, groups: &Ranges) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/gid_map"), groups.lines())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_on_where_the_last_range_ended_and_end_at_the_count() {
        let mut ranges = Ranges::single(1000);
        ranges.add(100_000, 10);
        ranges.add(300_000, 0);
        ranges.add(500_000, u32::MAX);
        ranges.add(900_000, 1);
        assert_eq!(ranges.lines(), "0 1000 1\n1 100000 10\n11 500000 65525\n");
        assert_eq!((ranges.count(), ranges.first()), (COUNT, 1000));
        assert!(ranges.has(1000) && ranges.has(100_009) && !ranges.has(100_010));
        assert!(!ranges.has(0) && !ranges.has(565_525) && ranges.has(565_524));
    }

    #[test]
    fn the_identity_has_every_id() {
        let all = Ranges::identity();
        assert!(all.has(0) && all.has(u32::MAX - 1));
        assert_eq!(all.lines(), "0 0 4294967295\n");
    }
}
