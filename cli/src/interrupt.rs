//! Signals that end moat while it makes something that must not be left half-made: they are held
//! back, the work is undone, and moat then ends as it was asked to.

use moat_core::diagnose::{Code, Fault};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::disposition::is_ignored;

/// Those that a terminal or a service manager sends to end a program.
const ENDING: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// Holds the ending signals back until it is dropped.
pub(crate) struct Interrupt {
    held: SigSet,
    waiting: SignalFd,
    came: Option<Signal>,
}

impl Interrupt {
    /// From here on. Called before other threads are started, which would take the signals.
    pub(crate) fn hold() -> Result<Self, Fault> {
        let failed =
            |errno: Errno| Fault::new(Code::State, "signals can't be held back").because(errno);
        let ignored = ignored();
        let held: SigSet = ENDING.into_iter().filter(|signal| !ignored.contains(*signal)).collect();
        held.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let waiting = SignalFd::with_flags(&held, flags).map_err(failed)?;
        Ok(Self { held, waiting, came: None })
    }

    /// Whether a signal came. A second one then ends moat at once.
    pub(crate) fn came(&mut self) -> bool {
        if self.came.is_none()
            && let Ok(Some(info)) = self.waiting.read_signal()
        {
            let number = i32::try_from(info.ssi_signo).ok();
            self.came = number.and_then(|number| Signal::try_from(number).ok());
            let _ = self.held.thread_unblock();
        }
        self.came.is_some()
    }
}

impl Drop for Interrupt {
    /// Now the signal has the effect that it would have had.
    fn drop(&mut self) {
        if let Some(signal) = self.came {
            // No reason to fail is known (raise(3)); moat would go on to its error message.
            let _ = raise(signal);
        }
        let _ = self.held.thread_unblock();
    }
}

/// The signals that whoever started moat wants ignored, as nohup(1) does: held back, they would be
/// seen all the same.
pub(crate) fn ignored() -> SigSet {
    Signal::iterator().filter(|signal| is_ignored(*signal)).collect()
}
