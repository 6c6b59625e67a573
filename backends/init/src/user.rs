//! Who the workload runs as, by the root's own /etc/passwd and /etc/group (passwd(5), group(5)).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use moat_core::sandbox::StartError;
use moat_core::spec::{Id, User};

/// The most that is read of either file, in bytes. What comes after is as if it were not there.
const FILE_LIMIT: u64 = 16 << 20;

/// The most supplementary groups: `NGROUPS_MAX` (setgroups(2)).
const GROUPS_LIMIT: usize = 65536;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A user's numbers and home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks `user` up in the files of the root that the process is in.
///
/// # Errors
/// [`StartError::NoSuchId`] for a name that they do not have.
pub(crate) fn look_up(user: &User) -> Result<Identity, StartError> {
    identify(user, &read(PASSWD), &read(GROUP))
}

fn read(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        // What can't be read is not there.
        let _ = file.take(FILE_LIMIT).read_to_end(&mut bytes);
    }
    bytes
}

pub(crate) fn identify(user: &User, passwd: &[u8], group: &[u8]) -> Result<Identity, StartError> {
    let entry = lines(passwd).find_map(|fields| Entry::parse(&fields, &user.user));
    let uid = match (&user.user, &entry) {
        (Id::Number(uid), _) => *uid,
        (Id::Name(_), Some(entry)) => entry.uid,
        (Id::Name(name), None) => return Err(missing("user", name, PASSWD)),
    };
    let own_gid = entry.as_ref().map_or(0, |entry| entry.gid);
    let gid = match &user.group {
        None => own_gid,
        Some(Id::Number(gid)) => *gid,
        Some(Id::Name(name)) => lines(group)
            .find_map(|fields| match fields.as_slice() {
                [group, _, gid, ..] if *group == name => gid.parse().ok(),
                _ => None,
            })
            .ok_or_else(|| missing("group", name, GROUP))?,
    };
    let groups = match (&user.group, &entry) {
        (None, Some(entry)) => memberships(group, &entry.name),
        // Who names a group wants that one.
        _ => Vec::new(),
    };
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/'));
    Ok(Identity { uid, gid, groups, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn missing(kind: &str, name: &str, file: &str) -> StartError {
    StartError::NoSuchId { kind: kind.to_owned(), name: name.to_owned(), file: file.to_owned() }
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Entry {
    /// The entry of `wanted`, if these are its fields.
    fn parse(fields: &[&str], wanted: &Id) -> Option<Self> {
        let [name, _, uid, gid, _, home, ..] = fields else { return None };
        let uid = uid.parse().ok()?;
        let matches = match wanted {
            Id::Number(number) => *number == uid,
            Id::Name(wanted) => wanted == name,
        };
        let gid = gid.parse().ok()?;
        matches.then(|| Self { name: (*name).to_owned(), uid, gid, home: (*home).to_owned() })
    }
}

/// The groups that list `name` as a member.
fn memberships(group: &[u8], name: &str) -> Vec<u32> {
    lines(group)
        .filter_map(|fields| match fields.as_slice() {
            [_, _, gid, members, ..] if members.split(',').any(|member| member == name) => {
                gid.parse().ok()
            }
            _ => None,
        })
        .take(GROUPS_LIMIT)
        .collect()
}

/// The fields of each line that is text.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbad line\n\xff\xff:x:1:1::/:\n\
        ann:x:1000:1001:Ann:/home/ann:/bin/sh\nneg:x:-1:0::/:\nrel:x:7:7::home:\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:bob,ann\nann:x:1001:\naudio:x:29:ann\nx:x:a:ann\n";

    fn user(user: Id, group: Option<Id>) -> User {
        User { user, group }
    }

    fn name(name: &str) -> Id {
        Id::Name(name.to_owned())
    }

    #[test]
    fn a_name_gives_ids_groups_and_home() {
        let ann = identify(&user(name("ann"), None), PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups), (1000, 1001, vec![10, 29]));
        assert_eq!(ann.home, "/home/ann");
    }

    #[test]
    fn a_number_takes_what_the_file_has_and_needs_no_entry() {
        let ann = identify(&user(Id::Number(1000), None), PASSWD, GROUP).unwrap();
        assert_eq!((ann.gid, ann.groups.len()), (1001, 2));
        let stranger = identify(&user(Id::Number(4242), None), PASSWD, GROUP).unwrap();
        assert_eq!((stranger.gid, stranger.groups.len(), stranger.home.as_str()), (0, 0, "/"));
    }

    #[test]
    fn a_named_group_stands_alone() {
        let ann = identify(&user(name("ann"), Some(name("wheel"))), PASSWD, GROUP).unwrap();
        assert_eq!((ann.gid, ann.groups.len()), (10, 0));
    }

    #[test]
    fn what_the_files_lack_is_named_and_broken_lines_are_nobody() {
        let error = identify(&user(name("eve"), None), PASSWD, GROUP).unwrap_err();
        assert_eq!(error, missing("user", "eve", "/etc/passwd"));
        let error = identify(&user(name("ann"), Some(name("x"))), PASSWD, GROUP).unwrap_err();
        assert_eq!(error, missing("group", "x", "/etc/group"));
        assert!(identify(&user(name("neg"), None), PASSWD, GROUP).is_err());
        assert_eq!(identify(&user(name("rel"), None), PASSWD, GROUP).unwrap().home, "/");
    }
}
