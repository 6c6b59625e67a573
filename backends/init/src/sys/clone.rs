//! clone3(2), and the processes it makes.
//!
//! Unsafe because a process made with the raw call shares nothing that needs care but its copy of
//! memory: clone3 is called without `CLONE_VM` and with a null stack, so the child runs on its copy
//! of the caller's stack, like after fork(2). What fork(3) adds over it is locking the allocator
//! against other threads, so the caller must be single-threaded; [`spawn`] says so.
//! [`spawn_to_exec`] is argued at its place.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use moat_core::sandbox::ExitStatus;
use moat_core::spec::Signal;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::process::kill_group;

// linux/sched.h; the libc crate gives it a type that is too small for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Namespaces that a new process gets of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// None of its own.
    pub const NONE: Self = Self(0);
    /// user_namespaces(7)
    pub const USER: Self = Self::flag(libc::CLONE_NEWUSER);
    /// mount_namespaces(7)
    pub const MOUNT: Self = Self::flag(libc::CLONE_NEWNS);
    /// pid_namespaces(7)
    pub const PID: Self = Self::flag(libc::CLONE_NEWPID);
    /// ipc_namespaces(7)
    pub const IPC: Self = Self::flag(libc::CLONE_NEWIPC);
    /// uts_namespaces(7)
    pub const UTS: Self = Self::flag(libc::CLONE_NEWUTS);
    /// network_namespaces(7)
    pub const NETWORK: Self = Self::flag(libc::CLONE_NEWNET);
    /// cgroup_namespaces(7)
    pub const CGROUP: Self = Self::flag(libc::CLONE_NEWCGROUP);

    const fn flag(flag: libc::c_int) -> Self {
        Self(flag.cast_unsigned() as u64)
    }
}

/// Gives the calling process new namespaces in place of those it is in (unshare(2)); a pid
/// namespace is for its children alone.
///
/// # Errors
/// unshare(2)'s.
pub fn unshare(namespaces: Namespaces) -> nix::Result<()> {
    if namespaces == Namespaces::NONE {
        return Ok(());
    }
    // All are bits of clone(2)'s flags, an int.
    let flags = libc::c_int::try_from(namespaces.0).map_err(|_| Errno::EINVAL)?;
    nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(flags))
}

impl std::ops::BitOr for Namespaces {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How to make a process.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The namespaces of its own.
    pub namespaces: Namespaces,
    /// The directory of the cgroup v2 group that it is born in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A child process, held by a descriptor so that its pid can't be mistaken for another's.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// The stack of a process made by [`spawn_to_exec`], in bytes; pages that it does not touch cost
/// nothing.
const STACK: usize = 512 << 10;

/// Makes a child process that is to become another program, and comes back once it has, or once
/// `body` has given the reason why not, with which the child ends.
///
/// Until then the child uses the caller's memory, and the caller stands still (clone(2),
/// `CLONE_VM` and `CLONE_VFORK`): nothing is copied. What `body` leaves in memory stays there;
/// descriptors, ids, signal handlers and limits that it changes are the child's alone.
///
/// The calling process must have no other thread.
///
/// # Errors
/// clone(2)'s and mmap(2)'s.
pub fn spawn_to_exec<E>(body: impl FnOnce() -> E) -> nix::Result<Result<Child, E>> {
    let mut call = Call { body: Some(body), gave: None };
    let stack = Stack::new(STACK)?;
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `carry_out` is given the `Call` it expects, which lives until the child has left this
    // memory: the caller stands still for as long. The stack is the child's alone, aligned as
    // mmap(2) gives it, and unmapped only after that too. The pidfd is written by the kernel.
    let pid = Errno::result(unsafe {
        libc::clone(
            carry_out_for(&call),
            stack.top(),
            flags,
            std::ptr::from_mut(&mut call).cast(),
            &raw mut pidfd,
        )
    })?;
    // SAFETY: the kernel has put a new descriptor there, since CLONE_PIDFD was asked for.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let child = Child { pid: Pid::from_raw(pid), pidfd };
    Ok(match call.gave {
        None => Ok(child),
        Some(reason) => {
            child.wait()?;
            Err(reason)
        }
    })
}

/// What a process made by [`spawn_to_exec`] is to do, and what came of it.
struct Call<F, E> {
    body: Option<F>,
    gave: Option<E>,
}

/// `carry_out` for this kind of call.
fn carry_out_for<F: FnOnce() -> E, E>(
    _: &Call<F, E>,
) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
    carry_out::<F, E>
}

