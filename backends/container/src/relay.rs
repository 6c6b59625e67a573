//! Between moat's own stdin, stdout and stderr and a workload that does not get them as they are:
//! because it has a terminal of its own, or because they are not to be given away. The terminal
//! that moat is on never is, for whoever has it can read what is typed on it. And what belongs to
//! one of the workload's users is not either: by /proc/self/fd a file that was opened for reading
//! can be opened again for writing by its owner, and by fchmod(2) its mode changed, be it that of
//! /dev/null.

use std::io::{self, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use moat_core::diagnose::{Code, Fault};
use moat_host::terminal::{Raw, is_in_background};
use moat_init::watch::{Place, Watch};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::stat::fstat;
use nix::unistd::{Whence, isatty, lseek, pipe2, read, write};
use rustix::io::ioctl_fionread;

/// What a terminal takes for the end of input (termios(3), `VEOF`).
const END_OF_INPUT: &[u8] = &[0x04];

/// The most that is in passage in each direction, in bytes.
const BUFFER: usize = 16 << 10;

/// The most that is written at once, so that a slow reader holds nothing up: what poll(2) says can
/// be written without waiting is at least this (pipe(7), `PIPE_BUF`).
const PIECE: usize = libc::PIPE_BUF;

/// The most that a pipe holds unless root has raised it (pipe(7), /proc/sys/fs/pipe-max-size); a
/// terminal holds less.
const HOLDS_AT_MOST: usize = 1 << 20;

/// The relay. When it is dropped, moat's own terminal is as it was before.
#[derive(Default)]
pub struct Relay {
    /// The master of the workload's terminal.
    terminal: Option<OwnedFd>,
    inputs: Vec<Stream>,
    outputs: Vec<Stream>,
    raw: Option<Raw>,
    begun: bool,
}

/// One direction. Its own end of what the workload has never waits.
struct Stream {
    /// Until its end.
    from: Option<OwnedFd>,
    /// Until nobody takes anything there any more; what is read goes nowhere then.
    to: Option<OwnedFd>,
    /// Read, not yet written.
    held: Vec<u8>,
    /// What tells the other side that this is the end, besides that it is closed.
    at_end: &'static [u8],
    /// Of what is not the workload's.
    kind: Kind,
    /// The workload's end of the pipe, to see what it has left in it of a file.
    unread: Option<OwnedFd>,
    /// Why something did not get where it was to be kept.
    lost: Option<Errno>,
}

/// What is not given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What is written there is seen, or not.
    Terminal,
    /// What is written there is kept.
    File,
}

impl Kind {
    /// Pipes have no name, and sockets no mode: those can be given away.
    fn of(fd: &OwnedFd, owned: impl Fn(u32) -> bool) -> io::Result<Option<Self>> {
        if isatty(fd).unwrap_or(false) {
            return Ok(Some(Self::Terminal));
        }
        let found = fstat(fd)?;
        let kind = found.st_mode & libc::S_IFMT;
        let named = matches!(kind, libc::S_IFREG | libc::S_IFCHR | libc::S_IFBLK);
        // One that others may write could be opened anew for it, by whoever has it in hand.
        let open = kind == libc::S_IFREG && found.st_mode & 0o022 != 0;
        Ok((named && (open || owned(found.st_uid))).then_some(Self::File))
    }
}

/// Where a stream's descriptors are among those that are watched.
struct Places {
    from: Place,
    to: Place,
}

/// What can be done without waiting, for each stream: reading, writing.
pub(crate) struct Ready(Vec<(bool, bool)>);

/// The streams among what is watched.
pub(crate) struct Watched(Vec<Places>);

impl Watched {
    pub(crate) fn ready(&self, watch: &Watch<'_>) -> Ready {
        let ready = |places: &Places| (watch.is_ready(places.from), watch.is_ready(places.to));
        Ready(self.0.iter().map(ready).collect())
    }
}

