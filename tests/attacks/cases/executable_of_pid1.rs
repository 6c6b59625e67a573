//! PID 1 runs moat's own program: no way from it to that file.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlink};

use crate::cases::Case;
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2019-5736"),
    ..Case::new(
        "executable_of_pid1",
        "opens /proc/1/exe for writing, at once and by a held `O_PATH` descriptor",
        attack,
    )
};

fn attack(tries: &Tries, _: &[&str]) {
    let path = "/proc/1/exe";
    // A program that runs can't be written, which is found out after all checks.
    let tell = |how, result: nix::Result<_>| tries.door(how, result, &[Errno::ETXTBSY]);
    tell("open to read", open(path, OFlag::O_RDONLY).map(|_| "opened"));
    tell("open to write", open(path, OFlag::O_RDWR).map(|_| "opened"));
    let held = open(path, OFlag::O_PATH).and_then(|held| {
        let again = format!("/proc/self/fd/{}", held.as_raw_fd());
        open(&again, OFlag::O_WRONLY | OFlag::O_APPEND)
    });
    tell("open to write by a held descriptor", held.map(|_| "opened"));
    let link = readlink(path).map(|link| link.to_string_lossy().into_owned());
    tries.of("where it is on the host", link);
}
