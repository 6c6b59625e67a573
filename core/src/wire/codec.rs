//! Messages into bytes and bytes into messages, without any I/O.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    FROM_GUEST_LIMIT, FromGuest, HEADER, STREAM_LIMIT, Session, Stream, TO_GUEST_LIMIT, ToGuest,
};

/// The frame holds one message in postcard.
const KIND_MESSAGE: u8 = 0;
/// The frame holds bytes of stdin.
const KIND_STDIN: u8 = 1;
/// The frame holds bytes of stdout.
const KIND_STDOUT: u8 = 2;
/// The frame holds bytes of stderr.
const KIND_STDERR: u8 = 3;

/// What is wrong with the other side's bytes, or with a message of one's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame's header announces more than its kind may hold.
    #[error("frame of kind {kind} with {length} bytes, more than {limit}")]
    TooLong {
        /// The header's kind.
        kind: u8,
        /// The header's length in bytes.
        length: usize,
        /// The most that the kind may hold, in bytes.
        limit: usize,
    },
    /// A kind that this direction does not have, a session of what has none, or reserved bytes that
    /// are not zero.
    #[error("frame header with kind {kind}, session {session} and reserved bytes {reserved:?}")]
    Header {
        /// The header's kind.
        kind: u8,
        /// The header's session.
        session: u32,
        /// The header's last three bytes.
        reserved: [u8; 3],
    },
    /// A payload that is not exactly one message.
    #[error("message of {length} bytes can't be decoded")]
    Malformed {
        /// The payload's length in bytes.
        length: usize,
    },
    /// A message of our own that can't be encoded.
    #[error("message can't be encoded")]
    Unencodable,
    /// Stream bytes beyond the credit.
    #[error("{bytes} bytes of a stream that has credit for {open}")]
    Credit {
        /// How many bytes.
        bytes: usize,
        /// How much credit was open, in bytes.
        open: u32,
    },
    /// Something about a session that there is not, or is not so far.
    #[error("{message} of session {session}, of which it can't be")]
    Session {
        /// The message's name.
        message: &'static str,
        /// The session's number.
        session: u32,
    },
    /// More credit than the receiver can have room for.
    #[error("credit of {bytes} bytes is more than was used")]
    Grant {
        /// How many bytes were granted.
        bytes: u32,
    },
}

/// The messages of one direction.
pub trait Message: Sized + Serialize + DeserializeOwned {
    /// The most payload of a message frame in this direction, in bytes.
    const LIMIT: usize;

    /// The session, the stream and the bytes, if this is stream data.
    fn as_stream(&self) -> Option<(Session, Stream, &[u8])>;

    /// The message for stream data, if this direction has the stream.
    fn from_stream(session: Session, stream: Stream, bytes: &[u8]) -> Option<Self>;

    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// Appends the message's frame to `out`. A stream's bytes become as many frames as they need,
    /// none if there are none.
    ///
    /// # Errors
    /// When the message is over its limit; `out` is as before then.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        if let Some((session, stream, bytes)) = self.as_stream() {
            let kind = stream_kind(stream);
            for piece in bytes.chunks(STREAM_LIMIT) {
                out.extend_from_slice(&header(kind, session.0, piece.len(), STREAM_LIMIT)?);
                out.extend_from_slice(piece);
            }
            return Ok(());
        }
        let payload = postcard::to_stdvec(self).map_err(|_| WireError::Unencodable)?;
        out.extend_from_slice(&header(KIND_MESSAGE, 0, payload.len(), Self::LIMIT)?);
        out.extend_from_slice(&payload);
        Ok(())
    }
}

impl Message for ToGuest {
    const LIMIT: usize = TO_GUEST_LIMIT;

    fn as_stream(&self) -> Option<(Session, Stream, &[u8])> {
        match self {
            Self::Stdin(session, bytes) => Some((*session, Stream::Stdin, bytes)),
            _ => None,
        }
    }

    fn from_stream(session: Session, stream: Stream, bytes: &[u8]) -> Option<Self> {
        match stream {
            Stream::Stdin => Some(Self::Stdin(session, bytes.to_vec())),
            Stream::Stdout | Stream::Stderr => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "Start",
            Self::Exec(..) => "Exec",
            Self::Stdin(..) => "Stdin",
            Self::StdinEnd(_) => "StdinEnd",
            Self::Credit(..) => "Credit",
            Self::Signal(..) => "Signal",
            Self::Resize(..) => "Resize",
            Self::CloseStream(..) => "CloseStream",
            Self::HangUp(_) => "HangUp",
            Self::Stats => "Stats",
            Self::Clock(_) => "Clock",
        }
    }
}

impl Message for FromGuest {
    const LIMIT: usize = FROM_GUEST_LIMIT;

