//! Frames over the socket to the host, without ever blocking on it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::wire::{Decoder, FromGuest, Outbox, STREAM_LIMIT, ToGuest, WireError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Why the channel can't be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("can't {action} the agent channel")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The kernel's reason.
        source: Errno,
    },
    /// The host sent what it may not, or a message of ours is over its limit.
    #[error("the agent channel carries what it may not")]
    Wire(#[from] WireError),
}

/// The guest's end.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
    outbox: Outbox,
    buffer: Box<[u8]>,
}

impl Channel {
    /// Over a connected stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, ChannelError> {
        set_nonblocking(socket.as_fd())
            .map_err(|source| ChannelError::Io { action: "set up", source })?;
        let buffer = vec![0; STREAM_LIMIT].into_boxed_slice();
        Ok(Self { socket, decoder: Decoder::new(), outbox: Outbox::new(), buffer })
    }

    /// Queues a message and sends what the socket takes now.
    pub(crate) fn send(&mut self, message: &FromGuest) -> Result<(), ChannelError> {
        self.outbox.push(message)?;
        self.flush()
    }

    /// Sends what the socket takes now.
    pub(crate) fn flush(&mut self) -> Result<(), ChannelError> {
        while self.wants_write() {
            match nix::unistd::write(&self.socket, self.outbox.pending()) {
                Ok(bytes) => self.outbox.advance(bytes),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(source) => return Err(ChannelError::Io { action: "write to", source }),
            }
        }
        Ok(())
    }

    /// Whether something waits for the socket to take it.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outbox.pending().is_empty()
    }

    /// Reads once; false when the host has hung up. Take all messages out before the next call.
    pub(crate) fn receive(&mut self) -> Result<bool, ChannelError> {
        match nix::unistd::read(&self.socket, &mut self.buffer) {
            Ok(0) | Err(Errno::ECONNRESET) => Ok(false),
            Ok(bytes) => {
                self.decoder.feed(self.buffer.get(..bytes).unwrap_or_default());
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(true),
            Err(source) => Err(ChannelError::Io { action: "read from", source }),
        }
    }

    /// The next message that is there.
    pub(crate) fn next_message(&mut self) -> Result<Option<ToGuest>, ChannelError> {
        Ok(self.decoder.next_message()?)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets reads and writes of this descriptor fail with `EAGAIN` instead of waiting.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}
