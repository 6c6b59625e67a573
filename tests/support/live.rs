//! A moat that runs while the test acts on it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::moat::read_on;
use crate::seen::Seen;

/// A moat that runs, and what it has shown so far. One that is dropped is killed.
#[derive(Debug)]
pub struct Live {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Tap,
    stderr: Tap,
    deadline: Instant,
    timeout: Duration,
}

impl Live {
    pub(crate) fn new(
        mut child: Child,
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
        stdin: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Self {
        let mut pipe = child.stdin.take();
        if let Some(bytes) = stdin
            && let Some(mut pipe) = pipe.take()
        {
            // A workload that does not read its stdin to the end breaks the pipe; that is its right.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        Self {
            child,
            stdin: pipe,
            stdout: Tap::new(stdout),
            stderr: Tap::new(stderr),
            deadline: Instant::now() + timeout,
            timeout,
        }
    }

    /// moat's own process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its stdout has this somewhere.
    ///
    /// # Errors
    /// When it ends without, or does not in time.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let missing = self.stdout.wait_for(text.as_bytes(), self.deadline);
        missing.then_some(()).with_context(|| {
            let (out, err) = (self.stdout.text(), self.stderr.text());
            format!("stdout never had {text:?}\nstdout: {out}\nstderr: {err}")
        })
    }

    /// What its stdout has shown so far.
    pub fn out(&self) -> String {
        self.stdout.text()
    }

    /// Writes to its stdin.
    ///
    /// # Errors
    /// When it was not started with an open stdin, or nobody reads.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is not open")?;
        stdin.write_all(bytes).context("stdin can't be written")
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends moat a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        signal::kill(pid, signal).context("moat can't be sent a signal")
    }

    /// Waits for its end, and for that of its output. A stdin that is open stays so.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn finish(mut self) -> Result<Seen> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > self.deadline {
                let (out, err) = (self.stdout.text(), self.stderr.text());
                bail!("moat did not end in {:?}\nstdout: {out}\nstderr: {err}", self.timeout);
            }
            thread::sleep(Duration::from_millis(2));
        };
        let ended = self.stdout.join(self.deadline) && self.stderr.join(self.deadline);
        let status = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        let seen = Seen { status, stdout: self.stdout.take(), stderr: self.stderr.take() };
        if !ended {
            bail!("moat ended, but something holds its output open\n{}", seen.shown());
        }
        Ok(seen)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pipe has shown so far.
#[derive(Debug)]
pub(crate) struct Tap {
    shown: Arc<Shown>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shown {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    pub(crate) fn new(from: impl Read + Send + 'static) -> Self {
        let shown = Arc::new(Shown::default());
        let theirs = Arc::clone(&shown);
        let reader = thread::spawn(move || {
            read_on(from, |bytes| {
                theirs.lock().extend_from_slice(bytes);
                theirs.more.notify_all();
            });
        });
        Self { shown, reader: Some(reader) }
    }

    fn is_open(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
    }

    /// Whether it came before the deadline and the end.
    pub(crate) fn wait_for(&self, part: &[u8], deadline: Instant) -> bool {
        // The end of the pipe wakes nobody.
        const LOOK_AGAIN: Duration = Duration::from_millis(50);
        let mut bytes = self.shown.lock();
        loop {
            let open = self.is_open();
            if bytes.windows(part.len().max(1)).any(|window| window == part) {
                return true;
            }
            if !open || Instant::now() > deadline {
                return false;
            }
            let waited = self.shown.more.wait_timeout(bytes, LOOK_AGAIN);
            bytes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the pipe ended before the deadline.
    pub(crate) fn join(&mut self, deadline: Instant) -> bool {
        // At least a moment: the deadline may have passed while moat ended.
        let deadline = deadline.max(Instant::now() + Duration::from_secs(5));
        while self.is_open() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        !self.is_open()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock()).into_owned()
    }

    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.shown.lock())
    }
}
