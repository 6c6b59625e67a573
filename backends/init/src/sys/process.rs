//! What a process can ask about itself and its children, by numbers that nix has no types for.
//!
//! Unsafe because they are raw calls: each passes null or pointers to whole structures that live
//! across the call and that the kernel only reads or fills. `aside` is argued at its place.
#![allow(unsafe_code)]

use moat_core::sandbox::ExitStatus;
use moat_core::spec::{Resource, Signal};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::clone::exit_status;

/// Gives every signal its default effect and takes every one from the mask: both are inherited
/// over exec, and moat's caller or runtime may have ignored some (SIGPIPE).
pub fn reset_signals() {
    // The kernel's own structure, all zeroes: SIG_DFL, no flags, no mask. By the raw call, since
    // the C library keeps two signals to itself, which may be ignored as well.
    let default = [0u64; 4];
    let old = std::ptr::null_mut::<u64>();
    for number in 1..=64 {
        // SAFETY: rt_sigaction(2) reads the four words of a kernel sigaction and writes nothing to
        // null; the two signals that can't be changed just fail.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), old, size_of::<u64>())
        };
    }
    // SAFETY: an all-zero sigset_t is the empty set.
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: reads `empty`, writes nothing back.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()) };
}

/// Leaves the session keyring of whoever started moat for an empty one, which the workload may
/// have (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`). The default filter lets no call about keys
/// pass, so where there are no keys, or no room for more, nothing is lost by that.
pub(crate) fn leave_keyring() {
    // linux/keyctl.h
    const JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name stands for a new keyring without one.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) };
}

/// Sends a signal to a process group, which has no descriptor before Linux 6.9 but only its
/// leader's number. That is no other's as long as the leader was not reaped: so only for one that
/// the caller alone can reap, and has not.
///
/// # Errors
/// The kernel's.
pub fn kill_group(leader: Pid, signal: Signal) -> nix::Result<()> {
    // 0 and 1 would stand for the caller's own group, and for everybody (kill(2)).
    if leader.as_raw() <= 1 {
        return Err(Errno::ESRCH);
    }
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::kill(-leader.as_raw(), signal.number()) }).map(drop)
}

/// Reaps one child that has ended, if there is one.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub fn reap_any() -> nix::Result<Option<(Pid, ExitStatus)>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a whole siginfo_t that lives across the call.
    Errno::result(unsafe {
        libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG)
    })?;
    // SAFETY: after waitid the fields of a SIGCHLD are set, or all is zero if none ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then(|| (Pid::from_raw(pid), exit_status(info.si_code, status))))
}

/// The kernel's number of a resource (setrlimit(2)).
pub fn resource_number(resource: Resource) -> libc::__rlimit_resource_t {
    match resource {
        Resource::As => libc::RLIMIT_AS,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Cpu => libc::RLIMIT_CPU,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Locks => libc::RLIMIT_LOCKS,
        Resource::Memlock => libc::RLIMIT_MEMLOCK,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Nproc => libc::RLIMIT_NPROC,
        Resource::Rtprio => libc::RLIMIT_RTPRIO,
        Resource::Rttime => libc::RLIMIT_RTTIME,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING,
        Resource::Stack => libc::RLIMIT_STACK,
    }
}

/// Soft and hard limit of the process `pid`; 0 is the caller. `u64::MAX` is without limit.
///
/// # Errors
/// prlimit(2)'s.
pub fn limits(pid: Pid, resource: Resource) -> nix::Result<(u64, u64)> {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `old` is a whole rlimit that lives across the call; null sets nothing.
    Errno::result(unsafe {
        libc::prlimit(pid.as_raw(), resource_number(resource), std::ptr::null(), &raw mut old)
    })?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// Sets soft and hard limit of the process `pid`; 0 is the caller.
///
/// # Errors
/// prlimit(2)'s: `EPERM` when a hard limit would be raised without the right to.
pub fn set_limits(pid: Pid, resource: Resource, (soft, hard): (u64, u64)) -> nix::Result<()> {
    let new = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    let old = std::ptr::null_mut();
    // SAFETY: `new` is a whole rlimit that lives across the call; null fetches nothing.
    Errno::result(unsafe {
        libc::prlimit(pid.as_raw(), resource_number(resource), &raw const new, old)
    })
    .map(drop)
}
