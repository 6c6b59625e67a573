//! The host's shared memory and queues are not there.

use std::ffi::CString;
use std::fs;

use anyhow::Result;
use nix::fcntl::OFlag;

use crate::call::{
    Arg::{N, S},
    call,
};
use crate::cases::Case;
use crate::evidence::Evidence;
use crate::field::Field;
use crate::inside::{Tries, open};

pub(super) const CASE: Case = Case {
    behind: |field| run(field, |arguments| field.moat_with("", arguments)),
    open: |field| run(field, |arguments| field.naive_with(arguments, |_| {})),
    ..Case::new(
        "host_ipc",
        "attaches the host's System V shared memory by its key, and opens its POSIX queue and shared memory",
        attack,
    )
};

fn attack(tries: &Tries, arguments: &[&str]) {
    let [key, name] = arguments else { return };
    let key = key.parse().unwrap_or_default();
    let found = call(libc::SYS_shmget, [N(key), N(0), N(0)]);
    tries.of("System V shared memory", found.map(|_| "found"));
    let queue = CString::new(*name).unwrap_or_default();
    let queue = call(libc::SYS_mq_open, [S(&queue), N(0), N(0), N(0)]);
    tries.of("POSIX queue", queue.map(|_| "opened"));
    let memory = open(&format!("/dev/shm/{name}"), OFlag::O_RDONLY);
    tries.of("POSIX shared memory", memory.map(|_| "opened"));
}

/// `IPC_CREAT`, `IPC_EXCL` and a mode of shmget(2).
const NEW: i64 = 0o3600;

fn run(
    field: &Field<'_>,
    attack: impl FnOnce(&[&str]) -> Result<Vec<Evidence>>,
) -> Result<Vec<Evidence>> {
    let name = field.space.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let key: u16 =
        name.bytes().fold(0, |sum, byte| u16::wrapping_add(sum.wrapping_mul(31), byte.into()));
    let key = 0x6d6f_0000 | i64::from(key);
    let queue = CString::new(name.as_str())?;
    let memory = call(libc::SYS_shmget, [N(key), N(4096), N(NEW)])?;
    let flags = i64::from(libc::O_CREAT | libc::O_EXCL);
    let queued = call(libc::SYS_mq_open, [S(&queue), N(flags), N(0o600), N(0)]);
    let written = fs::write(format!("/dev/shm/{name}"), "x");
    let found = attack(&[&key.to_string(), &name]);
    // All of it is this test's own, and none may stay.
    let _ = call(libc::SYS_shmctl, [N(memory), N(libc::IPC_RMID.into()), N(0)]);
    let _ = call(libc::SYS_mq_unlink, [S(&queue)]);
    let _ = fs::remove_file(format!("/dev/shm/{name}"));
    written?;
    queued?;
    found
}
