//! Programs that end when the moat that started them is killed: an orphaned build would go on for
//! minutes, in a directory that the next moat sweeps.
//!
//! Unsafe only for running code between fork and exec. That code is two system calls on plain
//! numbers: it takes no lock and allocates nothing, so it is sound in the child of a process with
//! threads.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// The program gets SIGTERM when the thread that starts it ends: `make` passes it on to all that
/// it runs, which SIGKILL would orphan.
pub(super) fn tether(command: &mut Command) {
    let us = getpid();
    let tie = move || {
        set_pdeathsig(Signal::SIGTERM)?;
        // Killed before that: nobody is left to send it (PR_SET_PDEATHSIG(2const)).
        if getppid() == us { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    };
    // SAFETY: `tie` makes system calls only. An error of nix is a number, and one of io of that
    // kind holds nothing on the heap.
    unsafe { command.pre_exec(tie) };
}
