//! The monitor's side of the control socket: other verbs ask, the workload's powers do it.
//!
//! All of it happens in the monitor's one loop and waits for nobody: a client that does not read
//! its answers, or sends what is no request, is cut off. What a workload in the background writes is
//! kept by the way.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use moat_core::control::{Failure, NewProcess, Reply, Request};
use moat_core::diagnose::{Code, Fault};
use moat_core::lifecycle::{Instance, Journal};
use moat_core::sandbox::{Exit, Process};
use moat_core::spec::LONGEST_DURATION;
use moat_core::workload::{Exec, Figures, SessionEvent, SessionId};
use moat_host::log::Stream;
use moat_host::socket::{Connection, Incoming, Listener};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::capture::Capture;
use crate::stdio;

/// The most clients at one time. One more takes the place of one that has asked for nothing yet.
const CLIENTS: usize = 256;

/// What is awaited, besides clients, by number; a client's number is never below `FIRST_CLIENT`.
const SIGNALS: u64 = 0;
const LISTENER: u64 = 1;
const STDOUT: u64 = 2;
const STDERR: u64 = 3;
const FIRST_CLIENT: u64 = 4;

/// The control socket with its clients.
pub(crate) struct Control {
    /// Ready when a signal has come, or a client has something.
    ready: Epoll,
    listener: Option<Listener>,
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// Whether the listener is left alone until something else has happened.
    full: bool,
    capture: Option<Capture>,
    /// That the workload is to end, and within which time, until that is heeded.
    stop: Option<Option<Duration>>,
}

struct Client {
    connection: Connection,
    /// The process that it has started.
    session: Option<SessionId>,
    /// Whether it waits to be told what the workload uses.
    asks: bool,
    /// Whether it waits to be told of the workload's end.
    waits: bool,
}

impl Control {
    /// Makes the socket in an instance's directory. Without one the workload runs all the same.
    pub(crate) fn open(
        dir: &Path,
        signals: BorrowedFd<'_>,
        capture: Option<Capture>,
    ) -> Result<Self, Fault> {
        let failed = |errno: Errno| Fault::new(Code::State, "can't wait").because(errno);
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        ready.add(signals, readable(SIGNALS)).map_err(failed)?;
        let listener = match Listener::open(dir) {
            Ok(listener) => {
                ready.add(&listener, readable(LISTENER)).map_err(failed)?;
                Some(listener)
            }
            Err(error) => {
                tracing::warn!("{error}: no other moat can reach this one");
                None
            }
        };
        for (stream, number) in [(Stream::Stdout, STDOUT), (Stream::Stderr, STDERR)] {
            let from = capture.as_ref().and_then(|capture| capture.get(stream));
            from.map_or(Ok(()), |from| ready.add(from, readable(number))).map_err(failed)?;
        }
        Ok(Self {
            ready,
            listener,
            clients: BTreeMap::new(),
            next: FIRST_CLIENT,
            full: false,
            capture,
            stop: None,
        })
    }

    /// Can be read when a signal has come or [`serve`](Self::serve) has something to do.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }

    /// Does all that is asked for now, and passes on what has become of sessions. Gives whether there
    /// was anything.
    pub(crate) fn serve<J: Journal>(&mut self, instance: &mut Instance<J>) -> bool {
        let mut events = [EpollEvent::empty(); 16];
        let ready = self.ready.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        self.listen_again();
        for event in events.iter().take(ready) {
            match event.data() {
                SIGNALS => {}
                LISTENER => self.accept(),
                STDOUT => self.keep(Stream::Stdout),
                STDERR => self.keep(Stream::Stderr),
                client => self.hear(client, instance),
            }
        }
        while let Some((session, event)) = news(instance) {
            self.tell(session, event, instance);
        }
        while let Some(answer) = answer(instance) {
            self.tell_figures(answer, instance);
        }
        ready > 0
    }

    /// That somebody has asked for the workload's end, and the time that it has, if not its own.
    pub(crate) fn take_stop(&mut self) -> Option<Option<Duration>> {
        self.stop.take()
    }

    /// Tells those who wait for it how the workload has ended.
    pub(crate) fn tell_end(&mut self, outcome: Result<&Exit, &Fault>) {
        for client in self.clients.values().filter(|client| client.waits) {
            let reply = match outcome {
                Ok(exit) => Reply::Ended(*exit),
                Err(fault) => Reply::Failed(Failure::from(fault)),
            };
            let told = client.connection.send(&reply, &[]);
            let _ = told.inspect_err(|error| tracing::debug!("{error}"));
        }
    }

