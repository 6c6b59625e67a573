//! Owns a running workload: passes signals on, ends it in time, gives its exit.
//!
//! SIGTERM and SIGHUP ask the workload to end and give it its `stop_timeout`; SIGINT and the rest
//! are passed on as they are, and the third SIGINT ends it at once, for there must be a way out.
//! SIGWINCH and SIGCONT tell of moat's own terminal. Meanwhile it serves the control socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::{Instance, Journal};
use moat_core::sandbox::{Exit, ExitStatus};
use moat_core::spec::{Resolved, Signal};
use moat_host::terminal;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::capture::Capture;
use crate::control::Control;
use crate::interrupt;
use crate::resident;

/// The signals that keep their effect on moat itself. All others are held, so that none ends moat
/// before everything is undone.
const LEFT: [Number; 13] = [
    // What tells of a mistake in moat can't be put off.
    Number::SIGILL,
    Number::SIGTRAP,
    Number::SIGABRT,
    Number::SIGBUS,
    Number::SIGFPE,
    Number::SIGSEGV,
    Number::SIGSYS,
    // These stop moat, and SIGCONT lets it go on.
    Number::SIGTSTP,
    Number::SIGTTIN,
    Number::SIGTTOU,
    // These are ignored, and come of what moat does itself.
    Number::SIGCHLD,
    Number::SIGPIPE,
    Number::SIGURG,
];

/// So often SIGINT must come to end what does not end by it.
pub(crate) const INSISTENT: u8 = 3;

/// How long the kernel or the guest may take to carry out SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long nothing may happen before memory is given back that only work needs.
const REST: Duration = Duration::from_secs(1);

/// moat's own signals, held back from here on and read by [`Monitor::watch`].
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Holds them back. Called before anything is created, so that none can end moat half-way.
    pub(crate) fn hold() -> Result<Self, Fault> {
        let failed =
            |errno: Errno| Fault::new(Code::State, "signals can't be held back").because(errno);
        let mut set = SigSet::all();
        for signal in LEFT.into_iter().chain(&interrupt::ignored()) {
            set.remove(signal);
        }
        set.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).map_err(failed)?))
    }

    /// Readable when there is one.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next one that has come.
    pub(crate) fn next(&mut self) -> Result<Option<Signal>, Fault> {
        let read = self.0.read_signal();
        let info =
            read.map_err(|errno| Fault::new(Code::State, "signals can't be read").because(errno))?;
        Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()).and_then(Signal::from_number))
    }
}

/// When a workload that was asked to end is ended.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// It was not asked.
    Endless,
    /// It has until then.
    Until(Instant),
    /// SIGKILL was sent; the kernel has until then.
    Killed(Instant),
}

/// Whether memory is given back where nothing happens for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Not by a command in the foreground, whose workload is soon to end.
    Never,
    /// Something has happened.
    Due,
    /// Nothing has happened for a while.
    Now,
    /// It was given back, and nothing has happened since.
    Taken,
}

/// What watches over a workload that runs.
pub(crate) struct Monitor<'w> {
    workload: &'w Resolved,
    signals: Signals,
    control: Control,
    patience: Patience,
    interrupts: u8,
    rest: Rest,
}

impl<'w> Monitor<'w> {
    /// From now on the control socket in the instance's directory `dir` is there, and what comes of
    /// `capture` is kept. Not before the workload runs: nobody waits for it.
    pub(crate) fn open(
        workload: &'w Resolved,
        signals: Signals,
        dir: &Path,
        capture: Option<Capture>,
    ) -> Result<Self, Fault> {
        let rest = if capture.is_some() { Rest::Due } else { Rest::Never };
        let control = Control::open(dir, signals.as_fd(), capture)?;
        let patience = Patience::Endless;
        Ok(Self { workload, signals, control, patience, interrupts: 0, rest })
    }