    fn as_stream(&self) -> Option<(Session, Stream, &[u8])> {
        match self {
            Self::Stdout(session, bytes) => Some((*session, Stream::Stdout, bytes)),
            Self::Stderr(session, bytes) => Some((*session, Stream::Stderr, bytes)),
            _ => None,
        }
    }

    fn from_stream(session: Session, stream: Stream, bytes: &[u8]) -> Option<Self> {
        match stream {
            Stream::Stdin => None,
            Stream::Stdout => Some(Self::Stdout(session, bytes.to_vec())),
            Stream::Stderr => Some(Self::Stderr(session, bytes.to_vec())),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "Ready",
            Self::Started(_) => "Started",
            Self::Failed(..) => "Failed",
            Self::Stdout(..) => "Stdout",
            Self::Stderr(..) => "Stderr",
            Self::Credit(..) => "Credit",
            Self::Ended(..) => "Ended",
            Self::Figures(_) => "Figures",
            Self::Exited(_) => "Exited",
        }
    }
}

const fn stream_kind(stream: Stream) -> u8 {
    match stream {
        Stream::Stdin => KIND_STDIN,
        Stream::Stdout => KIND_STDOUT,
        Stream::Stderr => KIND_STDERR,
    }
}

fn header(kind: u8, session: u32, length: usize, limit: usize) -> Result<[u8; HEADER], WireError> {
    let too_long = WireError::TooLong { kind, length, limit };
    if length > limit {
        return Err(too_long);
    }
    let [a, b, c, d] = u32::try_from(length).map_err(|_| too_long)?.to_le_bytes();
    let [e, f, g, h] = session.to_le_bytes();
    Ok([a, b, c, d, e, f, g, h, kind, 0, 0, 0])
}

/// Messages in, bytes out, for a channel that takes only so many at a time.
#[derive(Debug, Default)]
pub struct Outbox {
    buffer: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// An outbox with nothing to send.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), sent: 0 }
    }

    /// Queues a message behind all others.
    ///
    /// # Errors
    /// When the message is over its limit; nothing is queued then.
    pub fn push<M: Message>(&mut self, message: &M) -> Result<(), WireError> {
        if self.sent == self.buffer.len() {
            self.buffer.clear();
            self.sent = 0;
        }
        message.encode(&mut self.buffer)
    }

    /// The bytes to send next.
    pub fn pending(&self) -> &[u8] {
        self.buffer.get(self.sent..).unwrap_or_default()
    }

    /// Notes that the channel took the first `bytes` of [`pending`](Self::pending).
    pub fn advance(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes).min(self.buffer.len());
        // What a large environment needed once is not kept for the life of the workload.
        if self.sent == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(2 * STREAM_LIMIT);
            self.sent = 0;
        }
    }
}

/// Bytes in, messages out. It holds no more than what was fed and not yet taken out as messages;
/// a frame over its limit is refused as soon as its header is there.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), taken: 0 }
    }

    /// Takes bytes as they come. Take all messages out before feeding more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the other side stopped in the middle of a frame.
    pub fn is_partial(&self) -> bool {
        self.taken < self.buffer.len()
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// When the bytes are not what this direction may send. The channel is of no use then.
    pub fn next_message<M: Message>(&mut self) -> Result<Option<M>, WireError> {
        let Some((&[a, b, c, d, e, f, g, h, kind, x, y, z], rest)) =
            self.buffer.get(self.taken..).and_then(<[u8]>::split_first_chunk::<HEADER>)
        else {
            return Ok(None);
        };
        let session = u32::from_le_bytes([e, f, g, h]);
        let bad_header = || WireError::Header { kind, session, reserved: [x, y, z] };
        let stream = match kind {
            KIND_MESSAGE if session == 0 => None,
            KIND_STDIN => Some(Stream::Stdin),
            KIND_STDOUT => Some(Stream::Stdout),
            KIND_STDERR => Some(Stream::Stderr),
            _ => return Err(bad_header()),
        };
        if [x, y, z] != [0; 3] {
            return Err(bad_header());
        }
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let limit = if stream.is_some() { STREAM_LIMIT } else { M::LIMIT };
        if length > limit {
            return Err(WireError::TooLong { kind, length, limit });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let message = match stream {
            Some(stream) => {
                M::from_stream(Session(session), stream, payload).ok_or_else(bad_header)?
            }
            None => decode_message(payload)?,
        };
        self.taken += HEADER + length;
        Ok(Some(message))
    }
}

/// One message from exactly these bytes; stream data has frames of its own and is none.
fn decode_message<M: Message>(payload: &[u8]) -> Result<M, WireError> {
    let malformed = WireError::Malformed { length: payload.len() };
    match postcard::take_from_bytes::<M>(payload) {
        Ok((message, [])) if message.as_stream().is_none() => Ok(message),
        _ => Err(malformed),
    }
}