impl Relay {
    /// What becomes the workload's stdin, stdout and stderr, and the relay for what they don't give
    /// away. `owned` tells whether a user of the host is one of the workload's. A workload that
    /// will have a terminal gets them only until it has it.
    ///
    /// # Errors
    /// When they can't be looked at or duplicated, or no pipe can be made.
    pub fn stdio(
        with_terminal: bool,
        owned: impl Fn(u32) -> bool,
    ) -> io::Result<([OwnedFd; 3], Self)> {
        let own = [
            stdin().as_fd().try_clone_to_owned()?,
            stdout().as_fd().try_clone_to_owned()?,
            stderr().as_fd().try_clone_to_owned()?,
        ];
        let mut relay = Self::default();
        if with_terminal {
            return Ok((own, relay));
        }
        let [input, output, errors] = own;
        let kind = |fd: &OwnedFd| Kind::of(fd, &owned);
        let kinds = [kind(&input)?, kind(&output)?, kind(&errors)?];
        // Two pipes would lose the order of what is written to one place.
        let one_place = kinds[1].is_some() && is_same(&output, &errors)?;
        let input = match kinds[0] {
            Some(kind) => relay.input(input, kind)?,
            None => input,
        };
        let output = match kinds[1] {
            Some(kind) => relay.output(output, kind)?,
            None => output,
        };
        let errors = match kinds[2] {
            Some(_) if one_place => output.try_clone()?,
            Some(kind) => relay.output(errors, kind)?,
            None => errors,
        };
        Ok(([input, output, errors], relay))
    }

    fn input(&mut self, from: OwnedFd, kind: Kind) -> io::Result<OwnedFd> {
        let (theirs, to) = pipe2(OFlag::O_CLOEXEC)?;
        never_wait(&to);
        let unread = if kind == Kind::File { Some(theirs.try_clone()?) } else { None };
        self.inputs.push(Stream { kind, unread, ..Stream::new(from, to, &[]) });
        Ok(theirs)
    }

    fn output(&mut self, to: OwnedFd, kind: Kind) -> io::Result<OwnedFd> {
        let (from, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        never_wait(&from);
        self.outputs.push(Stream { kind, ..Stream::new(from, to, &[]) });
        Ok(theirs)
    }

    /// Takes over the workload's terminal, given its master.
    ///
    /// # Errors
    /// When a descriptor can't be duplicated.
    pub fn serve(&mut self, master: OwnedFd) -> io::Result<()> {
        never_wait(&master);
        let input = stdin().as_fd().try_clone_to_owned()?;
        let output = stdout().as_fd().try_clone_to_owned()?;
        self.inputs.push(Stream::new(input, master.try_clone()?, END_OF_INPUT));
        self.outputs.push(Stream::new(master.try_clone()?, output, &[]));
        self.terminal = Some(master);
        Ok(())
    }

    /// From now on keys go to the workload.
    pub fn begin(&mut self) {
        self.begun = true;
        if self.terminal.is_some() {
            // A stdin that is no terminal is passed on as it is.
            self.raw = Raw::enter(stdin().as_fd()).ok();
        }
    }

    /// Keys go to the workload again, after moat was stopped.
    pub(crate) fn enter_again(&self) {
        if let Some(raw) = &self.raw {
            raw.enter_again();
        }
    }

    /// The master of the workload's terminal.
    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// Adds what it waits for.
    pub(crate) fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Watched {
        // Reading a terminal from its background would stop moat (termios(3), SIGTTIN).
        let may_read = self.begun && !is_in_background(stdin());
        let inputs = self.inputs.iter().map(|stream| (stream, may_read));
        let all = inputs.chain(self.outputs.iter().map(|stream| (stream, true)));
        Watched(all.map(|(stream, may_read)| stream.watch(watch, may_read)).collect())
    }

    /// Passes on what can be.
    pub(crate) fn pass(&mut self, ready: &Ready) {
        let (inputs, outputs) = ready.0.split_at(self.inputs.len().min(ready.0.len()));
        for (stream, (can_read, can_write)) in self.inputs.iter_mut().zip(inputs) {
            if *can_read {
                stream.take();
            }
            if *can_read || *can_write {
                stream.give();
            }
        }
        for (stream, (can_read, can_write)) in self.outputs.iter_mut().zip(outputs) {
            if *can_write {
                stream.give();
            }
            if *can_read {
                stream.take();
            }
        }
    }

    /// Passes on what comes until `wake` can be read or `until` has come; false when that has.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn pass_on(&mut self, wake: BorrowedFd<'_>, until: Option<Instant>) -> io::Result<bool> {
        loop {
            let mut watch = Watch::default();
            let woken = watch.add(Some(wake), PollFlags::POLLIN);
            let streams = self.watch(&mut watch);
            if !watch.wait(until)? {
                return Ok(false);
            }
            let woken = watch.is_ready(woken);
            let ready = streams.ready(&watch);
            drop(watch);
            self.pass(&ready);
            if woken {
                return Ok(true);
            }
        }
    }

    /// Passes on all output that is left, after the last process of the container has ended.
    pub fn drain(&mut self) {
        for stream in &mut self.outputs {
            stream.drain();
        }
        for stream in &mut self.inputs {
            stream.give_back();
        }
        // The terminal is as it was before anything else is said on it.
        self.raw = None;
    }

