//! From a command's process to one that outlives it.
//!
//! Unsafe because of fork(2), which copies one thread alone: what another held would be held for
//! ever. moat has no other thread then, and the C library's own locks are seen to by itself. What is
//! closed by number was inherited, and nothing in moat knows of it.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

/// Which process one is after [`begin`].
pub(crate) enum Side {
    /// The command's.
    Command,
    /// The one that stays: alone in a session of its own, in `/`, on what the command had as stdin,
    /// stdout and stderr.
    Stays,
}

/// Closes what moat was started with, but for stdin, stdout and stderr: whoever waits for the end of
/// a pipe shall not wait for a workload's. All that moat opens itself would be closed by execve(2),
/// and what has come to it was not.
fn close_inherited() {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        // SAFETY: takes numbers alone.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags != -1 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: see the head of this file; it is open, and nobody's.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

/// Makes the process that stays.
///
/// # Errors
/// The kernel's: `EAGAIN` when there are too many processes.
pub(crate) fn begin() -> nix::Result<Side> {
    // SAFETY: see the head of this file.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(Side::Command),
        ForkResult::Child => {
            close_inherited();
            #[cfg(debug_assertions)]
            crate::fault_point::adopt();
            // Neither fails for a process that was just made.
            let _ = setsid();
            let _ = chdir(Path::new("/"));
            Ok(Side::Stays)
        }
    }
}

/// What can be stdin, stdout and stderr of a process.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) input: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) errors: OwnedFd,
}

impl Streams {
    /// Those of this process.
    ///
    /// # Errors
    /// When they can't be duplicated.
    pub(crate) fn current() -> io::Result<Self> {
        Ok(Self {
            input: io::stdin().as_fd().try_clone_to_owned()?,
            output: io::stdout().as_fd().try_clone_to_owned()?,
            errors: io::stderr().as_fd().try_clone_to_owned()?,
        })
    }

    /// Those that lead nowhere.
    ///
    /// # Errors
    /// When /dev/null can't be opened.
    pub(crate) fn nowhere() -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(Self {
            input: null.try_clone()?.into(),
            output: null.try_clone()?.into(),
            errors: null.into(),
        })
    }

    /// Puts them in the places of those that this process has.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn put(&self) -> io::Result<()> {
        dup2_stdin(self.input.as_fd())?;
        dup2_stdout(self.output.as_fd())?;
        Ok(dup2_stderr(self.errors.as_fd())?)
    }
}
