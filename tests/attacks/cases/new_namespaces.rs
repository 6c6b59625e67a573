//! A workload makes no namespaces, and so gains no rights over any.

use crate::call::{Arg::N, call, clone, clone3};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2022-0185"),
    open: |field| field.naive(|naive| naive.pivots = true),
    ..Case::new(
        "new_namespaces",
        "makes user, mount, network and other namespaces by unshare, clone and clone3",
        attack,
    )
};

const KINDS: [(&str, libc::c_int); 7] = [
    ("user", libc::CLONE_NEWUSER),
    ("mount", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("network", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
];

/// `CLONE_NEWTIME` of linux/sched.h.
const TIME: libc::c_int = 0x80;

fn attack(tries: &Tries, _: &[&str]) {
    for (kind, flag) in KINDS.into_iter().chain([("time", TIME)]) {
        let what = format!("unshare {kind}");
        tries.apart(&what, |tries| {
            tries.of(&what, call(libc::SYS_unshare, [N(flag.into())]));
        });
    }
    for (kind, flag) in KINDS {
        tries.of(&format!("clone {kind}"), clone(flag).map(|_| "made"));
    }
    let flag = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    tries.of("clone3 user", clone3(flag).map(|_| "made"));
}
