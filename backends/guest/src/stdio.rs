//! The workload's streams: its ends for moat-init, ours for the session.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::wire::{Credit, Stream, Window, WireError};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::channel::set_nonblocking;

/// What Linux's terminals take as the end of input at the start of a line: ctrl-D (termios(3), VEOF).
const END_OF_TRANSMISSION: u8 = 4;

/// Where the workload's stdin goes.
#[derive(Debug)]
pub(crate) struct Sink {
    /// None once the workload or the host has closed it.
    file: Option<File>,
    pending: VecDeque<u8>,
    window: Window,
    ending: bool,
    is_terminal: bool,
}

/// Where one of the workload's output streams comes from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) stream: Stream,
    /// None once the workload or the host has closed it.
    file: Option<File>,
    credit: Credit,
}

/// What one read of a [`Source`] gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// So many bytes at the buffer's start.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

/// Our ends.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Sink,
    pub(crate) outputs: [Source; 2],
}

/// Three pipes, the last two of them one where `merge` asks for it; or, for a workload whose
/// terminal is yet to come, nothing. Our ends and the workload's, which are blocking.
pub(crate) fn make(terminal: bool, merge: bool) -> io::Result<(Streams, [OwnedFd; 3])> {
    if terminal {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let theirs = [null.try_clone()?.into(), null.try_clone()?.into(), null.into()];
        return Ok((Streams::new(None, None, None), theirs));
    }
    let (stdin_theirs, stdin) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdout, stdout_theirs) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(stdin.as_fd())?;
    set_nonblocking(stdout.as_fd())?;
    let (stderr, stderr_theirs) = if merge {
        (None, stdout_theirs.try_clone()?)
    } else {
        let (stderr, stderr_theirs) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(stderr.as_fd())?;
        (Some(stderr), stderr_theirs)
    };
    let ours = Streams::new(Some(stdin), Some(stdout), stderr);
    Ok((ours, [stdin_theirs, stdout_theirs, stderr_theirs]))
}

impl Streams {
    fn new(stdin: Option<OwnedFd>, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Self {
        Self {
            stdin: Sink {
                file: stdin.map(File::from),
                pending: VecDeque::new(),
                window: Window::new(),
                ending: false,
                is_terminal: false,
            },
            outputs: [Source::new(Stream::Stdout, stdout), Source::new(Stream::Stderr, stderr)],
        }
    }

    /// Takes the terminal's master, which carries stdin and stdout.
    pub(crate) fn attach_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        set_nonblocking(master.as_fd())?;
        let master = File::from(master);
        self.stdin.file = Some(master.try_clone()?);
        self.stdin.is_terminal = true;
        let [stdout, _] = &mut self.outputs;
        stdout.file = Some(master);
        Ok(())
    }

    /// The terminal's master, if the workload has a terminal.
    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        let file = self.stdin.file.as_ref().filter(|_| self.stdin.is_terminal);
        file.map(AsFd::as_fd)
    }

    /// Nobody on the host reads this stream any more.
    pub(crate) fn close_output(&mut self, stream: Stream) {
        for output in self.outputs.iter_mut().filter(|output| output.stream == stream) {
            output.file = None;
            // The terminal hangs up only when nothing holds its master.
            if self.stdin.is_terminal {
                self.stdin.close();
            }
        }
    }

    /// Notes credit for an output stream.
    pub(crate) fn grant(&mut self, stream: Stream, bytes: u32) -> Result<(), WireError> {
        match self.outputs.iter_mut().find(|output| output.stream == stream) {
            Some(output) => output.credit.grant(bytes),
            None => Err(WireError::Grant { bytes }),
        }
    }
}

impl Sink {
    /// Takes bytes from the host. What the workload will never read is dropped; as no credit is
    /// given for it, the host stops sending.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.window.receive(bytes.len())?;
        if self.file.is_some() && !self.ending {
            self.pending.extend(bytes);
        }
        Ok(())
    }

    /// The host has no more. A terminal gets the character that says so.
    pub(crate) fn end(&mut self) {
        if self.ending {
            return;
        }
        self.ending = true;
        if self.is_terminal {
            self.pending.push_back(END_OF_TRANSMISSION);
        }
        self.close_at_end();
    }

    /// What to poll for writing.
    pub(crate) fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        if self.pending.is_empty() { None } else { self.file.as_ref().map(AsFd::as_fd) }
    }

    /// Writes what the workload takes now; gives the credit to announce.
    pub(crate) fn pump(&mut self) -> Option<u32> {
        let mut written = 0;
        while let (Some(file), (bytes @ [_, ..], _)) = (&mut self.file, self.pending.as_slices()) {
            match file.write(bytes) {
                Ok(count) => {
                    self.pending.drain(..count);
                    written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The workload has closed its end.
                Err(_) => self.close(),
            }
        }
        self.close_at_end();
        self.window.consume(written)
    }

    fn close_at_end(&mut self) {
        // The terminal's master stays: its hang-up would end the workload.
        if self.ending && self.pending.is_empty() && !self.is_terminal {
            self.file = None;
        }
    }

    fn close(&mut self) {
        self.file = None;
        self.pending.clear();
    }
}

impl Source {
    fn new(stream: Stream, fd: Option<OwnedFd>) -> Self {
        Self { stream, file: fd.map(File::from), credit: Credit::new() }
    }

    /// Whether the workload may still write to it.
    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// What to poll for reading.
    pub(crate) fn wants_read(&self) -> Option<BorrowedFd<'_>> {
        if self.credit.available() == 0 { None } else { self.file.as_ref().map(AsFd::as_fd) }
    }

    /// Reads once, at most what the host has granted.
    pub(crate) fn pump(&mut self, buffer: &mut [u8]) -> Result<Pumped, WireError> {
        let room = self.credit.available().min(buffer.len());
        let (Some(file), Some(buffer @ [_, ..])) = (&mut self.file, buffer.get_mut(..room)) else {
            return Ok(Pumped::Nothing);
        };
        match file.read(buffer) {
            Ok(count @ 1..) => {
                self.credit.take(count)?;
                Ok(Pumped::Bytes(count))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Pumped::Nothing)
            }
            // End of file; or, of a terminal that nobody has open any more, EIO (pty(7)).
            Ok(_) | Err(_) => {
                self.file = None;
                Ok(Pumped::End)
            }
        }
    }
}
