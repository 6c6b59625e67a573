//! A micro-VM that was created: its agent is told what to run, its streams are passed on, its end
//! is waited for.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::{Exit, Sandbox, TerminalSize};
use moat_core::spec::Signal;
use moat_core::wire::{FromGuest, Message, Session, Start, ToGuest, VERSION};
use moat_core::workload::{
    Exec, Figures, Pause, SessionEvent, SessionId, Stats, Terminal, Workload,
};
use moat_host::machine::random;
use moat_host::terminal::Raw;

use super::figures::Asked;
use super::record::Remains;
use super::relay::{Relay, RelayError, Turn};
use super::vmm::{Ending, Vmm, VmmProcess};
use crate::kernel::Bundle;

/// How long a guest may take from its kernel's first instruction to its agent's first word. In the
/// software-emulated bed it takes several seconds.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(120);

/// How long the agent may take to set the workload up.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How long a VMM whose guest is gone may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A micro-VM of this process's own.
pub(super) struct Instance {
    pub(super) process: VmmProcess,
    /// What the user must know of it.
    warnings: Vec<String>,
    pub(super) relay: Relay,
    remains: Remains,
    pub(super) sandbox: Sandbox,
    bundle: Bundle,
    pub(super) exit: Option<Exit>,
    /// Whether the VMM stands still.
    pub(super) paused: bool,
    /// What the guest was asked that it uses.
    pub(super) figures: Asked,
    /// What it said of that last before it was stopped.
    pub(super) last: Option<Figures>,
    /// What was heard of further processes while something else was waited for.
    pub(super) news: VecDeque<(SessionId, SessionEvent)>,
    /// Our own terminal, raw while the workload has one.
    raw: Option<Raw>,
}

impl Instance {
    /// Takes a VMM over; if that fails, it is ended and nothing remains.
    pub(super) fn new(
        vmm: Vmm,
        remains: Remains,
        sandbox: Sandbox,
        bundle: Bundle,
    ) -> Result<Self, Fault> {
        match Relay::new(vmm.agent, vmm.console) {
            Ok(relay) => Ok(Self {
                process: vmm.process,
                warnings: vmm.warnings,
                relay,
                remains,
                sandbox,
                bundle,
                exit: None,
                paused: false,
                figures: Asked::default(),
                last: None,
                news: VecDeque::new(),
                raw: None,
            }),
            Err(error) => {
                drop(vmm.process);
                let _ = remains.destroy();
                Err(relay_fault(error))
            }
        }
    }

    fn wait_until_ready(&mut self) -> Result<(), Fault> {
        match self.message(READY_LIMIT, "the guest did not come up")? {
            FromGuest::Ready { version: VERSION, kernel } => {
                tracing::debug!(kernel, "guest ready");
                Ok(())
            }
            FromGuest::Ready { version, .. } => Err(microvm(format!(
                "the guest speaks version {version} of the protocol and moat {VERSION}"
            ))),
            other => Err(unexpected(&other)),
        }
    }

    fn start_order(&self) -> Result<ToGuest, Fault> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entropy = random()
            .map_err(|error| microvm("can't get random bytes for the guest").because(error))?;
        Ok(ToGuest::Start(Box::new(Start {
            sandbox: self.sandbox.clone(),
            merge_output: self.relay.outputs_are_one().map_err(relay_fault)?,
            clock_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            entropy,
        })))
    }

    /// The agent's next message, before the workload runs.
    fn message(&mut self, limit: Duration, late: &str) -> Result<FromGuest, Fault> {
        match self.relay.turn(None, Some(Instant::now() + limit)).map_err(relay_fault)? {
            Turn::Message(message) => Ok(message),
            Turn::Gone => Err(self.lost()),
            Turn::News | Turn::Woken | Turn::TimedOut => {
                let fault = microvm(format!("{late} within {} s", limit.as_secs()));
                Err(self.with_console(fault))
            }
        }
    }

    /// What became of a guest that is gone without a word.
    fn lost(&mut self) -> Fault {
        let ended = self.process.wait(END_LIMIT);
        self.process.end();
        // The console's last words may have come after the agent's end.
        self.relay.read_console();
        let ending = if ended { self.process.ending() } else { None };
        let fault = match ending {
            Some(Ending::Reset) => microvm("the guest's kernel panicked or was reset")
                .hint("`moat kernel install` makes a kernel bundle that is known to work"),
            Some(Ending::Off) => microvm("the guest switched itself off"),
            Some(Ending::Crashed { reason }) => microvm(format!("the guest crashed: {reason}")),
            Some(Ending::Failed { reasons }) => {
                return microvm(format!("the micro-VM can't run: {}", reasons.join(": ")))
                    .hint("see `moat doctor`, and whether another guest kernel does better");
            }
            None if ended => microvm("the VMM was killed")
                .hint("not by moat: `dmesg` tells whether this host ran out of memory"),
            None => microvm("the guest's agent hung up"),
        };
        self.with_console(fault)
    }

    fn with_console(&self, fault: Fault) -> Fault {
        match self.relay.console_tail() {
            Some(text) => fault.because(ConsoleTail(text)),
            None if fault.hint.is_some() => fault,
            None => fault.hint("the guest's console is empty: see `moat doctor`"),
        }
    }

    /// The workload has ended.
    pub(super) fn ended(&mut self, exit: Exit) {
        self.exit = Some(exit);
        self.relay.finish();
    }

    fn have_news(&self) -> bool {
        !self.news.is_empty() || self.relay.furthers.have_news() || self.figures.has_answer()
    }

    fn wait_for_end(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> Result<Option<Exit>, Fault> {
        loop {
            self.figures.give_up_late();
            if self.have_news() {
                return Ok(None);
            }
            let soonest = until.into_iter().chain(self.figures.until()).min();
            match self.relay.turn(wake, soonest).map_err(relay_fault)? {
                Turn::Message(FromGuest::Exited(exit)) => self.ended(exit),
                Turn::Message(FromGuest::Figures(figures)) => {
                    if !self.figures.hear(figures) {
                        return Err(unexpected_name("Figures"));
                    }
                }
                Turn::Message(other) => return Err(unexpected(&other)),
                Turn::News => return Ok(None),
                Turn::Gone => return self.exit.map(Some).ok_or_else(|| self.lost()),
                Turn::TimedOut if soonest != until => {}
                Turn::Woken | Turn::TimedOut => return Ok(None),
            }
        }
    }

    fn send(&mut self, message: &ToGuest) -> Result<(), Fault> {
        self.relay.send(message).map_err(relay_fault)
    }
}

