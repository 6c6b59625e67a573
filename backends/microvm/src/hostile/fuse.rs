//! FUSE requests that Linux's client never sends: names that lead elsewhere, lengths that lie, nodes
//! and handles that nobody was given, sizes beyond all bounds.

use std::fs;

use super::{Answer, ask, guarded_share};
use crate::fuzzing::driver::Driver;
use crate::fuzzing::fs::{Surroundings, header, init, request};

/// Operations (Linux include/uapi/linux/fuse.h).
mod op {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const READLINK: u32 = 5;
    pub(super) const SYMLINK: u32 = 6;
    pub(super) const MKNOD: u32 = 8;
    pub(super) const MKDIR: u32 = 9;
    pub(super) const UNLINK: u32 = 10;
    pub(super) const RMDIR: u32 = 11;
    pub(super) const RENAME: u32 = 12;
    pub(super) const LINK: u32 = 13;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const OPENDIR: u32 = 27;
    pub(super) const READDIR: u32 = 28;
    pub(super) const CREATE: u32 = 35;
    pub(super) const IOCTL: u32 = 39;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const READDIRPLUS: u32 = 44;
}

/// The share's own directory.
const ROOT: u64 = 1;
/// Room that any honest answer here fits into.
const ROOM: u32 = 0x2000;

/// A share whose guest has said hello, tried by `test`; afterwards nothing around it has changed,
/// and it still serves.
fn with_share(test: impl FnOnce(&Surroundings, &mut Driver)) {
    let (around, guarded, mut driver) = guarded_share();
    driver.start(0);
    assert_eq!(ask(&mut driver, &init(), 200).expect("an answer").error, 0);
    test(&around, &mut driver);
    assert_eq!(ask(&mut driver, &init(), 200).expect("it still answers").error, 0);
    assert!(node(&mut driver, ROOT, "dir").is_some());
    driver.transport.stop();
    guarded.check();
    around.check(&driver.memory);
}