    /// That some output did not get into the file that it was for.
    pub fn loss(&self) -> Option<Fault> {
        let errno = self.outputs.iter().find_map(|stream| stream.lost)?;
        let what = "not all of the workload's output could be written";
        let hint = "see that there is room where stdout and stderr go";
        Some(Fault::new(Code::Container, what).hint(hint).because(io::Error::from(errno)))
    }
}

impl Stream {
    fn new(from: OwnedFd, to: OwnedFd, at_end: &'static [u8]) -> Self {
        Self {
            from: Some(from),
            to: Some(to),
            held: Vec::new(),
            at_end,
            kind: Kind::Terminal,
            unread: None,
            lost: None,
        }
    }

    fn watch<'w>(&'w self, watch: &mut Watch<'w>, may_read: bool) -> Places {
        let reads = may_read && self.held.is_empty();
        let writes = !self.held.is_empty();
        let wanted = |fd: &'w Option<OwnedFd>, wanted: bool| {
            fd.as_ref().filter(|_| wanted).map(OwnedFd::as_fd)
        };
        Places {
            from: watch.add(wanted(&self.from, reads), PollFlags::POLLIN),
            to: watch.add(wanted(&self.to, writes), PollFlags::POLLOUT),
        }
    }

    /// Reads what is there; whether there was any.
    fn take(&mut self) -> bool {
        let Some(from) = &self.from else { return false };
        let mut buffer = [0; BUFFER];
        match read(from, &mut buffer) {
            // The other side of a socket was closed with something unread. It is told once, before what
            // was sent from there (`unix_release_sock` and `sock_error` in the kernel).
            Err(Errno::EINTR | Errno::ECONNRESET) => true,
            Err(Errno::EAGAIN) => false,
            // EIO: nobody has the other end of the terminal any more (pty(7)).
            Ok(0) | Err(_) => {
                self.from = None;
                self.held.extend(self.at_end);
                self.settle();
                false
            }
            Ok(length) => {
                self.held.extend(buffer.iter().take(length));
                self.settle();
                true
            }
        }
    }

    /// Writes some of what is held.
    fn give(&mut self) {
        let Some(to) = &self.to else { return };
        let piece = self.held.len().min(PIECE);
        match write(to, self.held.get(..piece).unwrap_or_default()) {
            Ok(length) => drop(self.held.drain(..length)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Nobody reads it any more: what is written goes nowhere, as at a terminal whose window
            // was closed. But what is written to a file must not be lost in silence.
            Err(errno) => {
                self.to = None;
                if self.kind == Kind::File && errno != Errno::EPIPE {
                    self.from = None;
                    self.lost = Some(errno);
                }
            }
        }
        self.settle();
    }

    /// Closes what has had all that there will be, and forgets what nobody takes.
    fn settle(&mut self) {
        if self.to.is_none() {
            self.held.clear();
        }
        if self.from.is_none() && self.held.is_empty() {
            self.to = None;
        }
    }

    /// Passes on what was written before the end. What is left running may write on for ever, so
    /// no more is taken than a pipe or terminal can hold.
    fn drain(&mut self) {
        let mut left = HOLDS_AT_MOST;
        loop {
            left = left.saturating_sub(self.held.len());
            while !self.held.is_empty() {
                self.wait_to_give();
                self.give();
            }
            if left == 0 || !self.take() && self.held.is_empty() {
                return;
            }
        }
    }

    /// Leaves what the workload has not read of a file to whoever reads on from there, as if the
    /// workload had had the file itself.
    fn give_back(&mut self) {
        let Some(unread) = self.unread.take() else { return };
        let held = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        let unread = ioctl_fionread(unread).unwrap_or(0).saturating_add(held);
        if let Ok(unread) = i64::try_from(unread) {
            // A device has no place to go back to.
            let _ = lseek(stdin(), -unread, Whence::SeekCur);
        }
    }

    fn wait_to_give(&self) {
        let mut watch = Watch::default();
        watch.add(self.to.as_ref().map(AsFd::as_fd), PollFlags::POLLOUT);
        // If it fails, so does the next write.
        let _ = watch.wait(None);
    }
}

/// Whether two descriptors are of one file or terminal.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Only for descriptors that moat alone has: the flag is the open file's, shared by all that have
/// it. Where it can't be set, a workload that reads nothing holds up its own streams alone.
fn never_wait(fd: &OwnedFd) {
    if let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) {
        let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
        let _ = fcntl(fd, FcntlArg::F_SETFL(flags));
    }
}
