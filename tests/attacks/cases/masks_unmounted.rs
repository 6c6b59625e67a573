//! What is masked in /proc and /sys stays so.

use nix::mount::{MntFlags, umount2};

use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    open: |field| field.naive(|naive| naive.masks = true),
    ..Case::new(
        "masks_unmounted",
        "unmounts what covers /proc/keys, /proc/interrupts and /proc/sys",
        attack,
    )
};

fn attack(tries: &Tries, _: &[&str]) {
    for path in ["/proc/keys", "/proc/interrupts", "/proc/timer_list", "/proc/sys"] {
        let unmounted = umount2(path, MntFlags::MNT_DETACH);
        tries.of(&format!("unmount {path}"), unmounted.map(|()| "done"));
    }
}
