//! Further processes in a micro-VM: begun by its agent, over the one channel that there is.

use std::os::fd::OwnedFd;

use moat_core::diagnose::Fault;
use moat_core::sandbox::{Process, TerminalSize};
use moat_core::spec::Signal;
use moat_core::wire::ToGuest;
use moat_core::workload::{self, Exec, SessionEvent, SessionId};

use super::further::{self, just_ended};
use super::instance::Instance;

impl Exec for Instance {
    fn own(&self) -> &Process {
        &self.sandbox.process
    }

    fn exec(&mut self, process: &Process, stdio: Option<[OwnedFd; 3]>) -> Result<SessionId, Fault> {
        if self.exit.is_some() {
            return Err(just_ended());
        }
        if self.paused {
            return Err(workload::paused());
        }
        self.relay.exec(process, stdio).map(further::id)
    }

    fn signal(&mut self, session: SessionId, signal: Signal) -> Result<(), Fault> {
        let session = further::session(session);
        match self.relay.furthers.is_living(session) {
            true => self.relay.order(&ToGuest::Signal(session, signal)),
            false => Ok(()),
        }
    }

    fn resize(&mut self, session: SessionId, size: TerminalSize) -> Result<(), Fault> {
        let session = further::session(session);
        match self.relay.furthers.is_living(session) {
            true => self.relay.order(&ToGuest::Resize(session, size)),
            false => Ok(()),
        }
    }

    fn abandon(&mut self, session: SessionId) -> Result<(), Fault> {
        let session = further::session(session);
        match self.relay.furthers.is_to_hang_up(session) {
            true => self.relay.order(&ToGuest::HangUp(session)),
            false => Ok(()),
        }
    }

    fn next(&mut self) -> Option<(SessionId, SessionEvent)> {
        self.news.pop_front().or_else(|| self.relay.furthers.next())
    }
}
