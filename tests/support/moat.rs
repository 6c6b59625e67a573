//! Runs the built moat as a user would.

use std::env;
use std::ffi::OsStr;
use std::io::{self, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Uid;

use crate::host;
use crate::live::Live;
use crate::seen::Seen;

/// The bed's memory filesystem: its other files come over 9p, slowly.
pub(crate) const BED: &str = "/run/bed";

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

/// The runtime directory of all tests but those with their own: what they share is found out
/// about this machine only once, and what others run here is not swept up or reported.
pub(crate) fn runtime_dir() -> PathBuf {
    if host::is_bed() {
        return Path::new(BED).join("runtime");
    }
    // Not below the repository, which some tests mount.
    env::temp_dir().join(format!("moat-tests-{}", Uid::effective()))
}

/// One run of moat, and what it is given.
#[derive(Debug)]
pub struct Moat {
    command: Command,
    stdin: Input,
    merged: bool,
    timeout: Duration,
}

/// What moat's stdin is.
#[derive(Debug)]
enum Input {
    /// A pipe that holds these bytes and then ends.
    Bytes(Vec<u8>),
    /// A pipe that the test writes to while moat runs.
    Open,
    /// Something else.
    Is(Stdio),
}

impl Moat {
    /// moat with these arguments.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::through(&[], args)
    }

    /// moat with these arguments, started by a command that runs what follows it: `unshare -m`.
    ///
    /// # Errors
    /// When moat is not built.
    pub fn through<S: AsRef<OsStr>>(
        starter: &[&str],
        args: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let moat = executable()?;
        let command = match starter {
            [] => Command::new(moat),
            [program, first @ ..] => {
                let mut command = Command::new(program);
                command.args(first).arg(moat);
                command
            }
        };
        Ok(Self::from_command(command, args))
    }

    /// Another command, which runs moat in the end.
    pub fn program<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        Self::from_command(Command::new(program), args)
    }

    fn from_command<S: AsRef<OsStr>>(
        mut command: Command,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        command.args(args);
        command.env("XDG_RUNTIME_DIR", runtime_dir());
        // What the tests' caller logs or traces is no part of what moat says.
        command.env_remove("MOAT_LOG").env_remove("RUST_BACKTRACE");
        Self { command, stdin: Input::Bytes(Vec::new()), merged: false, timeout: TIMEOUT }
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

    /// With the runtime directory that moat takes by itself. What another user runs needs that:
    /// the tests' own belongs to whom they run as.
    #[must_use]
    pub fn own_runtime_dir(mut self) -> Self {
        self.command.env_remove("XDG_RUNTIME_DIR");
        self
    }

    /// With this further argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// With these bytes as stdin, which then ends.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// With a stdin that stays open until [`Live::close_stdin`].
    #[must_use]
    pub fn stdin_open(mut self) -> Self {
        self.stdin = Input::Open;
        self
    }

    /// With a stdin that is something else than a pipe.
    #[must_use]
    pub fn stdin_is(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Input::Is(stdin.into());
        self
    }

    /// With stdout and stderr in one pipe; what comes is seen as stdout.
    #[must_use]
    pub fn merged(mut self) -> Self {
        self.merged = true;
        self
    }

    /// With another limit for how long it may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The command itself, for tests that hold its descriptors in their own hands.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts it, for tests that act while it runs.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(mut self) -> Result<Live> {
        let (stdin, bytes) = match self.stdin {
            Input::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
            Input::Open => (Stdio::piped(), None),
            Input::Is(stdin) => (stdin, None),
        };
        let (stdout, out) = io::pipe()?;
        let (stderr, err): (PipeReader, Stdio) = if self.merged {
            (io::pipe()?.0, out.try_clone()?.into())
        } else {
            let (stderr, err) = io::pipe()?;
            (stderr, err.into())
        };
        self.command.stdin(stdin).stdout(out).stderr(err);
        let child = self.command.spawn().context("moat can't be started")?;
        Ok(Live::new(child, stdout, stderr, bytes, self.timeout))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it can't be started, or does not end in time (it is killed then).
    pub fn run(self) -> Result<Seen> {
        self.start()?.finish()
    }
}

/// All that comes, up to the end.
pub(crate) fn read_on(mut from: impl Read, mut each: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    // What came before an error is what the test is shown.
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        each(&buffer[..read]);
    }
}
