//! Which ids of the host stand for the workload's (user_namespaces(7), subuid(5)).

use std::fs;
use std::io;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How many ids a workload has: those of every ordinary user, and `nobody`.
pub const COUNT: u32 = 65536;

/// The first range that is looked at when nobody has set one aside: above what distributions give
/// to people and below what systemd gives to its own containers.
const FIRST: u32 = 9 * COUNT;

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

impl Range {
    /// Every id is itself.
    pub const IDENTITY: Self = Self { inside: 0, outside: 0, count: u32::MAX };

    /// User 0 of the workload is this host id, and there is no other.
    pub const fn single(outside: u32) -> Self {
        Self { inside: 0, outside, count: 1 }
    }

    /// The host's id for the workload's, if it has one.
    pub fn to_host(self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.inside).filter(|offset| *offset < self.count)?;
        self.outside.checked_add(offset)
    }

    fn line(self) -> String {
        format!("{} {} {}\n", self.inside, self.outside, self.count)
    }
}

/// The maps of one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Of users.
    pub users: Range,
    /// Of groups.
    pub groups: Range,
}

impl Map {
    /// Every id is itself.
    pub const IDENTITY: Self = Self { users: Range::IDENTITY, groups: Range::IDENTITY };

    /// Gives a process's new user namespace this map; as the machine's root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_to(&self, pid: Pid) -> io::Result<()> {
        fs::write(format!("/proc/{pid}/uid_map"), self.users.line())?;
        fs::write(format!("/proc/{pid}/gid_map"), self.groups.line())
    }

    /// As [`Map::give_to`], as the plain user whose own ids the map has: setgroups(2) must be
    /// given up for it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_own_to(&self, pid: Pid) -> io::Result<()> {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        self.give_to(pid)
    }
}

/// The host ids for the workloads that root starts: what /etc/subuid and /etc/subgid set aside for
/// `moat` or `root`, else the first range of which neither gives a part to anybody.
pub fn choose() -> Map {
    // A file that is not there gives nothing to anybody.
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (users, groups) = (read("/etc/subuid"), read("/etc/subgid"));
    let range = |outside| Range { inside: 0, outside, count: COUNT };
    if let (Some(user), Some(group)) = (set_aside(&users), set_aside(&groups)) {
        return Map { users: range(user), groups: range(group) };
    }
    let free = first_free(&[&users, &groups]);
    Map { users: range(free), groups: range(free) }
}

/// The lines `name:first:count`.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?))
    })
}

fn set_aside(text: &str) -> Option<u32> {
    let of =
        |wanted: &str| entries(text).find(|(name, _, count)| *name == wanted && *count >= COUNT);
    of("moat").or_else(|| of("root")).map(|(_, first, _)| first)
}

fn first_free(files: &[&str]) -> u32 {
    let taken = |start: u32| {
        files.iter().flat_map(|text| entries(text)).any(|(_, first, count)| {
            u64::from(first) < u64::from(start) + u64::from(COUNT)
                && u64::from(start) < u64::from(first) + u64::from(count)
        })
    };
    let step = usize::try_from(COUNT).unwrap_or(usize::MAX);
    // The last range below 2^31, where signed ids of some filesystems end.
    (FIRST..0x7fff_0000).step_by(step).find(|start| !taken(*start)).unwrap_or(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_taken() {
        let text = "ann:100000:65536\nroot:700000:65536\nmoat:800000:65536\n";
        assert_eq!(set_aside(text), Some(800_000));
        assert_eq!(set_aside("root:700000:65536\n"), Some(700_000));
        assert_eq!(set_aside("moat:700000:1000\nbad\nx:y:z\n"), None);
    }

    #[test]
    fn what_belongs_to_others_is_passed_over() {
        assert_eq!(first_free(&[""]), FIRST);
        let text = format!("ann:{}:1\nbob:{}:200000\n", FIRST + 5, FIRST + 2 * COUNT);
        assert_eq!(first_free(&["", &text]), FIRST + COUNT);
        let text = format!("ann:{}:{}\n", FIRST, 3 * COUNT);
        assert_eq!(first_free(&[&text]), FIRST + 3 * COUNT);
    }

    #[test]
    fn an_id_outside_the_range_has_no_host_id() {
        let range = Range { inside: 0, outside: 1000, count: 10 };
        assert_eq!((range.to_host(9), range.to_host(10)), (Some(1009), None));
        assert_eq!(Range::IDENTITY.to_host(0), Some(0));
    }
}
