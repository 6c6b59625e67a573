//! The host's name and clock stay as they are.

use std::fs;

use nix::errno::Errno;

use crate::call::{
    Arg::{B, N, Room},
    call,
};
use crate::cases::Case;
use crate::inside::Tries;

pub(super) const CASE: Case = Case::new(
    "name_and_clock",
    "sets the host name (to what it is), the clock, the time zone (to an impossible one), and the clock's pace",
    attack,
);

/// `CLOCK_REALTIME` of clock_gettime(2).
const REALTIME: i64 = 0;

fn attack(tries: &Tries, _: &[&str]) {
    let name = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim_ascii();
    let length = i64::try_from(name.len()).unwrap_or_default();
    tries.of("sethostname", call(libc::SYS_sethostname, [B(name), N(length)]));
    // An impossible time zone, which is looked at after the rights.
    let zone = [100_000_i32, 0].map(i32::to_ne_bytes).concat();
    let set = call(libc::SYS_settimeofday, [N(0), B(&zone)]);
    tries.door("settimeofday", set, &[Errno::EINVAL]);
    let mut now = [0; 16];
    let set = call(libc::SYS_clock_gettime, [N(REALTIME), Room(&mut now)])
        .and_then(|_| call(libc::SYS_clock_settime, [N(REALTIME), B(&now)]));
    tries.of("clock_settime", set.map(|_| "set to now"));
    // struct timex: a tick that is out of range, after the rights, too.
    let mut timex = [0; 208];
    timex[..4].copy_from_slice(&0x4000_u32.to_ne_bytes());
    tries.door("adjtimex", call(libc::SYS_adjtimex, [Room(&mut timex)]), &[Errno::EINVAL]);
}