extern "C" fn carry_out<F: FnOnce() -> E, E>(call: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn_to_exec` passes a `Call` of this type, and touches it only after the child.
    let call = unsafe { &mut *call.cast::<Call<F, E>>() };
    call.gave = call.body.take().map(|body| body());
    // The C library ends the child with this status, and runs no exit handler (clone(3)).
    1
}

/// Memory for another process's stack; a page below it that can't be touched.
struct Stack {
    memory: std::ptr::NonNull<libc::c_void>,
    size: std::num::NonZeroUsize,
}

impl Stack {
    fn new(size: usize) -> nix::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
        let size = std::num::NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, where nothing else is.
        let memory = unsafe { mmap_anonymous(None, size, access, flags) }?;
        let stack = Self { memory, size };
        // SAFETY: the first page of that mapping, which nobody uses yet.
        unsafe { mprotect(memory, 4096, ProtFlags::PROT_NONE) }?;
        Ok(stack)
    }

    /// Where it begins: stacks grow downwards.
    fn top(&self) -> *mut libc::c_void {
        self.memory.as_ptr().wrapping_byte_add(self.size.get())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: its own mapping, whose user has ended or has other memory by now.
        let _ = unsafe { nix::sys::mman::munmap(self.memory, self.size.get()) };
    }
}

/// Makes a child process that runs `body` and ends with what it gives as status.
///
/// The calling process must have no other thread: one that held the allocator's lock at this
/// moment would leave it locked in the child for ever.
///
/// # Errors
/// clone(2)'s: `EPERM` and `ENOSPC` when namespaces may not be made, `EAGAIN` at a process limit.
pub fn spawn(options: Options<'_>, body: impl FnOnce() -> u8) -> nix::Result<Child> {
    let mut flags = options.namespaces.0;
    let mut cgroup = 0;
    if let Some(dir) = options.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::try_from(dir.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    }
    clone3(flags, libc::SIGCHLD.cast_unsigned().into(), cgroup, body)
}

/// As [`spawn`], but the process is a child of the caller's own parent, who must be told of it, for
/// the caller can't wait for it. It has the signal that the caller has for its end.
///
/// # Errors
/// clone(2)'s: `ENOMEM` when the pid namespace that it would be in takes no more.
pub fn spawn_sibling(body: impl FnOnce() -> u8) -> nix::Result<Child> {
    clone3(Namespaces::flag(libc::CLONE_PARENT).0, 0, 0, body)
}

fn clone3(
    flags: u64,
    exit_signal: u64,
    cgroup: u64,
    body: impl FnOnce() -> u8,
) -> nix::Result<Child> {
    let mut pidfd: RawFd = -1;
    let flags = flags | Namespaces::flag(libc::CLONE_PIDFD).0;
    let args = libc::clone_args {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: `args` is a whole clone_args whose size is passed; its one pointer is to `pidfd`,
    // which lives across the call. See the head of this file for the child.
    let pid = Errno::result(unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        let status = body();
        // SAFETY: ends the child without running the parent's exit handlers a second time.
        unsafe { libc::_exit(status.into()) }
    }
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: the kernel has put a new descriptor there, since CLONE_PIDFD was asked for.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: Pid::from_raw(pid), pidfd })
}

impl Child {
    /// A child of the calling process that another has made ([`spawn_sibling`]), as that has said.
    pub(crate) fn received(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd }
    }

    /// Its pid in the caller's namespace; valid until it has been waited for.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal. To one that has ended it does nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        signal_pidfd(self.pidfd.as_fd(), signal)
    }

    /// As [`Child::signal`]; but those of a terminal's keys reach the whole group that it leads, as
    /// a terminal has it (termios(3), `VINTR` and `VQUIT`). Only before it is reaped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal_as_keys(&self, signal: Signal) -> nix::Result<()> {
        let keyed = matches!(signal, Signal::INT | Signal::QUIT);
        if keyed && kill_group(self.pid, signal).is_ok() {
            return Ok(());
        }
        self.signal(signal)
    }

    /// Stops it, and waits until all its threads stand still; false when they do not in time, and it
    /// goes on then.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop(&self, patience: Duration) -> nix::Result<bool> {
        let until = Instant::now() + patience;
        self.signal(Signal::STOP)?;
        loop {
            if self.await_change(libc::WSTOPPED | libc::WNOHANG)?.is_some() {
                return Ok(true);
            }
            if until <= Instant::now() {
                self.signal(Signal::CONT)?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it ends, and reaps it. Only once.
    ///
    /// # Errors
    /// `ECHILD` when it was reaped before.
    pub fn wait(&self) -> nix::Result<ExitStatus> {
        self.reap(0).and_then(|status| status.ok_or(Errno::ECHILD))
    }

    /// Reaps it if it has ended.
    ///
    /// # Errors
    /// `ECHILD` when it was reaped before.
    pub fn try_wait(&self) -> nix::Result<Option<ExitStatus>> {
        self.reap(libc::WNOHANG)
    }

    fn reap(&self, flags: libc::c_int) -> nix::Result<Option<ExitStatus>> {
        let change = self.await_change(libc::WEXITED | flags)?;
        Ok(change.map(|(code, status)| exit_status(code, status)))
    }

    /// What waitid(2) says of it, as `si_code` and `si_status`.
    fn await_change(&self, flags: libc::c_int) -> nix::Result<Option<(libc::c_int, libc::c_int)>> {
        let id = self.pidfd.as_raw_fd().cast_unsigned();
        loop {
            // SAFETY: siginfo_t is plain data for which all zeroes is a value.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: `info` is a whole siginfo_t that lives across the call.
            let result =
                Errno::result(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) });
            match result {
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
                Ok(_) => {}
            }
            // SAFETY: after waitid the fields of a SIGCHLD are set, or all is zero if none ended.
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            return Ok((pid != 0).then_some((info.si_code, status)));
        }
    }
}

impl AsFd for Child {
    /// The pidfd: readable when the child has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What waitid(2) says, in moat's words.
pub(crate) fn exit_status(code: libc::c_int, status: libc::c_int) -> ExitStatus {
    match code {
        libc::CLD_EXITED => ExitStatus::Code(status.to_le_bytes()[0]),
        _ => ExitStatus::Signal(Signal::from_number(status).unwrap_or(Signal::KILL)),
    }
}

/// Waits for the calling process's children in this process group, until there are none.
///
/// # Errors
/// waitid(2)'s.
pub fn reap_group(group: Pid) -> nix::Result<()> {
    loop {
        // SAFETY: siginfo_t is plain data for which all zeroes is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = group.as_raw().cast_unsigned();
        // SAFETY: `info` is a whole siginfo_t that lives across the call.
        let result =
            Errno::result(unsafe { libc::waitid(libc::P_PGID, id, &raw mut info, libc::WEXITED) });
        match result {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Opens a process of another moat's by its pid (pidfd_open(2)).
///
/// # Errors
/// `ESRCH` when there is none.
pub fn open_pid(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process that `pidfd` is; to one that has ended it does nothing.
///
/// # Errors
/// The kernel's.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and stands for that of kill(2).
    let result = Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal.number(), info, 0)
    });
    match result {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}