    /// Keeps what was written before the end, and tells whether some of all could not be kept.
    pub(crate) fn finish_capture(&mut self) -> bool {
        self.capture.take().is_some_and(Capture::finish)
    }

    fn keep(&mut self, stream: Stream) {
        let Some(capture) = &mut self.capture else { return };
        // A descriptor that is closed leaves by itself (epoll(7)).
        capture.pass(stream);
    }

    fn accept(&mut self) {
        let connection = match self.listener.as_ref().map(Listener::accept) {
            Some(Ok(Some(connection))) => connection,
            None | Some(Ok(None)) => return,
            Some(Err(error)) => {
                tracing::warn!("{error}");
                // No room for one more descriptor: who waits must not keep the monitor busy.
                if !self.cut_off_idle() {
                    let deaf = self.listener.as_ref().map(|listener| self.ready.delete(listener));
                    self.full = deaf.is_some_and(|deaf| deaf.is_ok());
                }
                return;
            }
        };
        match connection.is_from_owner() {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
        if self.clients.len() >= CLIENTS && !self.cut_off_idle() {
            let full = Fault::new(Code::State, "too many others ask this moat already")
                .hint("wait for some of them to end");
            let _ = connection.send(&Reply::Failed(Failure::from(&full)), &[]);
            return;
        }
        let number = self.next;
        if self.ready.add(&connection, readable(number)).is_ok() {
            self.next += 1;
            self.clients.insert(number, Client::new(connection));
        }
    }

    /// By now there may be room again.
    fn listen_again(&mut self) {
        if let Some(listener) = self.listener.as_ref().filter(|_| self.full) {
            self.full = self.ready.add(listener, readable(LISTENER)).is_err();
        }
    }

    /// Whether there was one. It has no session, and waits for nothing.
    fn cut_off_idle(&mut self) -> bool {
        let idle = |client: &Client| client.session.is_none() && !client.asks && !client.waits;
        let idle = self.clients.iter().find(|(_, client)| idle(client));
        let idle = idle.map(|(number, _)| *number);
        idle.is_some_and(|number| self.clients.remove(&number).is_some())
    }

    /// A client is gone. Its session goes on without it, unless that has not begun to run yet.
    fn cut_off<J: Journal>(&mut self, number: u64, instance: &mut Instance<J>) {
        let session = self.clients.remove(&number).and_then(|client| client.session);
        if let (Some(session), Ok(Some(exec))) = (session, instance.exec())
            && let Err(fault) = exec.abandon(session)
        {
            tracing::debug!("{fault}");
        }
    }

    /// Takes what a client has sent.
    fn hear<J: Journal>(&mut self, number: u64, instance: &mut Instance<J>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let (request, descriptors) = match client.connection.receive() {
            Ok(Incoming::Message(request, descriptors)) => (request, descriptors),
            Ok(Incoming::NotYet) => return,
            Ok(Incoming::End) => return self.cut_off(number, instance),
            Err(error) => {
                tracing::debug!("{error}");
                // One of another version learns by the header of any reply that it is.
                let fault = Fault::new(Code::State, "what was asked is not understood");
                let fault = fault.because(error);
                let _ = client.connection.send(&Reply::Failed(Failure::from(&fault)), &[]);
                return self.cut_off(number, instance);
            }
        };
        if let Request::Stop(within) = request {
            // Nobody waits longer than a spec may say.
            self.stop = Some(within.map(|within| within.min(LONGEST_DURATION)));
        }
        let reply = match client.answer(request, descriptors, instance) {
            Ok(None) => return,
            Ok(Some(reply)) => reply,
            Err(fault) => Reply::Failed(Failure::from(&fault)),
        };
        if !self.reply(number, &reply, None) {
            self.cut_off(number, instance);
        }
    }

    /// Whether the client has taken it.
    fn reply(&mut self, number: u64, reply: &Reply, descriptor: Option<OwnedFd>) -> bool {
        let Some(client) = self.clients.get(&number) else { return true };
        let descriptor = descriptor.as_ref().map(AsFd::as_fd);
        let sent = client.connection.send(reply, descriptor.as_slice());
        sent.inspect_err(|error| tracing::debug!("{error}")).is_ok()
    }

    /// Tells all who have asked.
    fn tell_figures<J: Journal>(
        &mut self,
        answer: Result<Figures, Fault>,
        instance: &mut Instance<J>,
    ) {
        let reply = match answer {
            Ok(figures) => Reply::Figures(figures),
            Err(fault) => Reply::Failed(Failure::from(&fault)),
        };
        let mut asking = Vec::new();
        for (number, client) in self.clients.iter_mut().filter(|(_, client)| client.asks) {
            client.asks = false;
            asking.push(*number);
        }
        for number in asking {
            if !self.reply(number, &reply, None) {
                self.cut_off(number, instance);
            }
        }
    }

    fn tell<J: Journal>(
        &mut self,
        session: SessionId,
        event: SessionEvent,
        instance: &mut Instance<J>,
    ) {
        let mut clients = self.clients.iter_mut();
        let found = clients.find(|(_, client)| client.session == Some(session));
        // A session whose client is gone tells nobody, and its terminal is hung up.
        let Some((number, client)) = found else { return };
        let number = *number;
        let taken = match event {
            SessionEvent::Started { terminal } => self.reply(number, &Reply::Started, terminal),
            SessionEvent::Ended(status) => {
                client.session = None;
                self.reply(number, &Reply::Exited(status), None)
            }
            SessionEvent::Failed(fault) => {
                client.session = None;
                self.reply(number, &Reply::Failed(Failure::from(&fault)), None)
            }
        };
        if !taken {
            self.cut_off(number, instance);
        }
    }
}

/// An answer to who asked what the workload uses.
fn answer<J: Journal>(instance: &mut Instance<J>) -> Option<Result<Figures, Fault>> {
    instance.stats().ok()??.next()
}

fn readable(number: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, number)
}

