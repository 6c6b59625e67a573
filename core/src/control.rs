//! What the other verbs say to the monitor of a running workload, and its answers.
//!
//! They go over a unix socket in the instance's directory, as datagrams that each hold a piece of
//! one message:
//! ```text
//! 0         1      2
//! +---------+------+----------------------+
//! | version | more | piece of the message |
//! +---------+------+----------------------+
//! ```
//! `more` is 1 for all pieces but the last, with which the message's descriptors travel. A message
//! is one [`Request`] or [`Reply`] in postcard. Both sides treat the other as hostile: a datagram
//! of another version, a message over its limit, or one that does not decode, ends the connection.
//!
//! A request is answered by one reply. Only [`Request::Exec`] is answered by more: `Started` (with
//! the master of the terminal, if there is one, or a stream socket that leads to it) and `Exited`, or
//! `Failed`; in between, [`Request::Signal`] and [`Request::Resize`] are not answered at all.
//! [`Request::Wait`] is answered at the workload's end, and the connection ends when nothing is left
//! of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::diagnose::{Code, Fault};
use crate::sandbox::{Exit, ExitStatus, TerminalSize};
use crate::spec::{GuestPath, Signal, User};
use crate::workload::Figures;

/// The version of this protocol. The moat that asks may be newer than the one that answers.
pub const VERSION: u8 = 3;

/// The name of the socket in an instance's directory.
pub const SOCKET: &str = "control";

/// The most bytes of a datagram: less than what a socket sends by default
/// (`/proc/sys/net/core/wmem_default`, 212992).
pub const DATAGRAM: usize = 64 << 10;

/// Length of a datagram's header in bytes.
const HEADER: usize = 2;

/// What the other verbs ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start one more process. With it come the descriptors of its stdin, stdout and stderr,
    /// unless it gets a terminal.
    Exec(NewProcess),
    /// Send a signal to the process that this connection has started.
    Signal(Signal),
    /// Stop all processes until [`Request::Resume`].
    Pause,
    /// Let all processes go on.
    Resume,
    /// Tell what the workload uses.
    Stats,
    /// The terminal of the process that this connection has started has a new size. Only where what
    /// came with [`Reply::Started`] is no terminal itself.
    Resize(TerminalSize),
    /// Ask the workload to end by its stop signal, and end it after this time; without one, after
    /// its `stop_timeout`.
    Stop(Option<Duration>),
    /// Send a signal to the workload's own process.
    Kill(Signal),
    /// Tell when the workload has ended.
    Wait,
}

/// One more process in a workload. What is not said is as the workload's own process has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewProcess {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What its environment has besides, or otherwise than, the workload's.
    pub env: BTreeMap<String, String>,
    /// Whom it runs as.
    pub user: Option<User>,
    /// The directory that it starts in, which must be there.
    pub working_dir: Option<GuestPath>,
    /// The size of its terminal, if it gets one.
    pub terminal: Option<TerminalSize>,
}

/// What the monitor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The process runs. With it comes the master of its terminal, if it has one, or a stream socket
    /// that leads to it.
    Started,
    /// The process has ended.
    Exited(ExitStatus),
    /// What was asked could not be done.
    Failed(Failure),
    /// What was asked is done.
    Done,
    /// What the workload uses.
    Figures(Figures),
    /// The workload has ended.
    Ended(Exit),
}

/// A message of one direction.
pub trait Message: Serialize + DeserializeOwned {
    /// The most bytes of a message.
    const LIMIT: usize;
}

impl Message for Request {
    // Linux's own limit on arguments and environment together is 6 MiB at most (execve(2)).
    const LIMIT: usize = 8 << 20;
}

impl Message for Reply {
    const LIMIT: usize = 64 << 10;
}

/// What is wrong with what the other side sent, or with a message of one's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The other side is a moat with another protocol.
    #[error("the other moat speaks version {theirs} of the control protocol, this one {VERSION}")]
    Version {
        /// Its version.
        theirs: u8,
    },
    /// A message over its limit.
    #[error("a message of more than {limit} bytes")]
    TooLong {
        /// The limit of this direction in bytes.
        limit: usize,
    },
    /// Bytes that are no datagram or no message.
    #[error("{length} bytes that make no message")]
    Malformed {
        /// How many.
        length: usize,
    },
}

/// The datagrams of a message, in order.
///
/// # Errors
/// [`ControlError::TooLong`].
pub fn datagrams<M: Message>(message: &M) -> Result<Vec<Vec<u8>>, ControlError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| ControlError::Malformed { length: 0 })?;
    if bytes.len() > M::LIMIT {
        return Err(ControlError::TooLong { limit: M::LIMIT });
    }
    let mut pieces = bytes.chunks(DATAGRAM - HEADER).peekable();
    let mut datagrams = Vec::new();
    while let Some(piece) = pieces.next() {
        let mut datagram = vec![VERSION, u8::from(pieces.peek().is_some())];
        datagram.extend_from_slice(piece);
        datagrams.push(datagram);
    }
    Ok(datagrams)
}

/// Datagrams in, messages out. It holds no more than the limit of one message.
#[derive(Debug, Default)]
pub struct Assembler(Vec<u8>);

