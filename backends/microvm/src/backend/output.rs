//! One of moat's own output streams, or of another moat's, into which a process's is passed on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use moat_core::wire::{Window, WireError};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::fstat;

use super::client::{self, Way};

/// The most that can be written to a pipe that poll(2) calls writable without waiting: one page,
/// which is `PIPE_BUF` (pipe(7)).
const PIPE_PIECE: usize = libc::PIPE_BUF;

/// How to write without holding up everything else. Mostly the descriptor is shared with other
/// processes, so that it can't be made non-blocking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pipe,
    Socket,
    /// Files and devices, which take all at once; a terminal waits as long as its user stops it.
    Other,
    /// What never waits, since it was opened for that.
    Alone,
}

/// An output stream, with what it has yet to take.
#[derive(Debug)]
pub(super) struct Output {
    fd: OwnedFd,
    kind: Kind,
    pending: VecDeque<u8>,
    window: Window,
    open: bool,
}

/// What became of one try to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Credit to be announced to the guest, if there is enough of it.
    Went(Option<u32>),
    /// Nobody reads the stream any more.
    Closed,
}

impl Output {
    /// Into a descriptor, with so much credit for the guest.
    pub(super) fn new(fd: OwnedFd, credit: u32) -> io::Result<Self> {
        let kind = match fstat(&fd)?.st_mode & libc::S_IFMT {
            libc::S_IFIFO => Kind::Pipe,
            libc::S_IFSOCK => Kind::Socket,
            _ => Kind::Other,
        };
        Ok(Self { fd, kind, pending: VecDeque::new(), window: Window::new(credit), open: true })
    }

    /// Into a descriptor of another moat's, for which this one must never wait.
    pub(super) fn of_client(fd: OwnedFd, credit: u32) -> Self {
        let (fd, way) = client::take(fd, OFlag::O_WRONLY);
        let kind = match way {
            Way::Alone => Kind::Alone,
            Way::Socket => Kind::Socket,
            Way::Careful => Kind::Pipe,
        };
        Self { fd, kind, pending: VecDeque::new(), window: Window::new(credit), open: true }
    }

    /// Whether both end in the same file, so that the order between them matters.
    pub(super) fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (a, b) = (fstat(&self.fd)?, fstat(&other.fd)?);
        Ok((a.st_dev, a.st_ino, a.st_rdev) == (b.st_dev, b.st_ino, b.st_rdev))
    }

    /// Takes bytes of the guest; what nobody will read is dropped.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.window.receive(bytes.len())?;
        if self.open {
            self.pending.extend(bytes);
        }
        Ok(())
    }

    /// What to poll for writing.
    pub(super) fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        (!self.pending.is_empty()).then(|| self.fd.as_fd())
    }

    /// Writes once, after poll(2) has found the descriptor writable.
    ///
    /// # Errors
    /// When bytes are lost for another reason than that nobody reads them: a full disk.
    pub(super) fn pump(&mut self) -> io::Result<Pumped> {
        let (bytes, _) = self.pending.as_slices();
        let written = match self.kind {
            Kind::Pipe => {
                let piece = bytes.get(..PIPE_PIECE).unwrap_or(bytes);
                nix::unistd::write(&self.fd, piece)
            }
            Kind::Socket => send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT),
            Kind::Other | Kind::Alone => nix::unistd::write(&self.fd, bytes),
        };
        match written {
            Ok(count) => {
                self.pending.drain(..count);
                Ok(Pumped::Went(self.window.consume(count)))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Pumped::Went(None)),
            Err(errno) => {
                self.open = false;
                self.pending.clear();
                if matches!(errno, Errno::EPIPE | Errno::ECONNRESET) {
                    Ok(Pumped::Closed)
                } else {
                    Err(errno.into())
                }
            }
        }
    }
}
