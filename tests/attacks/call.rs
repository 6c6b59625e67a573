//! System calls as an attacker makes them: by number, past every library.
//!
//! Unsafe because they are raw. An argument that is a pointer is that of a borrow, which outlives
//! the call; how much the kernel reads or writes there is up to the attack, which gives whole
//! structures and room enough. The program around it attacks and ends: it has one thread, so that a
//! forked child may go on running its code.
#![allow(unsafe_code)]

use std::arch::asm;
use std::ffi::CStr;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// An argument of a system call.
pub(crate) enum Arg<'a> {
    /// A number.
    N(i64),
    /// A string.
    S(&'a CStr),
    /// Bytes that the kernel reads.
    B(&'a [u8]),
    /// Bytes that the kernel writes.
    Room(&'a mut [u8]),
}

/// Makes a system call.
///
/// # Errors
/// The kernel's, or a filter's.
pub(crate) fn call<const COUNT: usize>(
    number: libc::c_long,
    arguments: [Arg<'_>; COUNT],
) -> nix::Result<i64> {
    let mut words = [0; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Arg::N(number) => number,
            Arg::S(text) => text.as_ptr() as i64,
            Arg::B(bytes) => bytes.as_ptr() as i64,
            Arg::Room(bytes) => bytes.as_mut_ptr() as i64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: see the head of this file.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// Makes a system call by the i386 door, `int 0x80`, with i386's own numbers.
///
/// # Errors
/// The kernel's; a filter may well end the process instead.
pub(crate) fn call_i386(number: u32, arguments: [u32; 3]) -> nix::Result<i32> {
    let [first, second, third] = arguments.map(u64::from);
    let result: i64;
    // SAFETY: no argument is a pointer; rbx, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) first => _,
            inlateout("rax") i64::from(number) => result,
            in("rcx") second,
            in("rdx") third,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let result = i32::from_le_bytes([0, 1, 2, 3].map(|at: usize| result.to_le_bytes()[at]));
    if (-4095..0).contains(&result) { Err(Errno::from_raw(-result)) } else { Ok(result) }
}

/// Runs this in a child process, which ends with what it gives, and waits for it.
///
/// # Errors
/// fork(2)'s and waitpid(2)'s.
pub(crate) fn apart(body: impl FnOnce() -> i32) -> nix::Result<WaitStatus> {
    waitpid(child(body)?, None)
}

/// Starts a child process that runs this and ends with what it gives.
///
/// # Errors
/// fork(2)'s.
pub(crate) fn child(body: impl FnOnce() -> i32) -> nix::Result<Pid> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = body();
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Makes a process as clone3(2) does, in new namespaces by these flags, and ends it.
///
/// # Errors
/// clone3(2)'s.
pub(crate) fn clone3(flags: u64) -> nix::Result<i64> {
    // struct clone_args (clone(2)): flags, pidfd, child_tid, parent_tid, exit_signal.
    let mut words = [0_u64; 8];
    words[0] = flags;
    words[4] = 17;
    // SAFETY: the structure is whole, and without a stack the child runs on a copy of this one.
    let pid = Errno::result(unsafe {
        libc::syscall(libc::SYS_clone3, words.as_ptr(), size_of_val(&words))
    })?;
    if pid == 0 {
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(0) }
    }
    Ok(pid)
}

/// As [`clone3`], by clone(2).
///
/// # Errors
/// clone(2)'s.
pub(crate) fn clone(flags: libc::c_int) -> nix::Result<i64> {
    // SAFETY: as of clone3 above.
    let pid = Errno::result(unsafe {
        libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0)
    })?;
    if pid == 0 {
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(0) }
    }
    Ok(pid)
}
