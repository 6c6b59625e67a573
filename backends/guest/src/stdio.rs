//! The workload's streams: its ends for moat-init, ours for the session.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::wire::{Credit, FromGuest, Session, Stream, ToGuest, Window, WireError};
use moat_init::watch::{Place, Watch};
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::pipe2;

use crate::channel::{Channel, set_nonblocking};
use crate::session::{SessionError, local, name_of};

/// What Linux's terminals take as the end of input at the start of a line: ctrl-D (termios(3), VEOF).
const END_OF_TRANSMISSION: u8 = 4;

/// Where the workload's stdin goes.
#[derive(Debug)]
struct Sink {
    /// None once the workload or the host has closed it.
    file: Option<File>,
    pending: VecDeque<u8>,
    window: Window,
    ending: bool,
    is_terminal: bool,
}

/// Where one of the workload's output streams comes from.
#[derive(Debug)]
struct Source {
    stream: Stream,
    /// None once the workload or the host has closed it.
    file: Option<File>,
    credit: Credit,
}

/// What one read of a [`Source`] gave.
#[derive(Debug, PartialEq, Eq)]
enum Pumped {
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
    stdin: Sink,
    outputs: [Source; 2],
}

/// Where streams' descriptors are among those that are watched.
#[derive(Debug)]
pub(crate) struct StreamPlaces {
    stdin: Place,
    outputs: [Place; 2],
}

/// Which can be moved.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StreamsReady {
    stdin: bool,
    outputs: [bool; 2],
}

impl StreamPlaces {
    pub(crate) fn ready(&self, watch: &Watch<'_>) -> StreamsReady {
        StreamsReady {
            stdin: watch.is_ready(self.stdin),
            outputs: self.outputs.map(|output| watch.is_ready(output)),
        }
    }
}

/// What was passed on to the host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moved {
    /// How many bytes.
    pub(crate) bytes: usize,
    /// Whether there is nothing more now.
    pub(crate) is_dry: bool,
}

