//! Host <-> guest: the frames on the agent channel, their version and limits.
//!
//! ```text
//! 0        4         8      9      12
//! +--------+---------+------+-------+----------------+
//! | length | session | kind | zero  | payload        |
//! +--------+---------+------+-------+----------------+
//! ```
//! `length` is the payload's, both numbers are little-endian. Stream frames carry raw bytes of a
//! session; the rest carry one message in postcard, and 0 for `session`. `codec` turns bytes into
//! messages and back, `credit` keeps the books.
//! Either side may send stream bytes only against credit that the other has granted for that
//! stream, so that one that is not read never holds up another, a signal or the exit.
//! Both sides treat the other as hostile: a frame over its limit, of an unknown kind, with a
//! payload that does not decode or leaves bytes over, stream bytes beyond the credit, or a session
//! that there is not, ends the channel.
//!
//! Session 0 is the workload's own process. The others are begun by the host, which numbers them
//! upwards and uses no number twice:
//! ```text
//! host    Exec ──▶        Stdin, StdinEnd, Credit, Signal, Resize, CloseStream, HangUp ──▶
//! guest                 ◀── Started, then Stdout, Stderr, Credit, and Ended       or Failed
//! ```
//! After `Ended` or `Failed` the guest says nothing of the session any more; what the host says
//! until it has read that is passed over.

mod codec;
mod credit;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use codec::{Decoder, Message, Outbox, WireError};
pub use credit::{Credit, Window};

use crate::sandbox::{Exit, ExitStatus, Process, Sandbox, StartError, TerminalSize};
use crate::spec::Signal;
use crate::workload::Figures;

/// The version of this protocol; host and guest must agree, since moat carries both.
pub const VERSION: u16 = 3;

/// The vsock port on the host (CID 2) to which the guest's agent connects.
pub const AGENT_PORT: u32 = 1024;

/// The tag of the virtio-fs device through which the host shares `root/` and `volumes/N`.
pub const SHARE_TAG: &str = "moat";

/// Where the guest mounts it: the sources of a [`Sandbox`] for the guest lie below.
pub const SHARE: &str = "/share";

/// The most payload of a stream frame, in bytes.
pub const STREAM_LIMIT: usize = 64 << 10;

/// The most payload of a message to the guest, in bytes: an environment may be as large as Linux's
/// limit on arguments and environment together (execve(2)).
pub const TO_GUEST_LIMIT: usize = 8 << 20;

/// The most payload of a message from the guest, in bytes: a start error names the program, which
/// may be one argument long (`MAX_ARG_STRLEN`, 128 KiB, execve(2)).
pub const FROM_GUEST_LIMIT: usize = 256 << 10;

/// The credit, in bytes, that each side has for each stream of the workload at first.
pub const INITIAL_CREDIT: u32 = 256 << 10;

/// The same for each stream of another session, of which there may be many.
pub const FURTHER_CREDIT: u32 = 64 << 10;

/// Length of a frame's header in bytes.
pub const HEADER: usize = 12;

/// Which process of the workload's something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session(pub u32);

impl Session {
    /// The workload's own process.
    pub const WORKLOAD: Self = Self(0);

    /// The credit, in bytes, that each side has for each of its streams at first.
    pub const fn credit(self) -> u32 {
        if self.0 == Self::WORKLOAD.0 { INITIAL_CREDIT } else { FURTHER_CREDIT }
    }
}

/// Which stream the bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// To the workload.
    Stdin,
    /// From the workload; also its terminal's output.
    Stdout,
    /// From the workload.
    Stderr,
}

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Set the workload up and start it; once, after [`FromGuest::Ready`].
    Start(Box<Start>),
    /// Start one more process; while the workload runs.
    Exec(Session, Box<Further>),
    /// Bytes of stdin.
    Stdin(Session, Vec<u8>),
    /// There is no more stdin.
    StdinEnd(Session),
    /// The host has taken this many more bytes of a stream.
    Credit(Session, Stream, u32),
    /// Send the session's process a signal.
    Signal(Session, Signal),
    /// The terminal has a new size.
    Resize(Session, TerminalSize),
    /// Nobody reads this output stream any more: what is written to it must fail (`SIGPIPE`).
    /// Frames of it that are under way are dropped by the host.
    CloseStream(Session, Stream),
    /// Whoever began it is gone: a process that is not its command yet never becomes it, and a
    /// terminal hangs up.
    HangUp(Session),
    /// Tell what the workload uses; not again before the answer.
    Stats,
    /// The wall clock, in nanoseconds since 1970, after the guest has stood still.
    Clock(u64),
}

/// The first order of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What to set up.
    pub sandbox: Sandbox,
    /// Whether stdout and stderr go to the same place, so that one pipe must carry both and their
    /// order is kept.
    pub merge_output: bool,
    /// The wall clock, in nanoseconds since 1970, for a guest without a clock of its own.
    pub clock_nanos: u64,
    /// Random bytes for the guest's generator.
    pub entropy: [u8; 32],
}

/// One more process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Further {
    /// What to start.
    pub process: Process,
    /// As for [`Start`].
    pub merge_output: bool,
}

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// The agent is up.
    Ready {
        /// [`VERSION`] of the guest.
        version: u16,
        /// `uname -r` of the guest, at most 64 bytes.
        kernel: String,
    },
    /// The session's command runs.
    Started(Session),
    /// It does not.
    Failed(Session, StartError),
    /// Bytes of stdout or of the terminal.
    Stdout(Session, Vec<u8>),
    /// Bytes of stderr.
    Stderr(Session, Vec<u8>),
    /// The guest has taken this many more bytes of stdin.
    Credit(Session, u32),
    /// The process of a session other than the workload's has ended, and all that it had written
    /// has been sent.
    Ended(Session, ExitStatus),
    /// What the workload uses, or why that can't be told.
    Figures(Result<Figures, String>),
    /// The workload has ended and all output has been sent. There is nothing more.
    Exited(Exit),
}
