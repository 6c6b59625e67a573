//! What the fuzz targets in `tests/fuzz` call: what comes from an image or a user's file, under any
//! bytes. Only in test and fuzzing builds.
#![allow(missing_docs)]

use moat_core::seccomp::{Kernel, read};
use moat_core::spec::{Id, User};

use crate::{seccomp, user};

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

/// The most instructions of a filter (linux/bpf_common.h, `BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// A root's /etc/passwd and /etc/group: half of the bytes each.
pub fn passwd(data: &[u8]) {
    let (passwd, group) = data.split_at(data.len() / 2);
    let name = |name: &str| Id::Name(name.to_owned());
    for (user, group_id) in [
        (name("ann"), None),
        (name("ann"), Some(name("wheel"))),
        (Id::Number(1000), None),
        (Id::Number(0), Some(Id::Number(7))),
    ] {
        let wanted = User { user, group: group_id };
        if let Ok(found) = user::identify(&wanted, passwd, group) {
            assert!(found.home.starts_with('/') && found.groups.len() <= 65536);
        }
    }
}

/// An OCI seccomp profile, to a program for the kernel.
pub fn seccomp_file(data: &[u8]) {
    match read("x.json", data, &[]) {
        Ok(read) => {
            let kernel = Kernel { major: 6, minor: 18 };
            let answers = seccomp::users(&read.profile, kernel);
            if let Ok(program) = seccomp::program(&answers, "x.json") {
                assert!((1..=LONGEST).contains(&program.len()));
            }
        }
        Err(mistakes) => {
            assert!((1..=20).contains(&mistakes.len()));
            assert!(mistakes.iter().all(|mistake| !mistake.to_string().is_empty()));
        }
    }
}

#[test]
fn the_corpora_find_nothing() {
    let targets: [replay::Target; 2] = [("passwd", passwd), ("seccomp_file", seccomp_file)];
    replay::replay(env!("CARGO_MANIFEST_DIR"), &targets);
}