impl Assembler {
    /// Takes one datagram; gives the message of which it is the last.
    ///
    /// # Errors
    /// When this is not what the other side may send. The connection is of no use then.
    pub fn take<M: Message>(&mut self, datagram: &[u8]) -> Result<Option<M>, ControlError> {
        let (more, piece) = match datagram {
            [VERSION, more @ (0 | 1), piece @ ..] => (*more == 1, piece),
            [theirs, ..] if *theirs != VERSION => {
                return Err(ControlError::Version { theirs: *theirs });
            }
            _ => return Err(ControlError::Malformed { length: datagram.len() }),
        };
        if self.0.len() + piece.len() > M::LIMIT {
            return Err(ControlError::TooLong { limit: M::LIMIT });
        }
        if more && piece.is_empty() {
            return Err(ControlError::Malformed { length: datagram.len() });
        }
        self.0.extend_from_slice(piece);
        if more {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.0);
        match postcard::take_from_bytes(&bytes) {
            Ok((message, [])) => Ok(Some(message)),
            _ => Err(ControlError::Malformed { length: bytes.len() }),
        }
    }
}

/// A [`Fault`] on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    code: Code,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

/// The most of one text, in bytes, and the most texts: together they stay below [`Reply::LIMIT`].
const TEXT: usize = 4 << 10;
const CAUSES: usize = 8;

impl From<&Fault> for Failure {
    fn from(fault: &Fault) -> Self {
        let mut causes = Vec::new();
        let mut next = fault.source();
        while let Some(error) = next.filter(|_| causes.len() < CAUSES) {
            causes.push(cut(error.to_string()));
            next = error.source();
        }
        Self {
            code: fault.code,
            what: cut(fault.what.clone()),
            causes,
            hint: fault.hint.clone().map(cut),
        }
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let causes = failure.causes.into_iter().take(CAUSES).rev();
        let source = causes.fold(None, |source, text| Some(Box::new(Cause { text, source })));
        Self {
            code: failure.code,
            what: failure.what,
            hint: failure.hint,
            source: source.map(|cause| cause as Box<dyn Error + Send + Sync>),
        }
    }
}

#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|cause| cause as &dyn Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(argument: usize) -> Request {
        Request::Exec(NewProcess {
            argv: vec!["echo".into(), "x".repeat(argument)],
            env: BTreeMap::from([("A".into(), "1".into())]),
            user: Some("1000:7".parse().unwrap()),
            working_dir: Some("/tmp".parse().unwrap()),
            terminal: Some(TerminalSize { columns: 80, rows: 24 }),
        })
    }

    #[test]
    fn messages_of_any_size_arrive_whole_and_apart() {
        let mut assembler = Assembler::default();
        for size in [0, 1, DATAGRAM - 40, DATAGRAM, 3 * DATAGRAM + 7] {
            let datagrams = datagrams(&exec(size)).unwrap();
            assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM));
            let (last, first) = datagrams.split_last().unwrap();
            for datagram in first {
                assert_eq!(assembler.take::<Request>(datagram).unwrap(), None);
            }
            assert_eq!(assembler.take(last).unwrap(), Some(exec(size)));
        }
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let limit = Request::LIMIT;
        assert_eq!(datagrams(&exec(limit)).unwrap_err(), ControlError::TooLong { limit });
        let mut assembler = Assembler::default();
        let piece = [&[VERSION, 1][..], &vec![0; DATAGRAM - HEADER]].concat();
        let refused = (0..=limit / piece.len() + 1)
            .find_map(|_| assembler.take::<Request>(&piece).err())
            .unwrap();
        assert_eq!(refused, ControlError::TooLong { limit });
        assert!(assembler.0.len() <= limit);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let take = |bytes: &[u8]| Assembler::default().take::<Request>(bytes).unwrap_err();
        assert_eq!(take(&[]), ControlError::Malformed { length: 0 });
        assert_eq!(take(&[VERSION]), ControlError::Malformed { length: 1 });
        assert_eq!(take(&[VERSION, 2, 0]), ControlError::Malformed { length: 3 });
        assert_eq!(take(&[VERSION + 1, 9, 9]), ControlError::Version { theirs: VERSION + 1 });
        assert_eq!(take(&[VERSION, 0, 0xff, 0xff]), ControlError::Malformed { length: 2 });
        let mut over = datagrams(&Request::Signal(Signal::TERM)).unwrap().remove(0);
        over.push(0);
        assert!(matches!(take(&over), ControlError::Malformed { .. }));
    }

    #[test]
    fn a_fault_keeps_its_words_and_its_length_is_bounded() {
        let inner = Fault::new(Code::State, "inner").because(std::io::Error::other("innermost"));
        let fault = Fault::new(Code::NotFound, "outer").because(inner).hint("do this");
        let back = Fault::from(Failure::from(&fault));
        assert_eq!((back.code, back.what.as_str()), (Code::NotFound, "outer"));
        assert_eq!(back.hint.as_deref(), Some("do this"));
        let cause = back.source().unwrap();
        assert_eq!(cause.to_string(), "inner");
        assert_eq!(cause.source().unwrap().to_string(), "innermost");

        let mut long = Fault::new(Code::State, "é".repeat(TEXT)).hint("h".repeat(1 << 20));
        for _ in 0..20 {
            long = Fault::new(Code::State, "é".repeat(TEXT)).because(long);
        }
        let failed = Reply::Failed(Failure::from(&long));
        let datagrams = datagrams(&failed).unwrap();
        assert!(datagrams.len() == 1, "it fits one datagram");
    }
}
