//! Descriptors of a fresh process: which stay open, and on which numbers.
//!
//! Unsafe because closing or replacing a descriptor by number takes it from whatever value owns
//! it. Both calls are made in a process that is about to become the workload: `keep_only` leaves
//! the named ones, and no value that owns another is used or dropped after it (the process ends
//! with exec or _exit); `become_stdio` replaces 0, 1 and 2, which no value owns.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::statfs::{FsType, fstatfs};

/// Closes every descriptor but 0, 1, 2 and those named. Values that own another must not be used
/// or dropped afterwards.
///
/// # Errors
/// The kernel's: `ENOSYS` before Linux 5.9.
pub fn keep_only(keep: &mut [RawFd]) -> nix::Result<()> {
    keep.sort_unstable();
    let mut first = 3;
    for &fd in keep.iter().filter(|fd| **fd >= 3) {
        let fd = fd.cast_unsigned();
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: see the head of this file.
    Errno::result(unsafe { libc::close_range(first, last, 0) }).map(drop)
}

/// Puts three descriptors on 0, 1 and 2. Each may be one of these numbers already.
///
/// # Errors
/// The kernel's.
pub fn become_stdio(stdio: &[OwnedFd; 3]) -> nix::Result<()> {
    // First out of the way of one another, then into place.
    let mut high = [-1; 3];
    for (slot, fd) in high.iter_mut().zip(stdio) {
        // SAFETY: makes a new descriptor; nothing is replaced.
        *slot = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })?;
    }
    for (number, fd) in (0..).zip(high) {
        // SAFETY: replaces 0, 1 or 2, see the head of this file; dup2 clears close-on-exec.
        Errno::result(unsafe { libc::dup2(fd, number) })?;
    }
    Ok(())
}

/// Whether it is a pipe without a name.
pub fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    /// `PIPEFS_MAGIC` of linux/magic.h.
    const PIPEFS: FsType = FsType(0x5049_5045);
    fstatfs(fd).is_ok_and(|filesystem| filesystem.filesystem_type() == PIPEFS)
}

/// Points 0, 1 and 2 at /dev/null.
///
/// # Errors
/// The kernel's.
pub(crate) fn forget_stdio() -> nix::Result<()> {
    let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CLOEXEC;
    let null = nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty())?;
    for number in 0..3 {
        // SAFETY: replaces 0, 1 or 2, see the head of this file.
        Errno::result(unsafe { libc::dup2(null.as_raw_fd(), number) })?;
    }
    Ok(())
}
