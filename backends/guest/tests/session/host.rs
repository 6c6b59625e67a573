//! The host's side of a session.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use moat_core::sandbox::{Exit, ExitStatus, Sandbox, StartError};
use moat_core::wire::{
    Decoder, FromGuest, Further, Message, Session, Stream, ToGuest, VERSION, Window,
};
use moat_guest::{Surroundings, serve};
use moat_init::sys::clone::{Child, Namespaces, Options, spawn};

use crate::{LIMIT, OWN, code, order, sandbox};

/// All that came out of a workload.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit: Option<Exit>,
}

/// A session's streams.
pub(crate) struct Kept {
    windows: [Window; 2],
    unread: [usize; 2],
    stdin_credit: usize,
    started: bool,
    pub(crate) ended: Ended,
}

impl Kept {
    fn new(session: Session) -> Self {
        let window = || Window::new(session.credit());
        Self {
            windows: [window(), window()],
            unread: [0, 0],
            stdin_credit: usize::try_from(session.credit()).unwrap(),
            started: false,
            ended: Ended::default(),
        }
    }
}

/// The host's side, in the plainest way that keeps the rules.
pub(crate) struct Host {
    pub(crate) socket: UnixStream,
    pub(crate) agent: Child,
    staging: tempfile::TempDir,
    decoder: Decoder,
    pub(crate) sessions: BTreeMap<Session, Kept>,
    pub(crate) gives_credit: bool,
}

impl Host {
    /// An agent that has said that it is ready.
    pub(crate) fn connect() -> Self {
        let (socket, inside) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let staging = tempfile::tempdir().unwrap();
        let surroundings =
            Surroundings { staging: staging.path().into(), cgroups: None, own_machine: false };
        let options = Options { namespaces: Namespaces::NONE, cgroup: None };
        let closing = socket.try_clone().unwrap();
        let agent = spawn(options, || {
            drop(closing);
            nix::unistd::close(std::os::fd::AsRawFd::as_raw_fd(&socket)).unwrap();
            u8::from(serve(inside.into(), &surroundings).is_err())
        })
        .unwrap();
        let mut host = Self {
            socket,
            agent,
            staging,
            decoder: Decoder::new(),
            sessions: BTreeMap::from([(OWN, Kept::new(OWN))]),
            gives_credit: true,
        };
        let FromGuest::Ready { version, kernel } = host.message() else { panic!("not ready") };
        assert_eq!(version, VERSION);
        assert!(!kernel.is_empty());
        host
    }

    pub(crate) fn start(sandbox: Sandbox, merge_output: bool) -> Self {
        let mut host = Self::connect();
        host.send(&ToGuest::Start(Box::new(order(sandbox, merge_output))));
        host
    }

    /// A workload that runs until its stdin ends.
    pub(crate) fn running() -> Self {
        let mut host = Self::start(sandbox(&["cat"]), false);
        host.started();
        host
    }

    pub(crate) fn exec(&mut self, number: u32, sandbox: Sandbox) -> Session {
        let (session, process) = (Session(number), sandbox.process);
        self.sessions.insert(session, Kept::new(session));
        self.send(&ToGuest::Exec(session, Box::new(Further { process, merge_output: false })));
        session
    }

    pub(crate) fn own(&self) -> &Ended {
        &self.sessions[&OWN].ended
    }

