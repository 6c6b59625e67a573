//! No other namespace can be entered.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::call::{Arg::N, call};
use crate::cases::Case;
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case::new(
    "namespaces_entered",
    "enters PID 1's and its own namespaces by setns, by files and by a pidfd",
    attack,
);

fn attack(tries: &Tries, _: &[&str]) {
    for (whose, process) in [("PID 1", "1"), ("own", "self")] {
        for kind in ["mnt", "net", "uts", "ipc", "cgroup"] {
            let what = format!("{whose}: {kind}");
            tries.apart(&what, |tries| {
                let entered = open(&format!("/proc/{process}/ns/{kind}"), OFlag::O_RDONLY)
                    .and_then(|file| call(libc::SYS_setns, [N(file.as_raw_fd().into()), N(0)]));
                tries.of(&what, entered);
            });
        }
    }
    tries.apart("by pidfd", |tries| {
        let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET;
        let entered = call(libc::SYS_pidfd_open, [N(1), N(0)])
            .and_then(|pidfd| call(libc::SYS_setns, [N(pidfd), N(flags.into())]));
        tries.of("by pidfd", entered);
    });
    // A user namespace that it is in already is refused to everyone, but only after the filter.
    let own = open("/proc/self/ns/user", OFlag::O_RDONLY)
        .and_then(|file| call(libc::SYS_setns, [N(file.as_raw_fd().into()), N(0)]));
    tries.door("own: user", own, &[Errno::EINVAL]);
}