/// Three pipes, the last two of them one where `merge` asks for it; or, for a process whose
/// terminal is yet to come, nothing. Our ends and the process's, which are blocking. Each stream
/// begins with so many bytes of credit.
pub(crate) fn make(
    credit: u32,
    terminal: bool,
    merge: bool,
) -> io::Result<(Streams, [OwnedFd; 3])> {
    if terminal {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let theirs = [null.try_clone()?.into(), null.try_clone()?.into(), null.into()];
        return Ok((Streams::new(credit, None, None, None), theirs));
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
    let ours = Streams::new(credit, Some(stdin), Some(stdout), stderr);
    Ok((ours, [stdin_theirs, stdout_theirs, stderr_theirs]))
}

impl Streams {
    fn new(
        credit: u32,
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> Self {
        Self {
            stdin: Sink {
                file: stdin.map(File::from),
                pending: VecDeque::new(),
                window: Window::new(credit),
                ending: false,
                is_terminal: false,
            },
            outputs: [
                Source::new(credit, Stream::Stdout, stdout),
                Source::new(credit, Stream::Stderr, stderr),
            ],
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

    /// The terminal's master, if there is one.
    fn terminal(&self) -> Option<BorrowedFd<'_>> {
        let file = self.stdin.file.as_ref().filter(|_| self.stdin.is_terminal);
        file.map(AsFd::as_fd)
    }

    /// Adds what they wait for.
    pub(crate) fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> StreamPlaces {
        let outputs = self.outputs.each_ref();
        StreamPlaces {
            stdin: watch.add(self.stdin.wants_write(), PollFlags::POLLOUT),
            outputs: outputs.map(|output| watch.add(output.wants_read(), PollFlags::POLLIN)),
        }
    }

    /// Passes on what can be, one read for each output that has some.
    pub(crate) fn pass(
        &mut self,
        session: Session,
        ready: &StreamsReady,
        channel: &mut Channel,
        buffer: &mut [u8],
    ) -> Result<Moved, SessionError> {
        let mut moved = Moved { bytes: 0, is_dry: true };
        for (output, ready) in self.outputs.iter_mut().zip(ready.outputs) {
            if !ready {
                continue;
            }
            let Pumped::Bytes(count) = output.pump(buffer)? else { continue };
            moved = Moved { bytes: moved.bytes + count, is_dry: false };
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            channel.send(&match output.stream {
                Stream::Stderr => FromGuest::Stderr(session, bytes),
                Stream::Stdin | Stream::Stdout => FromGuest::Stdout(session, bytes),
            })?;
        }
        if ready.stdin
            && let Some(credit) = self.stdin.pump()
        {
            channel.send(&FromGuest::Credit(session, credit))?;
        }
        Ok(moved)
    }

    /// Passes on what is left of a process that has ended, as far as the host has granted. It is
    /// dry when nothing is left, and not when the host has to grant more first.
    pub(crate) fn drain(
        &mut self,
        session: Session,
        channel: &mut Channel,
        buffer: &mut [u8],
    ) -> Result<Moved, SessionError> {
        let ready = self.outputs.each_ref().map(|output| output.wants_read().is_some());
        let moved =
            self.pass(session, &StreamsReady { stdin: false, outputs: ready }, channel, buffer)?;
        let waits =
            self.outputs.iter().any(|output| output.is_open() && output.wants_read().is_none());
        Ok(Moved { is_dry: moved.is_dry && !waits, ..moved })
    }

    /// Whether the process may still write to one of its outputs.
    pub(crate) fn has_output(&self) -> bool {
        self.outputs.iter().any(Source::is_open)
    }

    /// Whether one of its outputs is waited for.
    pub(crate) fn may_be_read(&self) -> bool {
        self.outputs.iter().any(|output| output.wants_read().is_some())
    }

    /// Takes a message about these streams.
    pub(crate) fn take(&mut self, message: ToGuest) -> Result<(), SessionError> {
        match message {
            ToGuest::Stdin(_, bytes) => self.stdin.receive(&bytes)?,
            ToGuest::StdinEnd(_) => self.stdin.end(),
            ToGuest::Credit(_, stream, bytes) => self.grant(stream, bytes)?,
            ToGuest::CloseStream(_, stream) => self.close_output(stream),
            ToGuest::Resize(_, size) => {
                if let Some(master) = self.terminal() {
                    moat_init::sys::tty::resize(master, size)
                        .map_err(|error| local("resize a terminal", error))?;
                }
            }
            message => return Err(SessionError::Unexpected { message: name_of(&message) }),
        }
        Ok(())
    }

    /// Whoever was at the terminal is gone.
    pub(crate) fn hang_up(&mut self) {
        if self.stdin.is_terminal {
            self.close_output(Stream::Stdout);
        }
    }

    /// Nobody on the host reads this stream any more.
    fn close_output(&mut self, stream: Stream) {
        for output in self.outputs.iter_mut().filter(|output| output.stream == stream) {
            output.file = None;
            // The terminal hangs up only when nothing holds its master.
            if self.stdin.is_terminal {
                self.stdin.close();
            }
        }
    }

    /// Notes credit for an output stream.
    fn grant(&mut self, stream: Stream, bytes: u32) -> Result<(), WireError> {
        match self.outputs.iter_mut().find(|output| output.stream == stream) {
            Some(output) => output.credit.grant(bytes),
            None => Err(WireError::Grant { bytes }),
        }
    }
}

impl Sink {
    /// Takes bytes from the host. What the workload will never read is dropped; as no credit is
    /// given for it, the host stops sending.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.window.receive(bytes.len())?;
        if self.file.is_some() && !self.ending {
            self.pending.extend(bytes);
        }
        Ok(())
    }

    /// The host has no more. A terminal gets the character that says so.
    fn end(&mut self) {
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
    fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        if self.pending.is_empty() { None } else { self.file.as_ref().map(AsFd::as_fd) }
    }

    /// Writes what the workload takes now; gives the credit to announce.
    fn pump(&mut self) -> Option<u32> {
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
    fn new(credit: u32, stream: Stream, fd: Option<OwnedFd>) -> Self {
        Self { stream, file: fd.map(File::from), credit: Credit::new(credit) }
    }

    /// Whether the process may still write to it.
    fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// What to poll for reading.
    fn wants_read(&self) -> Option<BorrowedFd<'_>> {
        if self.credit.available() == 0 { None } else { self.file.as_ref().map(AsFd::as_fd) }
    }

    /// Reads once, at most what the host has granted.
    fn pump(&mut self, buffer: &mut [u8]) -> Result<Pumped, WireError> {
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
