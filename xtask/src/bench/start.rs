//! One start of a contender, measured by `launch`; and many at a time.

use anyhow::{Context, Result, bail, ensure};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

/// A way to run `true` to its end.
pub(super) struct Contender {
    pub(super) argv: Vec<String>,
    /// The directory it is started in, when that matters.
    pub(super) dir: Option<PathBuf>,
    /// Whether each start needs a name of its own, as last argument.
    pub(super) named: bool,
}

/// What one start took.
pub(super) struct Start {
    pub(super) ms: f64,
    pub(super) rss_mib: f64,
}

impl Contender {
    pub(super) fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, dir: None, named: false }
    }

    /// Runs it once; anything but status 0 is an error, with its last word on standard error.
    pub(super) fn start(&self, launch: &Path) -> Result<Start> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let mut command = Command::new(launch);
        command.args(&self.argv);
        if self.named {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            command.arg(format!("{}-{serial}", own_name("bench")));
        }
        let (nanoseconds, kib) = self.launched(command)?;
        Ok(Start { ms: nanoseconds / 1e6, rss_mib: kib / 1024.0 })
    }

    /// Starts per second, of `count` starts of which `width` are under way at any time.
    pub(super) fn throughput(&self, launch: &Path, count: u32, width: u32) -> Result<f64> {
        let mut command = Command::new(launch);
        let name = if self.named { own_name("crowd") } else { "-".to_owned() };
        command.args(["--crowd", &count.to_string(), &width.to_string(), &name]).args(&self.argv);
        let (nanoseconds, _) = self.launched(command)?;
        Ok(f64::from(count) / (nanoseconds / 1e9))
    }

    /// What `launch` printed: nanoseconds and KiB.
    fn launched(&self, mut command: Command) -> Result<(f64, f64)> {
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let output = command.output().context("launch")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or("without a word");
        ensure!(output.status.success(), "launch: {said}");
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<&str> = text.split_whitespace().collect();
        let [nanoseconds, kib, status] = numbers[..] else { bail!("launch wrote {text:?}") };
        let status = ExitStatus::from_raw(status.parse().context("status")?);
        ensure!(status.success(), "{status}: {said}");
        Ok((nanoseconds.parse().context("time")?, kib.parse().context("memory")?))
    }
}

/// A name that no other container on this machine has.
fn own_name(kind: &str) -> String {
    format!("moat-{kind}-{}", std::process::id())
}
