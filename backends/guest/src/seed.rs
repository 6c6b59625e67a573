#![allow(unsafe_code)]
//! The wall clock and the kernel's random generator, from what the host sent.
//!
//! # Safety
//! The one unsafe call is ioctl(2) `RNDADDENTROPY` (random(4)), which reads a `rand_pool_info`
//! with `buf_size` bytes behind it; [`PoolInfo`] is that layout with the bytes in place.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

/// `RNDADDENTROPY`, `_IOW('R', 0x03, int [2])` (linux/random.h).
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;

/// `struct rand_pool_info` (linux/random.h) with 32 bytes.
#[repr(C)]
struct PoolInfo {
    /// Bits of entropy credited.
    entropy_count: c_int,
    /// Bytes that follow.
    buf_size: c_int,
    buf: [u8; 32],
}

/// Sets the wall clock to so many nanoseconds since 1970.
pub(crate) fn set_clock(nanos: u64) -> Result<(), Errno> {
    let seconds = i64::try_from(nanos / 1_000_000_000).map_err(|_| Errno::EINVAL)?;
    let rest = i64::try_from(nanos % 1_000_000_000).map_err(|_| Errno::EINVAL)?;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, rest))
}

/// So far may the wall clock be off before it is set again. A message takes its time too.
const TOLERANCE: i128 = 500_000_000;

/// Sets the wall clock, unless it is right already, as the host's processor's own clock mostly keeps
/// it.
pub(crate) fn correct_clock(nanos: u64) -> Result<(), Errno> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    let now = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    if (now - i128::from(nanos)).abs() <= TOLERANCE { Ok(()) } else { set_clock(nanos) }
}

/// Adds the bytes to the kernel's generator and credits them in full.
pub(crate) fn add_entropy(bytes: [u8; 32]) -> std::io::Result<()> {
    let random = File::options().write(true).open("/dev/random")?;
    let info = PoolInfo { entropy_count: 256, buf_size: 32, buf: bytes };
    // SAFETY: the descriptor is open, and the kernel reads `buf_size` bytes behind the two
    // integers, all of which lie in `info`, which outlives the call.
    let result = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    Errno::result(result).map(drop).map_err(std::io::Error::from)
}
