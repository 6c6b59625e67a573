//! Pseudo-terminals, by ioctl_tty(2).
//!
//! Unsafe because ioctl is: each request here takes no argument, an int or a pointer to the one
//! structure that it documents, which lives across the call.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use moat_core::sandbox::TerminalSize;
use nix::errno::Errno;

/// Unlocks the other end of a master and opens it, without going by any path.
///
/// # Errors
/// The kernel's.
pub fn open_peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and gives a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes standard input the controlling terminal of the session that the caller leads.
///
/// # Errors
/// The kernel's.
pub fn take_control() -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an int.
    Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets a terminal's size; its foreground processes get SIGWINCH when it changes.
///
/// # Errors
/// The kernel's.
pub fn resize(terminal: BorrowedFd<'_>, size: TerminalSize) -> nix::Result<()> {
    let size =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

/// A terminal's size.
///
/// # Errors
/// The kernel's: `ENOTTY` when it is none.
pub fn size(terminal: BorrowedFd<'_>) -> nix::Result<TerminalSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills a winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(TerminalSize { columns: size.ws_col, rows: size.ws_row })
}
