//! A hard limit is not raised.

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, setrlimit};

use crate::call::{
    Arg::{B, N},
    call,
};
use crate::cases::Case;
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    behind: |field| field.moat("[workload.case.rlimits]\nnofile = 256"),
    open: |field| field.moat("[workload.case.rlimits]\nnofile = 4096"),
    ..Case::new(
        "raised_rlimits",
        "raises its hard limit of open files over what was declared, by setrlimit and prlimit",
        attack,
    )
};

const MORE: u64 = 1024;

fn attack(tries: &Tries, _: &[&str]) {
    let limit = [MORE, MORE].map(u64::to_ne_bytes).concat();
    let files = i64::from(libc::RLIMIT_NOFILE);
    tries.apart("prlimit", |tries| {
        tries.of("prlimit", call(libc::SYS_prlimit64, [N(0), N(files), B(&limit), N(0)]));
    });
    let raised = setrlimit(Resource::RLIMIT_NOFILE, MORE, MORE);
    tries.of("setrlimit", raised.map(|()| "raised"));
    let held: nix::Result<Vec<OwnedFd>> =
        (0..MORE - 10).map(|_| open("/", OFlag::O_PATH)).collect();
    tries.of("open as many", held.map(|held| format!("{} files", held.len())));
}
