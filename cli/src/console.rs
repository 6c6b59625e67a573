//! moat's own stdin and stdout as the console of a bare micro-VM.
//!
//! What is typed goes to the guest through a pipe. On a terminal every key does, also ctrl-c, but
//! for two that follow ctrl-a: x ends the machine, and ctrl-a is ctrl-a, as in QEMU. What the guest
//! writes is written on line by line, and what is no line yet, such as a prompt, a moment later.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::TerminalSize;
use moat_host::terminal::{self, Raw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::pipe2;

use crate::interrupt;

/// How long the guest may have to complete a line.
const PROMPT: Duration = Duration::from_millis(10);
const MILLISECOND: Duration = Duration::from_millis(1);
/// The longest line that is waited for, in bytes.
const LINE: usize = 4096;
/// The most that is typed ahead of a guest that does not read, in bytes; keys beyond it are lost,
/// as on every terminal.
const TYPED_AHEAD: usize = 64 << 10;
/// How much is read at once, in bytes.
const BLOCK: usize = 4096;

/// Why the user wants the machine to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By ctrl-a x.
    Keys,
    /// By a signal to moat.
    Signal(Signal),
}

/// A console that is in use.
#[derive(Debug)]
pub(crate) struct Console {
    screen: Screen,
    over: Arc<EventFd>,
    thread: JoinHandle<Option<Asked>>,
}

/// The guest's ends of the console.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) output: Screen,
    pub(crate) input: File,
}

/// A console that is ready to be used.
#[derive(Debug)]
pub(crate) struct Prepared {
    typed: OwnedFd,
    screen: Screen,
    signals: SignalFd,
}

/// What is told of the terminal's size.
pub(crate) type Resized = Box<dyn Fn(TerminalSize) + Send>;

/// Makes a console of stdin and stdout, and holds back the signals that end a program. To be
/// called before other threads are started, which would take the signals.
pub(crate) fn prepare() -> Result<(Prepared, Ends), Fault> {
    try_prepare().map_err(unusable)
}

fn try_prepare() -> io::Result<(Prepared, Ends)> {
    let signals = signals()?;
    let (input, typed) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&typed, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let screen = Screen::new(io::stdout().as_fd().try_clone_to_owned()?.into())?;
    let ends = Ends { output: screen.clone(), input: input.into() };
    Ok((Prepared { typed, screen, signals }, ends))
}

fn unusable(error: io::Error) -> Fault {
    Fault::new(Code::Microvm, "stdin and stdout can't become a console")
        .hint("give it a terminal, files or pipes")
        .because(error)
}

impl Prepared {
    /// Begins: a terminal is raw from here on. Calls `stop` when the user wants the machine to end.
    pub(crate) fn open(
        self,
        stop: impl FnOnce() + Send + 'static,
        resized: Option<Resized>,
    ) -> Result<Console, Fault> {
        self.try_open(stop, resized).map_err(unusable)
    }

    fn try_open(
        self,
        stop: impl FnOnce() + Send + 'static,
        resized: Option<Resized>,
    ) -> io::Result<Console> {
        let stdin = io::stdin();
        let raw = match stdin.is_terminal() && !terminal::is_in_background(&stdin) {
            true => Some(Raw::enter(stdin.as_fd())?),
            false => None,
        };
        let over = event()?;
        let hands = Hands {
            stdin: Some(stdin.as_fd().try_clone_to_owned()?.into()),
            typed: self.typed.into(),
            pending: Vec::new(),
            escape: raw.is_some().then(Escape::default),
            raw,
            resized,
            signals: self.signals,
            screen: self.screen.clone(),
            over: Arc::clone(&over),
        };
        hands.measure();
        let body = move || {
            let asked = hands.work();
            if asked.is_some() {
                stop();
            }
            asked
        };
        let thread = std::thread::Builder::new().name("console".to_owned()).spawn(body)?;
        Ok(Console { screen: self.screen, over, thread })
    }
}

