//! A workload does not get before the host's own processes.

use std::fs;

use crate::call::{
    Arg::{B, N},
    call,
};
use crate::cases::Case;
use crate::field::{excused, root_may};
use crate::inside::{Tries, number};

pub(super) const CASE: Case = Case {
    open: |field| {
        let found = field.naive(|_| {})?;
        Ok(excused(found, |what| what != "no OOM kill" || root_may(SYS_RESOURCE)))
    },
    ..Case::new(
        "raised_priority",
        "asks for nice -20, real-time scheduling, real-time I/O, and freedom from the OOM killer",
        attack,
    )
};

/// CAP_SYS_RESOURCE
const SYS_RESOURCE: u32 = 24;

/// sched(7), ioprio_set(2)
const FIFO: i64 = 1;
const REAL_TIME_IO: i64 = 1 << 13;

fn attack(tries: &Tries, _: &[&str]) {
    tries.apart("nice -20", |tries| {
        tries.of("nice -20", call(libc::SYS_setpriority, [N(0), N(0), N(-20)]));
    });
    tries.apart("real time", |tries| {
        let priority = 1_i32.to_ne_bytes();
        let set = call(libc::SYS_sched_setscheduler, [N(0), N(FIFO), B(&priority)]);
        tries.of("real time", set);
    });
    tries.apart("real-time I/O", |tries| {
        tries.of("real-time I/O", call(libc::SYS_ioprio_set, [N(1), N(0), N(REAL_TIME_IO)]));
    });
    tries.apart("no OOM kill", |tries| {
        let set = fs::write("/proc/self/oom_score_adj", "-1000");
        tries.of("no OOM kill", set.map(|()| "set").map_err(|error| number(&error)));
    });
}
