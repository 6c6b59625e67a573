//! What a workload in the background writes, on its way into its log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use moat_host::log::{Rotation, Stream, Writer};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

/// How much is kept: three files of 10 MiB.
const KEPT: Rotation = Rotation { size: 10 << 20, files: 3 };

/// The most that is read at once, in bytes.
const BUFFER: usize = 16 << 10;

/// How often more is read after the end than there was: a pipe holds 1 MiB at most, and something
/// outside that has been handed one may write on for ever.
const ROUNDS: usize = 256;

/// The reading ends of its stdout and stderr, and its log.
#[derive(Debug)]
pub(crate) struct Capture {
    log: Writer,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    lost: bool,
    /// Whether nothing more is written.
    spares: bool,
}

impl Capture {
    /// Into the log of this directory. With it come the ends for the workload.
    ///
    /// # Errors
    /// When the log can't be opened, or no pipe can be made.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, [OwnedFd; 2])> {
        let log = Writer::open(dir, KEPT)?;
        let (output, to_output) = pipe()?;
        let (errors, to_errors) = pipe()?;
        let capture =
            Self { log, output: Some(output), errors: Some(errors), lost: false, spares: false };
        Ok((capture, [to_output, to_errors]))
    }

    /// What can be read when there is something; `None` after its end.
    pub(crate) fn get(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        let end = match stream {
            Stream::Stdout => &self.output,
            Stream::Stderr => &self.errors,
        };
        end.as_ref().map(AsFd::as_fd)
    }

    /// Keeps what is there, some of it at a time; whether there was any.
    pub(crate) fn pass(&mut self, stream: Stream) -> bool {
        let Some(from) = self.get(stream) else { return false };
        let mut buffer = [0; BUFFER];
        match read(from, &mut buffer) {
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            Ok(0) | Err(_) => {
                match stream {
                    Stream::Stdout => self.output = None,
                    Stream::Stderr => self.errors = None,
                }
                false
            }
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                // A full disk must not keep the workload from its work.
                let kept = !self.spares && self.log.write(stream, bytes, Timestamp::now()).is_ok();
                self.lost |= !kept;
                true
            }
        }
    }

    /// Keeps all that was written before the end; whether some of all could not be kept.
    pub(crate) fn finish(mut self) -> bool {
        // What room there is by now is for the record of the end.
        self.spares = self.lost;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let _ = (0..ROUNDS).all(|_| self.pass(stream));
        }
        self.lost
    }
}

/// A pipe whose reading end never waits.
fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((from, to))
}