impl Console {
    /// Writes what is left, gives the terminal back, and tells whether the user wanted the end.
    pub(crate) fn close(self) -> Option<Asked> {
        // Can't fail: one write to a fresh counter.
        let _ = self.over.write(1);
        let asked = self.thread.join().unwrap_or_default();
        self.screen.flush_on();
        asked
    }
}

fn event() -> io::Result<Arc<EventFd>> {
    Ok(Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
}

/// Those that end a program, unless whoever started moat wants them ignored, and those that tell
/// of the terminal: it must be made raw again, or has another size.
fn signals() -> io::Result<SignalFd> {
    let ignored = interrupt::ignored();
    let all = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGCONT, Signal::SIGWINCH];
    let held: SigSet = all.into_iter().filter(|signal| !ignored.contains(*signal)).collect();
    held.thread_block()?;
    Ok(SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// What there is to do.
#[derive(Debug, Clone, Copy)]
struct Ready {
    over: bool,
    signals: bool,
    begun: bool,
    stdin: bool,
    typed: bool,
}

/// The thread between the user and the guest.
struct Hands {
    /// Until its end.
    stdin: Option<File>,
    /// Does not block.
    typed: File,
    /// What the guest's pipe had no room for.
    pending: Vec<u8>,
    /// On a terminal.
    escape: Option<Escape>,
    /// Given back at the end.
    raw: Option<Raw>,
    resized: Option<Resized>,
    signals: SignalFd,
    screen: Screen,
    over: Arc<EventFd>,
}

impl Hands {
    /// Until the machine is over, or the user wants it to be.
    fn work(mut self) -> Option<Asked> {
        let mut prompt = None;
        loop {
            let ready = self.wait(prompt).ok()?;
            if ready.over {
                return None;
            }
            if prompt.is_some_and(|then| then <= Instant::now()) {
                self.screen.flush_on();
                prompt = None;
            }
            if ready.begun {
                let _ = self.screen.begun.read();
                prompt = prompt.or(Some(Instant::now() + PROMPT));
            }
            let asked = match ready {
                Ready { signals: true, .. } => self.heed(),
                Ready { stdin: true, .. } => self.listen(),
                _ => None,
            };
            if asked.is_some() {
                self.screen.give_up();
                return asked;
            }
            if ready.typed {
                self.pass_on();
            }
        }
    }

    /// Waits for something to do, or until then.
    fn wait(&self, until: Option<Instant>) -> nix::Result<Ready> {
        // Rounded up, so as not to spin through the last millisecond.
        let left = until.map(|until| until.saturating_duration_since(Instant::now()) + MILLISECOND);
        let left = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        // A terminal is read in any case: how else would ctrl-a x be heard?
        let listens = self.pending.is_empty() || self.escape.is_some();
        // poll(2) passes over what has no flags but for hang-ups, so what is not waited for is
        // stood in for by what always is.
        let over = || self.over.as_fd();
        let stdin = self.stdin.as_ref().filter(|_| listens).map(AsFd::as_fd);
        let typed = Some(self.typed.as_fd()).filter(|_| !self.pending.is_empty());
        let mut fds = [
            (Some(over()), PollFlags::POLLIN),
            (Some(self.signals.as_fd()), PollFlags::POLLIN),
            (Some(self.screen.begun.as_fd()), PollFlags::POLLIN),
            (stdin, PollFlags::POLLIN),
            (typed, PollFlags::POLLOUT),
        ]
        .map(|(fd, flags)| match fd {
            Some(fd) => PollFd::new(fd, flags),
            None => PollFd::new(over(), PollFlags::empty()),
        });
        match poll(&mut fds, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let [over, signals, begun, stdin, typed] = fds.map(|fd| fd.any().unwrap_or_default());
        Ok(Ready { over, signals, begun, stdin, typed })
    }

    fn heed(&mut self) -> Option<Asked> {
        let info = self.signals.read_signal().ok().flatten()?;
        let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
        match (signal, &self.raw) {
            (Signal::SIGCONT, Some(raw)) => raw.enter_again(),
            (Signal::SIGCONT | Signal::SIGWINCH, _) => {}
            (signal, _) => return Some(Asked::Signal(signal)),
        }
        self.measure();
        None
    }

    /// Tells the guest the terminal's size.
    fn measure(&self) {
        if let (Some(resized), Some(size)) = (&self.resized, terminal::size(io::stdout())) {
            resized(size);
        }
    }

    /// Reads what is typed.
    fn listen(&mut self) -> Option<Asked> {
        let mut block = [0; BLOCK];
        let count = match self.stdin.as_mut().map(|stdin| stdin.read(&mut block)) {
            Some(Ok(count @ 1..)) => count,
            Some(Err(error)) if is_passing(&error) => return None,
            // The end, or a terminal that is gone.
            _ => {
                self.stdin = None;
                return None;
            }
        };
        let typed = block.get(..count).unwrap_or_default();
        match &mut self.escape {
            None => self.pending.extend_from_slice(typed),
            Some(escape) => {
                if escape.take(typed, &mut self.pending) {
                    return Some(Asked::Keys);
                }
                self.pending.truncate(TYPED_AHEAD);
            }
        }
        self.pass_on();
        None
    }

    fn pass_on(&mut self) {
        match self.typed.write(&self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(error) if is_passing(&error) => {}
            // The machine reads no more, or never did; ctrl-a x is still heard.
            Err(_) => {
                self.pending.clear();
                if self.escape.is_none() {
                    self.stdin = None;
                }
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Finds ctrl-a and what follows it among keys.
#[derive(Debug, Default)]
struct Escape {
    begun: bool,
}

impl Escape {
    const CTRL_A: u8 = 1;

    /// Adds to `keys` what of `typed` is the guest's; true when the user wants the end.
    fn take(&mut self, typed: &[u8], keys: &mut Vec<u8>) -> bool {
        for &key in typed {
            match (self.begun, key) {
                (true, b'x' | b'X') => return true,
                (false, Self::CTRL_A) => {
                    self.begun = true;
                    continue;
                }
                (true, Self::CTRL_A) | (false, _) => keys.push(key),
                (true, _) => keys.extend([Self::CTRL_A, key]),
            }
            self.begun = false;
        }
        false
    }
}

/// stdout, for the guest to write to.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    line: Arc<Mutex<Vec<u8>>>,
    stdout: Arc<File>,
    /// Readable when a line was begun.
    begun: Arc<EventFd>,
    /// The machine must end, whether stdout takes what it said or not.
    over: Arc<AtomicBool>,
}

impl Screen {
    fn new(stdout: File) -> io::Result<Self> {
        Ok(Self {
            line: Arc::default(),
            stdout: Arc::new(stdout),
            begun: event()?,
            over: Arc::default(),
        })
    }

    /// From now on nobody waits for a stdout that takes nothing.
    fn give_up(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Writes what was held back.
    fn flush_on(&self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // What a stdout that is gone does not take is lost: the guest goes on.
        let _ = self.write_out(&line);
        line.clear();
    }

    fn write_out(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match nix::unistd::write(&*self.stdout, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                // A vCPU that waits here is kicked by a signal when the machine ends.
                Err(Errno::EINTR) if !self.over.load(Ordering::SeqCst) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = line.is_empty();
        line.extend_from_slice(bytes);
        if bytes.contains(&b'\n') || line.len() >= LINE {
            let written = self.write_out(&line);
            line.clear();
            written?;
        } else if begins {
            // Fails only when the counter is full, and then it is readable anyway.
            let _ = self.begun.write(1);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_ends_and_all_else_is_the_guests() {
        let mut escape = Escape::default();
        let mut keys = Vec::new();
        assert!(!escape.take(b"ls\n\x01", &mut keys));
        assert!(!escape.take(b"b\x01\x01x\x03", &mut keys));
        assert_eq!(keys, b"ls\n\x01b\x01x\x03");
        assert!(!escape.take(b"\x01", &mut keys));
        assert!(escape.take(b"x", &mut keys));
    }
}
