//! The machine's devices and the kernel's memory are not set from inside.

use nix::fcntl::OFlag;

use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "sysfs_writes",
    "opens files of /sys for writing: uevent_helper, huge pages, a device's uevent, a module's parameter",
    attack,
);

const FILES: [&str; 6] = [
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/devices/virtual/mem/null/uevent",
    "/sys/kernel/profiling",
    "/sys/power/state",
    "/sys/module/printk/parameters/time",
];

/// Opened and closed: nothing is written, since this machine must stay as it is.
fn attack(tries: &Tries, _: &[&str]) {
    for path in FILES {
        tries.opens(path, OFlag::O_WRONLY);
    }
}