fn news<J: Journal>(instance: &mut Instance<J>) -> Option<(SessionId, SessionEvent)> {
    instance.exec().ok()??.next()
}

impl Client {
    fn new(connection: Connection) -> Self {
        Self { connection, session: None, asks: false, waits: false }
    }

    /// Does what is asked; `None` where the answer comes later, or never.
    fn answer<J: Journal>(
        &mut self,
        request: Request,
        descriptors: Vec<OwnedFd>,
        instance: &mut Instance<J>,
    ) -> Result<Option<Reply>, Fault> {
        let done = |verb, done| if done { Ok(Some(Reply::Done)) } else { Err(not_there(verb)) };
        match request {
            Request::Pause => done("pause", instance.pause()?),
            Request::Resume => done("resume", instance.resume()?),
            Request::Stats => {
                instance.stats()?.ok_or_else(|| not_there("stats"))?.ask()?;
                self.asks = true;
                Ok(None)
            }
            Request::Kill(signal) => {
                instance.signal(signal)?;
                Ok(Some(Reply::Done))
            }
            Request::Wait => {
                self.waits = true;
                Ok(None)
            }
            // Heeded by the monitor.
            Request::Stop(_) => Ok(Some(Reply::Done)),
            Request::Exec(process) => {
                if self.session.is_some() {
                    return Err(Fault::new(Code::State, "this connection has a process already"));
                }
                let exec = instance.exec()?.ok_or_else(|| not_there("exec"))?;
                self.session = Some(begin(exec, process, descriptors)?);
                Ok(None)
            }
            Request::Resize(size) => {
                if let (Some(session), Some(exec)) = (self.session, instance.exec()?) {
                    exec.resize(session, size)?;
                }
                Ok(None)
            }
            Request::Signal(signal) => {
                if let (Some(session), Some(exec)) = (self.session, instance.exec()?) {
                    exec.signal(session, signal)?;
                }
                Ok(None)
            }
        }
    }
}

/// What to say of a power that the workload does not have.
fn not_there(verb: &str) -> Fault {
    Fault::new(Code::Unavailable, format!("`moat {verb}` is not there behind this wall"))
        .hint("run the workload behind the other, where policy allows it")
}

fn begin(
    exec: &mut dyn Exec,
    wanted: NewProcess,
    descriptors: Vec<OwnedFd>,
) -> Result<SessionId, Fault> {
    let own = exec.own().clone();
    let mut env = own.env;
    env.extend(wanted.env);
    let process = Process {
        argv: wanted.argv,
        env,
        user: wanted.user.unwrap_or(own.user),
        working_dir: wanted.working_dir.unwrap_or(own.working_dir),
        terminal: wanted.terminal,
        ..own
    };
    let stdio = match process.terminal {
        Some(_) => None,
        None => Some(<[OwnedFd; 3]>::try_from(descriptors).map_err(|_| {
            Fault::new(Code::State, "stdin, stdout and stderr have not come along")
        })?),
    };
    for fd in stdio.iter().flatten() {
        // The client has looked already, if it is moat's.
        stdio::refuse_place("a stream", fd.as_fd())?;
    }
    exec.exec(&process, stdio)
}
