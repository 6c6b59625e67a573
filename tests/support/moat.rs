//! Runs the built moat as a user would.

use std::env;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long one run may take; generous, since micro-VMs may run in an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(180);

/// The moat that was built beside these tests, or `$MOAT_BIN`.
///
/// # Errors
/// When there is none.
pub fn executable() -> Result<PathBuf> {
    if let Some(path) = env::var_os("MOAT_BIN") {
        return Ok(PathBuf::from(path));
    }
    // target/TRIPLE/PROFILE/deps/TEST-HASH -> target/TRIPLE/PROFILE/moat
    let here = env::current_exe()?;
    let beside = here.ancestors().nth(2).map(|profile| profile.join("moat"));
    let found = beside.filter(|path| path.exists());
    found.context("moat is not built: run `cargo build` first, or set MOAT_BIN")
}

/// One run of moat, and what it is given.
#[derive(Debug)]
pub struct Moat {
    command: Command,
    stdin: Vec<u8>,
    timeout: Duration,
}

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Exit status as a shell gives it.
    pub status: i32,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
}

impl Moat {
    /// moat with these arguments.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut command = Command::new(executable()?);
        command.args(args);
        // What the tests' caller logs or traces is no part of what moat says.
        command.env_remove("MOAT_LOG").env_remove("RUST_BACKTRACE");
        Ok(Self { command, stdin: Vec::new(), timeout: TIMEOUT })
    }

    /// In this directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// With this variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// With these bytes as stdin, which then ends.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The command, to change further.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it with pipes, for tests that act while it runs.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(mut self) -> Result<Child> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().context("moat can't be started")
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it can't be started, or does not end in time (it is killed then).
    pub fn run(mut self) -> Result<Seen> {
        let stdin = std::mem::take(&mut self.stdin);
        let timeout = self.timeout;
        let mut child = self.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // A workload that does not read its stdin to the end breaks the pipe; that is its right.
            thread::spawn(move || pipe.write_all(&stdin));
        }
        finish(child, timeout)
    }
}

/// Collects what a started moat shows until its end.
///
/// # Errors
/// When it does not end within `timeout`; it is killed then.
pub fn finish(mut child: Child, timeout: Duration) -> Result<Seen> {
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let (out, err) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
            bail!("moat did not end in {timeout:?}\nstdout: {}\nstderr: {}", text(out), text(err));
        }
        thread::sleep(Duration::from_millis(2));
    };
    let status = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    let joined = |bytes: thread::JoinHandle<Vec<u8>>| bytes.join().unwrap_or_default();
    Ok(Seen { status, stdout: joined(stdout), stderr: joined(stderr) })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is what the test is shown.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

impl From<Output> for Seen {
    fn from(output: Output) -> Self {
        let status = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
        Self { status: status.unwrap_or(-1), stdout: output.stdout, stderr: output.stderr }
    }
}

impl Seen {
    /// stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Checks the exit status.
    ///
    /// # Errors
    /// When it is another; all that was seen is in the message.
    pub fn status(&self, expected: i32) -> Result<&Self> {
        ensure!(self.status == expected, "status is not {expected}\n{}", self.shown());
        Ok(self)
    }

    /// Checks all of stdout.
    ///
    /// # Errors
    /// When it is other than expected.
    pub fn stdout(&self, expected: &str) -> Result<&Self> {
        ensure!(self.out() == expected, "stdout is not {expected:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks all of stderr but moat's own isolation line.
    ///
    /// # Errors
    /// When it is other than expected.
    pub fn stderr(&self, expected: &str) -> Result<&Self> {
        ensure!(self.workload_stderr() == expected, "stderr is not {expected:?}\n{}", self.shown());
        Ok(self)
    }

    /// Checks that stderr has this somewhere.
    ///
    /// # Errors
    /// When it has not.
    pub fn stderr_has(&self, part: &str) -> Result<&Self> {
        ensure!(self.err().contains(part), "stderr lacks {part:?}\n{}", self.shown());
        Ok(self)
    }

    /// stderr without moat's own isolation line.
    pub fn workload_stderr(&self) -> String {
        let text = self.err();
        text.split_inclusive('\n').filter(|line| !line.starts_with("isolation: ")).collect()
    }

    /// Everything, shortened for a message.
    pub fn shown(&self) -> String {
        let short = |text: String| match text.char_indices().nth(4000) {
            Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
            None => text,
        };
        format!("status: {}\nstdout: {}\nstderr: {}", self.status, short(self.out()), short(self.err()))
    }
}
