//! The ids that this machine's owner has set aside for workloads (subuid(5), subgid(5)).

use std::fs;

use crate::idmap::{COUNT, Map, Ranges};
use crate::machine;

/// The first range that is looked at when nobody has set one aside: above what distributions give
/// to people. systemd gives its own containers ranges from there on too, and picks them at random
/// for the same reason as [`free`].
const FIRST: u32 = 9 * COUNT;

/// Where the last range ends: signed ids of some filesystems end there.
const END: u32 = 0x7fff_0000;

/// The most ranges of one user that are used: newuidmap(1) writes a map in one page (4096 bytes),
/// and the longest line has 33.
const RANGES_LIMIT: usize = 100;

const USERS: &str = "/etc/subuid";
const GROUPS: &str = "/etc/subgid";

/// The host ids for a workload that root starts: what /etc/subuid and /etc/subgid set aside for
/// `moat` or `root`, else a range of which neither gives a part to anybody. Where there are several
/// ranges, one at random: workloads that run at the same time then hardly ever share ids, and what
/// got out of one would have no right to the processes of the other.
pub fn choose() -> Map {
    let (users, groups) = (read(USERS), read(GROUPS));
    let chance = chance();
    if let (Some(user), Some(group)) = (set_aside(&users, chance), set_aside(&groups, chance)) {
        return Map { users: Ranges::whole(user), groups: Ranges::whole(group) };
    }
    let free = free(&[&users, &groups], chance);
    Map { users: Ranges::whole(free), groups: Ranges::whole(free) }
}

/// The host ids for a workload that this plain user starts: 0 is the user itself, from 1 on it is
/// what is set aside for them, as far as it goes. `name` is their name, if they have one.
///
/// # Errors
/// The file that sets nothing aside for them.
pub fn of_user(uid: u32, gid: u32, name: Option<&str>) -> Result<Map, &'static str> {
    // Groups are set aside for users too (subgid(5)).
    let users = after(uid, &read(USERS), uid, name).ok_or(USERS)?;
    let groups = after(gid, &read(GROUPS), uid, name).ok_or(GROUPS)?;
    Ok(Map { users, groups })
}

/// The name of a user, by this machine's own /etc/passwd (passwd(5)).
pub fn name_of(uid: u32) -> Option<String> {
    let number = uid.to_string();
    let text = read("/etc/passwd");
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

/// A file that is not there gives nothing to anybody.
fn read(path: &str) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A random number; which does not matter where there is none.
fn chance() -> u32 {
    machine::random().map(u32::from_ne_bytes).unwrap_or_default()
}

/// The lines `user:first:count`, the user by name or by number. Broken ones, empty ranges and such
/// as go beyond the last id are passed over.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let user = fields.next().filter(|user| !user.is_empty())?;
        let first: u32 = fields.next()?.trim().parse().ok()?;
        let count: u32 = fields.next()?.trim().parse().ok()?;
        // u32::MAX is no id (user_namespaces(7)).
        first.checked_add(count).filter(|_| count > 0 && fields.next().is_none())?;
        Some((user, first, count))
    })
}

/// One of the whole ranges that are set aside for moat or for root.
pub(crate) fn set_aside(text: &str, chance: u32) -> Option<u32> {
    let of = |wanted: &[&str]| {
        entries(text).find(|(user, _, count)| wanted.contains(user) && *count >= COUNT)
    };
    let (_, first, count) = of(&["moat"]).or_else(|| of(&["root", "0"]))?;
    first.checked_add(chance % (count / COUNT) * COUNT)
}

/// The caller's own id, then those set aside.
pub(crate) fn after(own: u32, text: &str, uid: u32, name: Option<&str>) -> Option<Ranges> {
    let number = uid.to_string();
    let mut ranges = Ranges::single(own);
    let theirs = entries(text).filter(|(user, ..)| Some(*user) == name || *user == number);
    for (_, first, count) in theirs.take(RANGES_LIMIT) {
        // The kernel takes no id twice.
        let taken = ranges.as_slice().iter().any(|range| {
            let (first, start) = (u64::from(first), u64::from(range.outside));
            first < start + u64::from(range.count) && start < first + u64::from(count)
        });
        if !taken {
            ranges.add(first, count);
        }
    }
    (ranges.count() > 1).then_some(ranges)
}

/// The first range from the `chance`th on of which nobody has a part.
pub(crate) fn free(files: &[&str], chance: u32) -> u32 {
    let taken: Vec<(u32, u32)> = files
        .iter()
        .flat_map(|text| entries(text))
        .map(|(_, first, count)| (first, count))
        .collect();
    let is_free = |start: &u32| {
        !taken.iter().any(|(first, count)| {
            u64::from(*first) < u64::from(*start) + u64::from(COUNT)
                && u64::from(*start) < u64::from(*first) + u64::from(*count)
        })
    };
    let ranges = (END - FIRST) / COUNT;
    let nth = |number: u32| FIRST + (number % ranges) * COUNT;
    let from = chance % ranges;
    (from..from + ranges).map(nth).find(is_free).unwrap_or(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_for_moat_or_root_is_taken() {
        let text = "ann:100000:65536\nroot:700000:65536\nmoat:800000:65536\n";
        assert_eq!(set_aside(text, 7), Some(800_000));
        assert_eq!(set_aside("root:700000:65536", 7), Some(700_000));
        assert_eq!(set_aside("0:700000:65537\n", 7), Some(700_000));
        assert_eq!(set_aside("moat:700000:1000\nbad\nx:y:z\n", 7), None);
        let many = format!("moat:700000:{}\n", 3 * COUNT + 5);
        assert_eq!(set_aside(&many, 5), Some(700_000 + 2 * COUNT));
    }

    #[test]
    fn what_belongs_to_others_is_passed_over() {
        assert_eq!(free(&[""], 0), FIRST);
        let text = format!("ann:{}:1\n1001:{}:200000\n", FIRST + 5, FIRST + 2 * COUNT);
        assert_eq!(free(&["", &text], 0), FIRST + COUNT);
        assert_eq!(free(&["", &text], 2), FIRST + 6 * COUNT);
        let text = format!("ann:{}:{}\n", FIRST, END - FIRST - COUNT);
        for chance in [0, 1, 4711, u32::MAX] {
            assert_eq!(free(&[&text], chance), END - COUNT - (END - FIRST) % COUNT);
        }
        for chance in [1, 77, u32::MAX] {
            let start = free(&[""], chance);
            assert!((FIRST..=END - COUNT).contains(&start) && start.is_multiple_of(COUNT));
        }
    }

    #[test]
    fn a_user_has_all_their_ranges_by_name_and_number() {
        let text = "eve:1:1\nann:100000:10\n# no\n1000:200000:5\nann:x:9\nann:300000\n\
            ann:400000:0\nann:4294967290:10\nann:-5:3\nann:100005:3\n:9:9\nann:500000:70000:1\n\
            ann:600000:70000";
        let ranges = after(1000, text, 1000, Some("ann")).unwrap();
        let seen: Vec<_> =
            ranges.as_slice().iter().map(|range| (range.outside, range.count)).collect();
        assert_eq!(seen, [(1000, 1), (100_000, 10), (200_000, 5), (600_000, 65520)]);
        assert_eq!(ranges.count(), COUNT);
        assert_eq!(after(1000, text, 1001, Some("bob")), None);
        assert_eq!(after(1000, text, 1000, None).unwrap().count(), 6);
    }

    #[test]
    fn a_range_with_the_user_itself_is_passed_over() {
        assert_eq!(after(1000, "ann:900:200\n", 1000, Some("ann")), None);
    }
}
