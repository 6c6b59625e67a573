//! PID 1 of the workload's pid namespace: starts the workload as its child, passes signals on,
//! reaps what is orphaned, and ends when the workload does, whereupon the kernel kills the rest.

use std::os::fd::AsFd;

use moat_core::fault_point::FaultPoint;
use moat_core::sandbox::StartError;
use moat_core::spec::Signal;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::control::{First, Order};
use crate::error::Step;
use crate::launch::launch;
use crate::process::Program;
use crate::sys::clone::Child;
use crate::sys::{descriptor, process};

/// The status with which it ends when its owner is gone: that of a process ended by SIGKILL.
const ABANDONED: u8 = 137;

/// Does all that. Signals must be blocked already, so that none is lost on the way.
///
/// # Errors
/// Why the workload does not run.
pub(crate) fn run(program: Program, exposed: bool, control: &First) -> Result<u8, StartError> {
    let step = || "start the workload";
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::all(), flags).step(step)?;
    let child = start(&program, exposed)?;
    // The workload alone holds its stdin, stdout and stderr.
    drop(program);
    control.started().step(step)?;
    FaultPoint::SaidStarted.reached();
    // Whoever reads what the workload writes must see the end when the workload closes it.
    descriptor::forget_stdio().step(step)?;
    loop {
        let mut waiting = [
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).step(|| "wait for the workload"),
        }
        let [ordered, signalled] = waiting.map(|fd| fd.any().unwrap_or(false));
        if signalled {
            pass_on(&signals, &child);
            if let Some(status) = reap(child.pid()) {
                FaultPoint::WorkloadReaped.reached();
                // An owner that is gone does not ask.
                let _ = control.exited(status);
                return Ok(0);
            }
        }
        if ordered {
            match control.receive() {
                // One that has just ended needs no signal.
                Ok(Some(Order::Signal(signal))) => send(&child, signal),
                Ok(Some(Order::Proceed(_) | Order::Start)) => {}
                Ok(None) | Err(_) => return Ok(ABANDONED),
            }
        }
    }
}

fn start(program: &Program, exposed: bool) -> Result<Child, StartError> {
    let child = launch(program, exposed)?;
    // The child's change of user may have made this memory readable again (prctl(2),
    // `PR_SET_DUMPABLE`), depending on the machine's fs.suid_dumpable.
    prctl::set_dumpable(false).step(|| "start the workload")?;
    Ok(child)
}

/// Sends what has come in on to the workload.
fn pass_on(signals: &SignalFd, child: &Child) {
    while let Ok(Some(info)) = signals.read_signal() {
        let number = i32::try_from(info.ssi_signo).ok().and_then(Signal::from_number);
        if let Some(signal) = number.filter(|signal| signal.number() != libc::SIGCHLD) {
            send(child, signal);
        }
    }
}

/// Sends a signal to the workload. To one that has just ended it does nothing: once it is reaped,
/// this process ends.
fn send(child: &Child, signal: Signal) {
    let _ = child.signal_as_keys(signal);
}

/// Reaps every child that has ended; gives the workload's status if it is among them.
fn reap(child: Pid) -> Option<moat_core::sandbox::ExitStatus> {
    while let Ok(Some((pid, status))) = process::reap_any() {
        if pid == child {
            return Some(status);
        }
    }
    None
}
