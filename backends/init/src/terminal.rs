//! The workload's terminal, made in its own devpts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::sandbox::{StartError, TerminalSize};
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::Step;
use crate::inside;
use crate::sys::mount::{self, Depth};
use crate::sys::tty;

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: FsType = FsType(0x1cd1);

/// Both ends of a terminal.
pub(crate) struct Terminal {
    /// For who shows it.
    pub(crate) master: OwnedFd,
    /// For the workload.
    pub(crate) peer: OwnedFd,
}

/// Makes a terminal in the devpts below `root`, and /dev/console of it.
///
/// # Errors
/// The step that failed.
pub(crate) fn open(root: BorrowedFd<'_>, size: TerminalSize) -> Result<Terminal, StartError> {
    let made = make(root, size)?;
    let step = || "make a terminal";
    let console = mount::clone_tree(made.peer.as_fd(), "", Depth::One).step(step)?;
    let place = inside::find_straight(root, "/dev/console").step(step)?;
    mount::attach(console.as_fd(), place.as_fd()).step(step)?;
    Ok(made)
}

/// Makes a terminal in the devpts below `root`.
///
/// # Errors
/// The step that failed.
pub(crate) fn make(root: BorrowedFd<'_>, size: TerminalSize) -> Result<Terminal, StartError> {
    let step = || "make a terminal";
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let straight = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let master = inside::open(root, "/dev/pts/ptmx", flags, straight).step(step)?;
    // A workload may have been given the right to mount something else there.
    if fstatfs(&master).step(step)?.filesystem_type() != DEVPTS {
        Err("/dev/pts is something else".to_owned()).step(step)?;
    }
    let peer = tty::open_peer(master.as_fd()).step(step)?;
    tty::resize(master.as_fd(), size).step(step)?;
    Ok(Terminal { master, peer })
}
