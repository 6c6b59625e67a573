//! A masked file is masked by whatever path.

use std::os::fd::AsRawFd;

use nix::fcntl::OFlag;

use crate::cases::Case;
use crate::inside::{Tries, open, read};

pub(super) const CASE: Case = Case::new(
    "masks_bypassed",
    "reads masked files by other paths: /proc/self/root, /proc/thread-self, dots, descriptors, another thread's directory",
    attack,
);

fn attack(tries: &Tries, _: &[&str]) {
    let process = std::process::id();
    let beginnings = [
        String::new(),
        "/proc/self/root".to_owned(),
        "/proc/thread-self/root".to_owned(),
        format!("/proc/{process}/task/{process}/root"),
        "/dev/../tmp/..".to_owned(),
        "/proc/self/cwd/..".to_owned(),
    ];
    for (number, beginning) in beginnings.iter().enumerate() {
        shows(tries, &format!("by path {number}"), &format!("{beginning}/proc/interrupts"));
    }
    for path in ["/proc/keys", "/proc/timer_list"] {
        shows(tries, path, path);
    }
    if let Ok(held) = open("/proc", OFlag::O_PATH) {
        let path = format!("/proc/self/fd/{}/interrupts", held.as_raw_fd());
        shows(tries, "by a descriptor", &path);
    }
    let names = std::fs::read_dir("/sys/firmware").map(|names| names.count()).unwrap_or_default();
    if names > 0 {
        tries.got("/sys/firmware", format!("{names} names"));
    } else {
        tries.refused("/sys/firmware", "empty");
    }
}

fn shows(tries: &Tries, what: &str, path: &str) {
    match read(path) {
        Ok(text) if text.is_empty() => tries.refused(what, "empty"),
        other => tries.of(what, other.map(|text| format!("{} bytes", text.len()))),
    }
}
