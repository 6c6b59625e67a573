//! What happens at the fault point that `MOAT_FAULT_POINT` names; in builds with debug assertions
//! alone.
//!
//! `NAME` ends moat itself by SIGKILL, from whichever process is there, which goes on when that is
//! done: so moat dies just then, and the other learns of it as it would in life. `NAME:self` ends
//! the process that is there, moat or another; `NAME:halt` stops it until SIGCONT comes.
//!
//! A container's first process has no way to signal moat: it is in a pid namespace of its own, and
//! may be another user. So the kernel is told beforehand to do it, by a pipe whose arriving bytes
//! are announced to moat with SIGKILL (fcntl(2), `F_SETSIG`).
//!
//! Unsafe because of calls that nix has no types for: they take numbers alone. The descriptors of
//! the pipe belong to this module until the process ends; only a process that was forked closes
//! its copy of one.
#![allow(unsafe_code)]

use std::env;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use moat_core::fault_point::{FaultPoint, Hook};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2, write};

/// asm-generic/fcntl.h; the libc crate has it not.
const F_SETSIG: libc::c_int = 10;

/// What moat was asked to do, and the pipe.
static ASKED: OnceLock<Asked> = OnceLock::new();

/// Whether it has stood still already: some points are reached more than once.
static HALTED: AtomicBool = AtomicBool::new(false);

struct Asked {
    point: FaultPoint,
    effect: Effect,
    moat: AtomicU32,
    read: RawFd,
    write: RawFd,
}

/// What happens at the point.
enum Effect {
    EndMoat,
    EndSelf,
    Halt,
}

/// Goes by the variable, if it names a point.
///
/// # Errors
/// The kernel's; `EINVAL` for a name that no point has.
pub(crate) fn install() -> nix::Result<()> {
    let Ok(value) = env::var("MOAT_FAULT_POINT") else { return Ok(()) };
    let (name, effect) = match value.split_once(':') {
        None => (value.as_str(), Effect::EndMoat),
        Some((name, "self")) => (name, Effect::EndSelf),
        Some((name, "halt")) => (name, Effect::Halt),
        Some(_) => return Err(Errno::EINVAL),
    };
    let mut points = FaultPoint::ALL.iter();
    let point = *points.find(|point| format!("{point:?}") == name).ok_or(Errno::EINVAL)?;
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    announce_to(read.as_raw_fd(), process::id())?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_ASYNC))?;
    let (read, write) = (read.into_raw_fd(), write.into_raw_fd());
    let _ = ASKED.set(Asked { point, effect, moat: AtomicU32::new(process::id()), read, write });
    Hook { reached, descriptor: write }.set();
    Ok(())
}

/// Bytes that arrive are announced to this process with SIGKILL.
fn announce_to(read: RawFd, pid: u32) -> nix::Result<()> {
    for (command, value) in [(libc::F_SETOWN, pid.cast_signed()), (F_SETSIG, libc::SIGKILL)] {
        // SAFETY: takes no pointer.
        Errno::result(unsafe { libc::fcntl(read, command, value) })?;
    }
    Ok(())
}

/// From now on the calling process is moat: it was forked to stay.
pub(crate) fn adopt() {
    if let Some(asked) = ASKED.get() {
        // One that can't be told is not killed, which the test sees.
        let _ = announce_to(asked.read, process::id());
        asked.moat.store(process::id(), Ordering::Relaxed);
    }
}

fn reached(point: FaultPoint) {
    if let Some(asked) = ASKED.get().filter(|asked| asked.point == point) {
        match asked.effect {
            Effect::EndMoat => asked.end_moat(),
            Effect::EndSelf => asked.end_self(),
            // One that can't be stopped goes on.
            Effect::Halt if HALTED.swap(true, Ordering::Relaxed) => {}
            Effect::Halt => drop(kill(Pid::this(), Signal::SIGSTOP)),
        }
    }
}

impl Asked {
    fn end_moat(&self) {
        if process::id() != self.moat.load(Ordering::Relaxed) {
            // SAFETY: this forked process's copy, which nothing uses; it may be closed already.
            unsafe { libc::close(self.read) };
        }
        // SAFETY: open until the process ends, see the head of this file.
        let pipe = unsafe { BorrowedFd::borrow_raw(self.write) };
        let _ = write(pipe, b"!");
        // The other end is gone when moat is.
        let mut gone = [PollFd::new(pipe, PollFlags::empty())];
        while poll(&mut gone, PollTimeout::NONE) == Err(Errno::EINTR) {}
    }

    /// The first process of a pid namespace can't kill itself; but abort(3) ends it all the same.
    fn end_self(&self) {
        if process::id() == self.moat.load(Ordering::Relaxed) {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        process::abort();
    }
}
