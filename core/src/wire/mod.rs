//! Host <-> guest: the frames on the agent channel, their version and limits.
//!
//! ```text
//! 0        4      5        8
//! +--------+------+--------+----------------+
//! | length | kind | zero   | payload        |
//! +--------+------+--------+----------------+
//! ```
//! `length` is the payload's, little-endian. Stream frames carry raw bytes; the rest carry one
//! message in postcard. `codec` turns bytes into messages and back, `credit` keeps the books.
//! Either side may send stream bytes only against credit that the other has granted for that
//! stream, so that one that is not read never holds up another, a signal or the exit.
//! Both sides treat the other as hostile: a frame over its limit, of an unknown kind, with a
//! payload that does not decode or leaves bytes over, or stream bytes beyond the credit, ends the
//! channel.

mod codec;
mod credit;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use codec::{Decoder, Message, Outbox, WireError};
pub use credit::{Credit, Window};

use crate::sandbox::{Exit, Sandbox, StartError, TerminalSize};
use crate::spec::Signal;

/// The version of this protocol; host and guest must agree, since moat carries both.
pub const VERSION: u16 = 2;

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

/// The credit, in bytes, that each side has for each stream at first.
pub const INITIAL_CREDIT: u32 = 256 << 10;

/// Length of a frame's header in bytes.
pub const HEADER: usize = 8;

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
    /// Bytes of stdin.
    Stdin(Vec<u8>),
    /// There is no more stdin.
    StdinEnd,
    /// The host has taken this many more bytes of a stream.
    Credit(Stream, u32),
    /// Send the workload's process a signal.
    Signal(Signal),
    /// The terminal has a new size.
    Resize(TerminalSize),
    /// Nobody reads this output stream any more: what the workload writes to it must fail
    /// (`SIGPIPE`). Frames of it that are under way are dropped by the host.
    CloseStream(Stream),
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
    /// The workload's process runs.
    Started,
    /// It does not.
    Failed(StartError),
    /// Bytes of stdout or of the terminal.
    Stdout(Vec<u8>),
    /// Bytes of stderr.
    Stderr(Vec<u8>),
    /// The guest has taken this many more bytes of stdin.
    Credit(u32),
    /// The workload has ended and all its output has been sent.
    Exited(Exit),
}
