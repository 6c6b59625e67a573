//! moat on a terminal of the test's own.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{self, LocalFlags};
use nix::unistd::ttyname;

use crate::live::Tap;
use crate::moat::Moat;

/// How long anything on a terminal may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// moat on a terminal, as its controlling one.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Tap,
    path: PathBuf,
    /// Kept open, so that the terminal outlives moat and its settings can be looked at.
    slave: OwnedFd,
}

impl Terminal {
    /// Starts moat on a terminal of this size.
    ///
    /// # Errors
    /// When there is no terminal, or moat can't be started.
    pub fn start(moat: Moat, columns: u16, rows: u16) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).context("no terminal can be made")?;
        let path = ttyname(&pty.slave)?;
        let moat = moat.into_command();
        // setsid(1) makes the terminal the controlling one, which std's Command can't without
        // unsafe code, and becomes moat itself.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(moat.get_program()).args(moat.get_args());
        for (key, value) in moat.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = moat.get_current_dir() {
            command.current_dir(dir);
        }
        command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?);
        command.stderr(pty.slave.try_clone()?);
        let child = command.spawn().context("setsid (util-linux) can't be started")?;
        let keyboard = File::from(pty.master);
        let screen = Tap::new(keyboard.try_clone()?);
        Ok(Self { child, keyboard, screen, path, slave: pty.slave })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn send(&mut self, keys: &[u8]) -> Result<()> {
        self.keyboard.write_all(keys).context("the terminal can't be typed on")
    }

    /// Waits until the screen has shown this.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        let shown = self.screen.wait_for(text.as_bytes(), Instant::now() + TIMEOUT);
        ensure!(shown, "the screen never showed {text:?}, but: {}", self.screen.text());
        Ok(())
    }

    /// What the screen has shown so far.
    pub fn shown(&self) -> String {
        self.screen.text()
    }

    /// Gives the terminal another size; the kernel sends moat SIGWINCH.
    ///
    /// # Errors
    /// When stty(1) can't.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let status = Command::new("stty")
            .arg("-F")
            .arg(&self.path)
            .args(["cols", &columns.to_string(), "rows", &rows.to_string()])
            .status()?;
        ensure!(status.success(), "stty failed");
        Ok(())
    }

    /// Whether the terminal echoes and edits lines, as a shell leaves it.
    ///
    /// # Errors
    /// When the terminal can't be asked.
    pub fn is_cooked(&self) -> Result<bool> {
        let now = termios::tcgetattr(&self.slave)?.local_flags;
        Ok(now.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG))
    }

    /// Waits for moat's end: its status, and all that the screen has shown.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn finish(&mut self) -> Result<(i32, String)> {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                // The last of what it wrote is read by another thread.
                thread::sleep(Duration::from_millis(100));
                let status = status.code().or(status.signal().map(|signal| 128 + signal));
                return Ok((status.unwrap_or(-1), self.screen.text()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("moat did not end in {TIMEOUT:?}; the screen shows {}", self.screen.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
