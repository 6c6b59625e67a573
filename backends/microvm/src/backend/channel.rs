//! The host's end of the agent channel, never blocking on it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use moat_core::wire::{
    Decoder, FromGuest, Outbox, STREAM_LIMIT, TO_GUEST_LIMIT, ToGuest, WireError,
};

/// How much may wait for the guest to take it before orders are refused, in bytes: two of the largest
/// messages. What streams need beside has credit.
const CLOGGED: usize = 2 * TO_GUEST_LIMIT;

/// The channel, until the guest or the VMM closes it.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
    decoder: Decoder,
    outbox: Outbox,
    buffer: Box<[u8]>,
    open: bool,
}

impl Channel {
    /// Over a socket that does not block.
    pub(super) fn new(socket: UnixStream) -> Self {
        let buffer = vec![0; STREAM_LIMIT].into_boxed_slice();
        Self { socket, decoder: Decoder::new(), outbox: Outbox::new(), buffer, open: true }
    }

    /// Queues a message and sends what the channel takes now.
    pub(super) fn send(&mut self, message: &ToGuest) -> Result<(), WireError> {
        if self.open {
            self.outbox.push(message)?;
            self.flush();
        }
        Ok(())
    }

    /// Sends what the channel takes now.
    pub(super) fn flush(&mut self) {
        while self.wants_write() {
            match self.socket.write(self.outbox.pending()) {
                Ok(bytes) => self.outbox.advance(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the guest said before is still there to be read; reading finds the end.
                Err(_) => self.outbox.advance(usize::MAX),
            }
        }
    }

    /// Whether something waits for the channel to take it.
    pub(super) fn wants_write(&self) -> bool {
        !self.outbox.pending().is_empty()
    }

    /// Whether so much waits that nothing should be added that nobody counts.
    pub(super) fn is_clogged(&self) -> bool {
        self.outbox.pending().len() > CLOGGED
    }

    /// Whether the other end is there.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Says and reads nothing more.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.outbox.advance(usize::MAX);
    }

    /// Reads once. Take all messages out before the next call.
    pub(super) fn receive(&mut self) {
        match self.socket.read(&mut self.buffer) {
            Ok(bytes @ 1..) => self.decoder.feed(self.buffer.get(..bytes).unwrap_or_default()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => self.open = false,
        }
    }

    /// The next message that is there.
    pub(super) fn next_message(&mut self) -> Result<Option<FromGuest>, WireError> {
        self.decoder.next_message()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
