//! Between moat's own stdin and stdout and the master of the workload's terminal.

use std::io::{stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_host::terminal::Raw;
use moat_init::watch::{Place, Watch};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::unistd::{read, write};

/// What a terminal takes for the end of input (termios(3), `VEOF`).
const END_OF_INPUT: u8 = 0x04;

/// The most that is in passage in each direction, in bytes.
const BUFFER: usize = 16 << 10;

/// The most that is written at once, so that a slow reader holds nothing up: what poll(2) says can
/// be written without waiting is at least this (pipe(7), `PIPE_BUF`).
const PIECE: usize = 4096;

/// The relay.
pub(crate) struct Relay {
    master: OwnedFd,
    raw: Option<Raw>,
    /// Typed, not yet taken by the terminal.
    input: Vec<u8>,
    /// Written, not yet taken by stdout.
    output: Vec<u8>,
    input_open: bool,
    output_open: bool,
    begun: bool,
}

/// Where the relay's descriptors are among those that are watched.
pub(crate) struct Places {
    stdin: Place,
    stdout: Place,
    master: Place,
}

/// What can be done without waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    stdin: bool,
    stdout: bool,
    master_in: bool,
    master_out: bool,
}

impl Places {
    pub(crate) fn ready(&self, watch: &Watch<'_>) -> Ready {
        let end = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Ready {
            stdin: watch.is_ready(self.stdin),
            stdout: watch.is_ready(self.stdout),
            master_in: watch.has(self.master, PollFlags::POLLIN | end),
            master_out: watch.has(self.master, PollFlags::POLLOUT),
        }
    }
}

impl Relay {
    pub(crate) fn new(master: OwnedFd) -> Self {
        // Where it can't be, a workload that reads nothing holds up its own terminal alone.
        let _ = fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK));
        Self {
            master,
            raw: None,
            input: Vec::new(),
            output: Vec::new(),
            input_open: true,
            output_open: true,
            begun: false,
        }
    }

    /// From now on keys go to the workload.
    pub(crate) fn begin(&mut self) {
        self.begun = true;
        // A stdin that is no terminal is passed on as it is.
        self.raw = Raw::enter(stdin().as_fd()).ok();
    }

    pub(crate) fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// Adds what it waits for.
    pub(crate) fn watch<'w>(&'w self, watch: &mut Watch<'w>) -> Places {
        let wanted = |wanted: bool, fd: BorrowedFd<'w>| wanted.then_some(fd);
        let takes_input = self.begun && self.input_open && self.input.is_empty();
        let mut flags = PollFlags::empty();
        if self.output_open && self.output.is_empty() {
            flags |= PollFlags::POLLIN;
        }
        if !self.input.is_empty() {
            flags |= PollFlags::POLLOUT;
        }
        let master = wanted(!flags.is_empty() && self.output_open, self.master.as_fd());
        Places {
            stdin: watch.add(wanted(takes_input, standard(0)), PollFlags::POLLIN),
            stdout: watch.add(wanted(!self.output.is_empty(), standard(1)), PollFlags::POLLOUT),
            master: watch.add(master, flags),
        }
    }

    /// Passes on what can be.
    pub(crate) fn pass(&mut self, ready: Ready) {
        if ready.stdin {
            self.take_input();
        }
        if ready.master_out || (ready.stdin && !self.input.is_empty()) {
            self.give_input();
        }
        if ready.master_in && self.output.is_empty() {
            self.take_output();
        }
        if ready.stdout {
            self.give_output();
        }
    }

    /// Passes on all output that is left, after the last process of the container has ended.
    pub(crate) fn drain(&mut self) {
        while self.output_open {
            while !self.output.is_empty() {
                self.give_output();
            }
            if !self.take_output() {
                break;
            }
        }
        // The terminal is as it was before anything else is said on it.
        self.raw = None;
    }

    fn take_input(&mut self) {
        let mut buffer = [0; BUFFER];
        match read(stdin(), &mut buffer) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) | Err(_) => {
                self.input_open = false;
                self.input.push(END_OF_INPUT);
            }
            Ok(length) => self.input.extend(buffer.iter().take(length)),
        }
    }

    fn give_input(&mut self) {
        match write(&self.master, &self.input) {
            Ok(length) => drop(self.input.drain(..length)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Nobody has the terminal any more.
            Err(_) => self.input.clear(),
        }
    }

    /// Whether there was any.
    fn take_output(&mut self) -> bool {
        let mut buffer = [0; BUFFER];
        match read(&self.master, &mut buffer) {
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // EIO: nobody has the other end any more (pty(7)).
            Ok(0) | Err(_) => {
                self.output_open = false;
                false
            }
            Ok(length) => {
                self.output.extend(buffer.iter().take(length));
                true
            }
        }
    }

    fn give_output(&mut self) {
        let piece = self.output.len().min(PIECE);
        match write(stdout(), self.output.get(..piece).unwrap_or_default()) {
            Ok(length) => drop(self.output.drain(..length)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_for_stdout(),
            // Nobody reads it any more: what the workload writes goes nowhere, as at a terminal
            // whose window was closed.
            Err(_) => self.output.clear(),
        }
    }
}

/// A stdout that someone has made non-blocking.
fn wait_for_stdout() {
    let mut watch = Watch::default();
    watch.add(Some(standard(1)), PollFlags::POLLOUT);
    // If it fails, so does the next write.
    let _ = watch.wait(None);
}

/// Standard input or output, for as long as moat lives.
fn standard(number: i32) -> BorrowedFd<'static> {
    // The handles are of the whole process; what they lend lives as long.
    static HANDLES: std::sync::OnceLock<(std::io::Stdin, std::io::Stdout)> =
        std::sync::OnceLock::new();
    let (input, output) = HANDLES.get_or_init(|| (stdin(), stdout()));
    if number == 0 { input.as_fd() } else { output.as_fd() }
}