impl Workload for Instance {
    fn start(&mut self) -> Result<u32, Fault> {
        let ready = self.wait_until_ready();
        // A damaged kernel fails in many ways; reading it whole would delay each good start.
        ready.map_err(|fault| self.bundle.check_contents().map_or_else(Fault::from, |()| fault))?;
        let order = self.start_order()?;
        self.send(&order)?;
        match self.message(START_LIMIT, "the guest did not start the workload")? {
            FromGuest::Started(Session::WORKLOAD) => {}
            FromGuest::Failed(_, error) => return Err(error.into_fault(Code::Microvm)),
            other => return Err(unexpected(&other)),
        }
        let has_terminal = self.sandbox.process.terminal.is_some();
        if has_terminal && nix::unistd::isatty(std::io::stdin()).unwrap_or(false) {
            let raw = Raw::enter(std::io::stdin().as_fd())
                .map_err(|error| microvm("can't set up the terminal").because(error))?;
            self.raw = Some(raw);
        }
        self.relay.open_streams();
        Ok(self.process.pid())
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        if self.exit.is_some() {
            return Ok(());
        }
        self.relay.order(&ToGuest::Signal(Session::WORKLOAD, signal))
    }

    fn wait(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> Result<Option<Exit>, Fault> {
        let ended = self.wait_for_end(wake, limit.map(|limit| Instant::now() + limit));
        if !matches!(ended, Ok(None)) {
            // Whatever is said next is said to a terminal as it was.
            self.raw = None;
        }
        ended
    }

    fn destroy(mut self: Box<Self>) -> Result<(), Fault> {
        self.raw = None;
        self.process.end();
        self.remains.destroy()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn terminal(&mut self) -> Option<&mut dyn Terminal> {
        match self.sandbox.process.terminal {
            Some(_) => Some(self),
            None => None,
        }
    }

    fn exec(&mut self) -> Option<&mut dyn Exec> {
        Some(self)
    }

    fn pause(&mut self) -> Option<&mut dyn Pause> {
        Some(self)
    }

    fn stats(&mut self) -> Option<&mut dyn Stats> {
        Some(self)
    }
}

impl Terminal for Instance {
    fn resize(&mut self, size: TerminalSize) -> Result<(), Fault> {
        if self.exit.is_some() {
            return Ok(());
        }
        self.relay.order(&ToGuest::Resize(Session::WORKLOAD, size))
    }

    fn resume(&mut self) {
        if let Some(raw) = &self.raw {
            raw.enter_again();
        }
    }
}

/// What an earlier moat left: it can only be destroyed.
pub(super) struct Orphan(pub(super) Remains);

impl Workload for Orphan {
    fn start(&mut self) -> Result<u32, Fault> {
        Err(orphaned())
    }

    fn signal(&mut self, _: Signal) -> Result<(), Fault> {
        Err(orphaned())
    }

    fn wait(
        &mut self,
        _: Option<BorrowedFd<'_>>,
        _: Option<Duration>,
    ) -> Result<Option<Exit>, Fault> {
        Err(orphaned())
    }

    fn destroy(self: Box<Self>) -> Result<(), Fault> {
        self.0.destroy()
    }
}

/// The end of the guest's console as the reason of a fault.
#[derive(Debug)]
struct ConsoleTail(String);

impl fmt::Display for ConsoleTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest's console ends with:\n{}", self.0)
    }
}

impl std::error::Error for ConsoleTail {}

fn microvm(what: impl Into<String>) -> Fault {
    Fault::new(Code::Microvm, what)
}

pub(super) fn relay_fault(error: RelayError) -> Fault {
    microvm("the micro-VM's streams can't be passed on").because(error)
}

fn orphaned() -> Fault {
    Fault::new(Code::State, "a micro-VM whose moat is gone can only be destroyed")
}

pub(super) fn unexpected(message: &FromGuest) -> Fault {
    unexpected_name(message.name())
}

fn unexpected_name(message: &str) -> Fault {
    microvm(format!("the guest's agent sent {message} at the wrong time"))
}