fn words(fields: &[u32]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

fn long(field: u64) -> Vec<u8> {
    field.to_le_bytes().to_vec()
}

fn name(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// The node of a name in a directory.
fn node(driver: &mut Driver, parent: u64, wanted: &str) -> Option<u64> {
    let answer = ask(driver, &request(op::LOOKUP, parent, &name(wanted)), ROOM)?;
    let node = u64::from_le_bytes(*answer.body.first_chunk()?);
    (answer.error == 0 && node != 0).then_some(node)
}

/// The handle of an opened node.
fn open(driver: &mut Driver, operation: u32, node: u64, flags: u32) -> Option<u64> {
    let answer = ask(driver, &request(operation, node, &words(&[flags, 0])), ROOM)?;
    (answer.error == 0).then(|| u64::from_le_bytes(*answer.body.first_chunk().unwrap()))
}

/// `struct fuse_read_in`.
fn read_body(handle: u64, offset: u64, size: u32) -> Vec<u8> {
    [long(handle), long(offset), words(&[size, 0, 0, 0, 0, 0])].concat()
}

fn refused(answer: Option<Answer>) -> bool {
    answer.is_none_or(|answer| answer.error < 0)
}

/// Every operation that takes a name, with that name.
fn with_name(bytes: &[u8], target: u64) -> Vec<(u32, Vec<u8>)> {
    let after = |front: Vec<u8>| [front, bytes.to_vec()].concat();
    vec![
        (op::LOOKUP, bytes.to_vec()),
        (op::UNLINK, bytes.to_vec()),
        (op::RMDIR, bytes.to_vec()),
        (op::MKDIR, after(words(&[0o755, 0]))),
        (op::MKNOD, after(words(&[0o100_644, 0, 0, 0]))),
        (op::CREATE, after(words(&[0o102, 0o644, 0, 0]))),
        (op::LINK, after(long(target))),
        (op::SYMLINK, [bytes, b"target\0"].concat()),
        (op::RENAME, [&long(ROOT)[..], bytes, b"renamed\0"].concat()),
        (op::RENAME, [&long(ROOT)[..], b"file\0", bytes].concat()),
    ]
}

#[test]
fn names_that_lead_elsewhere_are_refused_by_every_operation() {
    let long_name = "n".repeat(300);
    with_share(|around, driver| {
        let file = node(driver, ROOT, "file").unwrap();
        for wrong in
            ["..", "../outside/secret", "dir/../../outside/secret", "/", "a/b", "", &long_name]
        {
            for (operation, body) in with_name(&name(wrong), file) {
                let answer = ask(driver, &request(operation, ROOT, &body), ROOM);
                let none = answer.as_ref().is_some_and(|answer| {
                    // A missing name may be remembered as missing: node 0.
                    operation == op::LOOKUP && answer.body.starts_with(&[0; 8])
                });
                assert!(none || refused(answer), "operation {operation} took {wrong:?}");
            }
        }
        assert_eq!(fs::read(around.share().join("file")).unwrap(), b"text");
    });
}

#[test]
fn names_without_an_end_are_refused() {
    with_share(|around, driver| {
        let file = node(driver, ROOT, "file").unwrap();
        for wrong in [&b""[..], b"name", b"\xff\xfe"] {
            for (operation, body) in with_name(wrong, file) {
                // Of two names, the one without an end is the first: then both are one.
                if matches!(operation, op::SYMLINK | op::RENAME) {
                    continue;
                }
                assert!(refused(ask(driver, &request(operation, ROOT, &body), ROOM)), "{wrong:?}");
            }
        }
        // What comes behind a name's end is no part of it.
        let made = request(op::MKDIR, ROOT, &[words(&[0o755, 0]), name("x\0y")].concat());
        if !refused(ask(driver, &made, ROOM)) {
            assert!(around.share().join("x").is_dir());
        }
    });
}

#[test]
fn links_out_of_the_share_are_only_ever_text() {
    with_share(|_, driver| {
        for link in ["relative", "absolute"] {
            let link = node(driver, ROOT, link).unwrap();
            assert_eq!(ask(driver, &request(op::READLINK, link, &[]), ROOM).unwrap().error, 0);
            assert_eq!(open(driver, op::OPEN, link, 0), None);
            assert_eq!(open(driver, op::OPENDIR, link, 0), None);
            assert_eq!(node(driver, link, "secret"), None);
        }
    });
}

#[test]
fn headers_that_lie_about_their_length_are_refused_or_told_as_much() {
    with_share(|_, driver| {
        for length in [0, 1, 39, 40, 41, 4096, 1 << 20, (1 << 20) + 4097, 1 << 31, u32::MAX] {
            for operation in 0..60 {
                let bytes = [header(length, operation, ROOT), name("file")].concat();
                // FUSE_DESTROY (38) is a request of its own, and harms only who asks.
                if operation != 38 {
                    ask(driver, &bytes, ROOM);
                }
            }
        }
        // Less than a header is no request.
        for length in 0..40 {
            assert!(ask(driver, &init()[..length], ROOM).is_none());
        }
    });
}

#[test]
fn an_answer_without_room_is_none() {
    with_share(|_, driver| {
        let file = node(driver, ROOT, "file").unwrap();
        let handle = open(driver, op::OPEN, file, 0).unwrap();
        for room in 0..40 {
            for bytes in [
                init(),
                request(op::LOOKUP, ROOT, &name("file")),
                request(op::GETATTR, ROOT, &[0; 16]),
                request(op::READ, file, &read_body(handle, 0, 4096)),
                request(op::READLINK, file, &[]),
            ] {
                ask(driver, &bytes, room);
            }
        }
    });
}

#[test]
fn nodes_that_nobody_was_given_are_refused() {
    with_share(|_, driver| {
        for forged in [0, 2, 3, 99, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            assert!(
                refused(ask(driver, &request(op::GETATTR, forged, &[0; 16]), ROOM)),
                "{forged}"
            );
            assert_eq!(open(driver, op::OPEN, forged, 2), None);
            assert_eq!(node(driver, forged, "file"), None);
        }
        // What was forgotten, often enough, is no more.
        let file = node(driver, ROOT, "file").unwrap();
        ask(driver, &request(op::FORGET, file, &long(u64::MAX)), ROOM);
        assert_eq!(open(driver, op::OPEN, file, 0), None);
        // The share itself stays, whatever is forgotten.
        ask(driver, &request(op::FORGET, ROOT, &long(u64::MAX)), ROOM);
        let many = [words(&[3, 0]), long(ROOT), long(9), long(77), long(9), long(0), long(9)];
        ask(driver, &request(op::BATCH_FORGET, 0, &many.concat()), ROOM);
        for count in [4, 1 << 16, u32::MAX] {
            ask(driver, &request(op::BATCH_FORGET, 0, &words(&[count, 0])), ROOM);
        }
    });
}

#[test]
fn handles_that_nobody_was_given_are_refused() {
    with_share(|_, driver| {
        let file = node(driver, ROOT, "file").unwrap();
        let handle = open(driver, op::OPEN, file, 2).unwrap();
        let dir = open(driver, op::OPENDIR, ROOT, 0).unwrap();
        for forged in [handle + 100, 1 << 63, u64::MAX] {
            let read = request(op::READ, file, &read_body(forged, 0, 100));
            assert!(refused(ask(driver, &read, ROOM)), "{forged}");
            let list = request(op::READDIR, ROOT, &read_body(forged, 0, 100));
            assert!(refused(ask(driver, &list, ROOM)), "{forged}");
        }
        // Each the other's.
        let read = request(op::READ, file, &read_body(dir, 0, 100));
        assert!(refused(ask(driver, &read, ROOM)));
        let list = request(op::READDIR, ROOT, &read_body(handle, 0, 100));
        assert!(refused(ask(driver, &list, ROOM)));
        // Given back twice.
        let release = request(op::RELEASE, file, &[long(handle), words(&[0; 4])].concat());
        assert_eq!(ask(driver, &release, ROOM).unwrap().error, 0);
        ask(driver, &release, ROOM);
        let read = request(op::READ, file, &read_body(handle, 0, 100));
        assert!(refused(ask(driver, &read, ROOM)), "a handle that was given back");
    });
}

#[test]
fn listings_from_anywhere_stay_within_their_room() {
    with_share(|_, driver| {
        let dir = open(driver, op::OPENDIR, ROOT, 0).unwrap();
        for operation in [op::READDIR, op::READDIRPLUS] {
            for offset in [0, 1, 5, 1 << 31, 1 << 62, i64::MAX as u64, 1 << 63, u64::MAX] {
                for size in [0, 1, 24, 200, ROOM - 16, ROOM, ROOM + 1, 1 << 30, u32::MAX] {
                    let list = request(operation, ROOT, &read_body(dir, offset, size));
                    if let Some(answer) = ask(driver, &list, ROOM) {
                        let most = size.saturating_add(16).min(ROOM);
                        assert!(answer.error != 0 || answer.written <= most, "{size} at {offset}");
                    }
                }
            }
        }
    });
}

#[test]
fn reads_and_writes_beyond_all_bounds_move_no_more_than_there_is() {
    with_share(|around, driver| {
        let file = node(driver, ROOT, "file").unwrap();
        let handle = open(driver, op::OPEN, file, 2).unwrap();
        for offset in [0, 2, 4, i64::MAX as u64, 1 << 63, u64::MAX] {
            for size in [0, 1, 1 << 20, 1 << 31, u32::MAX] {
                let read = request(op::READ, file, &read_body(handle, offset, size));
                let answer = ask(driver, &read, ROOM).expect("an answer");
                assert!(answer.error < 0 || answer.written <= 16 + 4, "{size} at {offset}");
            }
        }
        for size in [3, 1 << 20, 1 << 31, u32::MAX] {
            let body = [read_body(handle, 0, size), b"ab".to_vec()].concat();
            ask(driver, &request(op::WRITE, file, &body), ROOM);
            let there = fs::read(around.share().join("file")).unwrap();
            assert!(there == b"text" || there == b"abxt", "{size}: {there:?}");
        }
        for offset in [i64::MAX as u64, 1 << 63, u64::MAX] {
            let body = [read_body(handle, offset, 2), b"ab".to_vec()].concat();
            assert!(refused(ask(driver, &request(op::WRITE, file, &body), ROOM)), "{offset}");
        }
        assert_eq!(fs::metadata(around.share().join("file")).unwrap().len(), 4);
        for size in [33, 1 << 20, u32::MAX] {
            let body = [vec![0; 24], words(&[size, size])].concat();
            assert!(refused(ask(driver, &request(op::IOCTL, file, &body), ROOM)));
        }
    });
}

#[test]
fn a_hello_twice_wrong_or_never_is_answered() {
    let (around, guarded, mut driver) = guarded_share();
    driver.start(0);
    // Never.
    assert!(node(&mut driver, ROOT, "file").is_some());
    let hello = |major: u32, minor: u32, flags: u32| {
        let mut body = words(&[major, minor, 1 << 17, flags, u32::MAX]);
        body.resize(64, 0);
        request(26, 0, &body)
    };
    for (major, minor) in [(7, 38), (7, 38), (7, 0), (7, 4), (7, 22), (7, u32::MAX)] {
        for flags in [0, 1 << 30, u32::MAX] {
            let answer = ask(&mut driver, &hello(major, minor, flags), ROOM).unwrap();
            assert_eq!(answer.error, 0, "{major}.{minor} {flags:#x}");
            node(&mut driver, ROOT, "file");
        }
    }
    assert!(refused(ask(&mut driver, &hello(6, 0, 0), ROOM)));
    // "If the version does not match, the server answers with its own" (fuse.h).
    assert_eq!(ask(&mut driver, &hello(u32::MAX, 0, 0), ROOM).unwrap().error, 0);
    // One that ends in its flags.
    assert!(ask(&mut driver, &request(26, 0, &words(&[7, 38, 0, u32::MAX])), ROOM).is_none());
    assert_eq!(ask(&mut driver, &init(), ROOM).unwrap().error, 0);
    assert!(node(&mut driver, ROOT, "file").is_some());
    driver.transport.stop();
    guarded.check();
    around.check(&driver.memory);
}

/// Two shares with what an honest guest would do after FUSE_DESTROY: mount again.
#[test]
fn a_share_can_be_mounted_again() {
    with_share(|_, driver| {
        ask(driver, &request(38, 0, &[]), ROOM);
        assert_eq!(ask(driver, &init(), ROOM).unwrap().error, 0);
        assert!(node(driver, ROOT, "file").is_some());
    });
}