    /// Waits for the workload's end, and serves those who ask meanwhile.
    pub(crate) fn watch<J: Journal>(&mut self, instance: &mut Instance<J>) -> Result<Exit, Fault> {
        loop {
            let limit = self.limit();
            self.rest();
            if let Some(exit) = instance.wait(Some(self.control.as_fd()), limit)? {
                return Ok(exit);
            }
            let busy = self.control.serve(instance);
            self.note(busy);
            if let Some(within) = self.control.take_stop() {
                let within = within.unwrap_or(self.workload.stop_timeout);
                self.end(self.workload.stop_signal, within, instance)?;
            }
            while let Some(signal) = self.signals.next()? {
                self.heed(signal, instance)?;
            }
            if let Some(exit) = self.insist(instance)? {
                return Ok(exit);
            }
        }
    }

    /// What serves those who ask.
    pub(crate) fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// Takes note of whether something has happened.
    fn note(&mut self, busy: bool) {
        self.rest = match (self.rest, busy) {
            (Rest::Never, _) => Rest::Never,
            (_, true) => Rest::Due,
            (Rest::Due, false) => Rest::Now,
            (rest, false) => rest,
        };
    }

    /// Gives memory back when it is time for that. Just before the wait: all that is done in between
    /// comes back into memory.
    fn rest(&mut self) {
        if self.rest == Rest::Now {
            self.rest = Rest::Taken;
            resident::give_back();
        }
    }

    /// How long there is patience yet, or until it is time to rest.
    fn limit(&self) -> Option<Duration> {
        let patience = match self.patience {
            Patience::Endless => None,
            Patience::Until(then) | Patience::Killed(then) => {
                Some(then.saturating_duration_since(Instant::now()))
            }
        };
        let rest = (self.rest == Rest::Due).then_some(REST);
        patience.into_iter().chain(rest).min()
    }

    /// Asks it to end, unless it was asked before; who asks again may have less patience.
    fn end<J: Journal>(
        &mut self,
        signal: Signal,
        within: Duration,
        instance: &mut Instance<J>,
    ) -> Result<(), Fault> {
        let then = Instant::now() + within;
        match self.patience {
            Patience::Endless => {
                // What does not even hear of it is ended in time all the same.
                if let Err(fault) = instance.stop(signal) {
                    tracing::warn!("{fault}");
                }
                self.patience = Patience::Until(then);
            }
            Patience::Until(before) => self.patience = Patience::Until(before.min(then)),
            Patience::Killed(_) => {}
        }
        Ok(())
    }

    fn heed<J: Journal>(
        &mut self,
        signal: Signal,
        instance: &mut Instance<J>,
    ) -> Result<(), Fault> {
        self.interrupts = self.interrupts.saturating_add(u8::from(signal == Signal::INT));
        let stops = matches!(signal, Signal::TERM | Signal::HUP);
        if signal == Signal::WINCH {
            return resize(instance);
        }
        if self.interrupts >= INSISTENT {
            self.patience = Patience::Until(Instant::now());
            return Ok(());
        }
        if stops && matches!(self.patience, Patience::Endless) {
            let signal = if signal == Signal::TERM { self.workload.stop_signal } else { signal };
            return self.end(signal, self.workload.stop_timeout, instance);
        }
        if signal == Signal::CONT {
            instance.retake_terminal()?;
            resize(instance)?;
        }
        instance.signal(signal)
    }

    /// Once patience is at an end: ends the workload, and gives an exit when not even that does.
    fn insist<J: Journal>(&mut self, instance: &mut Instance<J>) -> Result<Option<Exit>, Fault> {
        match self.patience {
            Patience::Until(then) if then <= Instant::now() => {
                instance.stop(Signal::KILL)?;
                self.patience = Patience::Killed(Instant::now() + KILL_TIMEOUT);
                Ok(None)
            }
            // The workload's kernel does not answer; destroying it needs no answer.
            Patience::Killed(then) if then <= Instant::now() => {
                Ok(Some(Exit { status: ExitStatus::Signal(Signal::KILL), oom: false }))
            }
            _ => Ok(None),
        }
    }
}

fn resize<J: Journal>(instance: &mut Instance<J>) -> Result<(), Fault> {
    match terminal::size(io::stdout()) {
        Some(size) => instance.resize(size),
        None => Ok(()),
    }
}