    pub(crate) fn send(&mut self, message: &ToGuest) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }

    /// The next message; stream data is kept, and paid for with credit.
    pub(crate) fn message(&mut self) -> FromGuest {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                self.keep(&message);
                return message;
            }
            let mut buffer = [0; 64 << 10];
            match self.socket.read(&mut buffer) {
                Ok(0) => panic!("the agent hung up, {:?}", self.own().stderr),
                Ok(count) => self.decoder.feed(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    fn keep(&mut self, message: &FromGuest) {
        let (session, stream, bytes) = match message {
            FromGuest::Stdout(session, bytes) => (*session, Stream::Stdout, bytes),
            FromGuest::Stderr(session, bytes) => (*session, Stream::Stderr, bytes),
            FromGuest::Started(session) => {
                let before =
                    std::mem::replace(&mut self.sessions.get_mut(session).unwrap().started, true);
                assert!(!before, "started twice");
                return;
            }
            FromGuest::Credit(session, bytes) => {
                let kept = self.sessions.get_mut(session).unwrap();
                assert!(kept.started, "credit before the start");
                kept.stdin_credit += usize::try_from(*bytes).unwrap();
                return;
            }
            FromGuest::Ended(session, status) => {
                let kept = self.sessions.get_mut(session).unwrap();
                let exit = Exit { status: *status, oom: false };
                assert_eq!(kept.ended.exit.replace(exit), None, "ended twice");
                return;
            }
            _ => return,
        };
        let index = usize::from(stream == Stream::Stderr);
        let kept = self.sessions.get_mut(&session).unwrap();
        assert!(kept.started, "output of {session:?} before its start");
        assert_eq!(kept.ended.exit, None, "output after the end");
        kept.windows[index].receive(bytes.len()).unwrap();
        kept.unread[index] += bytes.len();
        let text = if index == 0 { &mut kept.ended.stdout } else { &mut kept.ended.stderr };
        text.extend(bytes);
        if self.gives_credit {
            self.grant_all(session, stream);
        }
    }

    pub(crate) fn grant_all(&mut self, session: Session, stream: Stream) {
        let index = usize::from(stream == Stream::Stderr);
        let kept = self.sessions.get_mut(&session).unwrap();
        let unread = std::mem::take(&mut kept.unread[index]);
        if let Some(credit) = kept.windows[index].consume(unread) {
            // The agent may be gone already when its last output is taken.
            let mut bytes = Vec::new();
            ToGuest::Credit(session, stream, credit).encode(&mut bytes).unwrap();
            let _ = self.socket.write_all(&bytes);
        }
    }

    pub(crate) fn started(&mut self) {
        self.session_started(OWN);
    }

    pub(crate) fn session_started(&mut self, session: Session) {
        loop {
            match self.message() {
                FromGuest::Started(started) if started == session => return,
                FromGuest::Failed(_, error) => panic!("{error}"),
                FromGuest::Exited(_) => panic!("it ended"),
                _ => {}
            }
        }
    }

    /// Sends stdin as the agent's credit allows, and takes what comes meanwhile.
    pub(crate) fn feed(&mut self, session: Session, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            while self.sessions[&session].stdin_credit == 0 {
                self.message();
            }
            let kept = self.sessions.get_mut(&session).unwrap();
            let (piece, rest) = bytes.split_at(bytes.len().min(kept.stdin_credit).min(64 << 10));
            kept.stdin_credit -= piece.len();
            self.send(&ToGuest::Stdin(session, piece.to_vec()));
            bytes = rest;
        }
    }

    pub(crate) fn until_stdout(&mut self, end: &str) {
        self.until_stdout_of(OWN, end);
    }

    pub(crate) fn until_stdout_of(&mut self, session: Session, end: &str) {
        while !self.sessions[&session].ended.stdout.ends_with(end.as_bytes()) {
            let message = self.message();
            assert!(!matches!(message, FromGuest::Exited(_)), "{:?}", self.own());
        }
    }

    /// Until the session has ended.
    pub(crate) fn until_end_of(&mut self, session: Session) -> Ended {
        while self.sessions[&session].ended.exit.is_none() {
            if let FromGuest::Failed(_, error) = self.message() {
                panic!("{error}");
            }
        }
        self.sessions.remove(&session).unwrap().ended
    }

    /// Until it has failed.
    pub(crate) fn until_failure_of(&mut self, session: Session) -> StartError {
        loop {
            match self.message() {
                FromGuest::Failed(failed, error) if failed == session => return error,
                FromGuest::Exited(_) => panic!("it ended"),
                _ => {}
            }
        }
    }

    pub(crate) fn until_exit(mut self) -> Ended {
        loop {
            if let FromGuest::Exited(exit) = self.message() {
                let mut ended = self.sessions.remove(&OWN).unwrap().ended;
                ended.exit = Some(exit);
                self.hang_up();
                return ended;
            }
        }
    }

    /// The workload ends by the end of its stdin.
    pub(crate) fn finish(mut self) {
        self.send(&ToGuest::StdinEnd(OWN));
        assert_eq!(self.until_exit().exit, Some(code(0)));
    }

    /// The agent ends without complaint.
    pub(crate) fn hang_up(self) {
        drop(self.socket);
        assert_eq!(self.agent.wait(), Ok(ExitStatus::Code(0)));
        drop(self.staging);
    }
}
