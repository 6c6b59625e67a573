//! The kernel's counters are not for workloads.

use nix::errno::Errno;

use crate::call::{
    Arg::{B, N},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case {
    cve: Some("CVE-2013-2094"),
    ..Case::new(
        "perf_events",
        "opens a counter of the processor and one of the kernel by perf_event_open",
        attack,
    )
};

fn attack(tries: &Tries, _: &[&str]) {
    // struct perf_event_attr: PERF_TYPE_SOFTWARE, its first size, PERF_COUNT_SW_CPU_CLOCK.
    let mut attributes = [0_u8; 64];
    attributes[0] = 1;
    attributes[4] = 64;
    let own = [B(&attributes), N(0), N(-1), N(-1), N(0)];
    tries.of("its own clock", call(libc::SYS_perf_event_open, own).map(|_| "opened"));
    let all = [B(&attributes), N(-1), N(0), N(-1), N(0)];
    let all = call(libc::SYS_perf_event_open, all).map(|_| "opened");
    tries.door("everyone's on processor 0", all, &[Errno::ENODEV]);
}
