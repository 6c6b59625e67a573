//! A micro-VM that stands still, and what it uses.
//!
//! The VMM is stopped as a process (SIGSTOP): it is one, so that all of the machine stands still with
//! it, without a cgroup, and it can be killed all the same. The guest is asked what it uses just
//! before, which is then what it uses until it goes on. Its clocks go on meanwhile, as a container's
//! do; its watchdogs are told by the vCPUs that it was not at fault (`Vcpu::excuse`).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moat_core::diagnose::{Code, Fault};
use moat_core::wire::{FromGuest, ToGuest};
use moat_core::workload::{Figures, Pause, Stats};

use super::further::just_ended;
use super::instance::{Instance, relay_fault, unexpected};
use super::relay::Turn;

/// How long a guest may take, before it is stopped, to say what it uses.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Instance {
    /// Has the guest say what it uses, as far as it does so in time.
    fn hear_last_figures(&mut self) -> Result<(), Fault> {
        self.last = None;
        if self.figures.ask() {
            self.relay.order(&ToGuest::Stats)?;
        }
        let until = Instant::now() + LAST_WORD;
        loop {
            match self.relay.turn(None, Some(until)).map_err(relay_fault)? {
                Turn::Message(FromGuest::Figures(figures)) => {
                    self.last = figures.as_ref().ok().copied();
                    self.figures.hear(figures);
                    return Ok(());
                }
                Turn::Message(FromGuest::Exited(exit)) => {
                    self.ended(exit);
                    return Err(just_ended());
                }
                Turn::Message(other) => return Err(unexpected(&other)),
                // It is told after this.
                Turn::News => self.news.extend(self.relay.furthers.next()),
                Turn::Gone => return Err(just_ended()),
                Turn::TimedOut | Turn::Woken => return Ok(()),
            }
        }
    }
}

impl Pause for Instance {
    fn pause(&mut self) -> Result<(), Fault> {
        if self.paused {
            return Ok(());
        }
        if self.exit.is_some() {
            return Err(just_ended());
        }
        let was_asked = self.figures.until().is_some();
        self.hear_last_figures()?;
        if !was_asked {
            // Nobody but this has asked.
            self.figures.take();
            self.figures.give_up();
        }
        match self.process.stand_still() {
            Ok(true) => {
                self.paused = true;
                Ok(())
            }
            Ok(false) => {
                Err(fault("the VMM does not stop").hint("try again: it goes on meanwhile"))
            }
            Err(errno) => Err(fault("the VMM can't be stopped").because(errno)),
        }
    }

    fn resume(&mut self) -> Result<(), Fault> {
        if !self.paused {
            return Ok(());
        }
        let gone_on = self.process.go_on();
        gone_on.map_err(|errno| fault("the VMM can't go on").because(errno))?;
        self.paused = false;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.relay.order(&ToGuest::Clock(now))
    }
}

impl Stats for Instance {
    fn ask(&mut self) -> Result<(), Fault> {
        if self.exit.is_some() {
            return Err(just_ended());
        }
        if self.paused {
            self.figures.answer(self.last.ok_or_else(|| {
                fault("the guest stands still, and had not said before what it uses")
                    .hint("let it go on first: `moat resume`")
            }));
            return Ok(());
        }
        if self.figures.ask() { self.relay.order(&ToGuest::Stats) } else { Ok(()) }
    }

    fn next(&mut self) -> Option<Result<Figures, Fault>> {
        self.figures.take()
    }
}

fn fault(what: &str) -> Fault {
    Fault::new(Code::Microvm, what)
}
