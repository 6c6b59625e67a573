//! Asks for the first process to run beside the monitor, not behind it.
//!
//! For the next two milliseconds both have work. Most schedulers see to that by themselves when a
//! process is made (they look for the idlest processor); one that packs tasks on few processors,
//! as those of small virtual machines are set to, lets the new one wait until the other sleeps:
//! 4.2 instead of 3.5 ms for a whole start (docs/performance.md).

use std::fs;

use moat_init::sys::clone::Child;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// The processors that are online, as a list like `0-3,5` (sysfs, `ABI/stable/sysfs-devices-system-cpu`).
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Moves a process that has just been made off this processor, and leaves it every one that it
/// had. A matter of time alone: where it can't be done, all goes on as it would have.
pub(crate) fn move_apart(child: &Child) {
    // On more than 1,024 processors a CpuSet is too small: EINVAL.
    let Ok(own) = sched_getaffinity(Pid::from_raw(0)) else { return };
    let Ok(here) = sched_getcpu() else { return };
    let mut others = own;
    if others.unset(here).is_err() || count(&others) == 0 {
        return;
    }
    if sched_setaffinity(child.pid(), &others).is_ok() {
        // The child is where it shall be by now. What is set here stays with the workload: a set of
        // all, more than there are, never binds it, also not when the machine gets more; one that
        // leaves some out was somebody's wish.
        let after = if is_all(&own) { all() } else { own };
        let _ = sched_setaffinity(child.pid(), &after);
    }
}

fn count(set: &CpuSet) -> usize {
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count()
}

fn all() -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        // In range, therefore never refused.
        let _ = set.set(cpu);
    }
    set
}

/// Whether all processors that are online are in the set.
fn is_all(set: &CpuSet) -> bool {
    let online = fs::read_to_string(ONLINE).ok();
    online.and_then(|list| size(&list)).is_some_and(|online| online == count(set))
}

/// How many numbers are in a list like `0-3,5`.
fn size(list: &str) -> Option<usize> {
    list.trim_end().parse().ok().map(|set: moat_core::spec::CpuSet| set.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_counted() {
        assert_eq!(size("0\n"), Some(1));
        assert_eq!(size("0-3,5\n"), Some(5));
        assert_eq!(size("0-1,4-7"), Some(6));
        for bad in ["", "\n", "3-1", "a", "0-", "0,,1", "0-18446744073709551615"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn all_are_more_than_there_are() {
        assert_eq!(count(&all()), CpuSet::count());
        assert_eq!(count(&CpuSet::new()), 0);
    }
}
