//! The terminal that moat is on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::sandbox::TerminalSize;
use nix::sys::termios::{self, SetArg, Termios};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The size of a terminal; `None` when the descriptor is none.
pub fn size(terminal: impl AsFd) -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(TerminalSize { columns: size.ws_col, rows: size.ws_row })
}

/// Whether this process is in the background of the terminal that it was started from: the shell
/// there shows another job, whose keys and settings the terminal has (tcgetpgrp(3)).
pub fn is_in_background(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground != getpgrp())
}

/// A terminal in raw mode (termios(3)), so that every key reaches the workload's own terminal.
/// Restored when dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
    raw: Termios,
}

impl Raw {
    /// Puts a terminal into raw mode.
    ///
    /// # Errors
    /// When the descriptor is no terminal, or can't be duplicated.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let before = termios::tcgetattr(terminal)?;
        let terminal = terminal.try_clone_to_owned()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        let entered = Self { terminal, before, raw };
        entered.set(&entered.raw)?;
        Ok(entered)
    }

    /// Puts it into raw mode again, after this process was stopped and the shell had the terminal.
    pub fn enter_again(&self) {
        // One that is gone tells so to who reads it.
        let _ = self.set(&self.raw);
    }

    /// In the background nothing: that would stop this process (tcsetattr(3), SIGTTOU), and the
    /// settings are another's.
    fn set(&self, settings: &Termios) -> io::Result<()> {
        if is_in_background(&self.terminal) {
            return Ok(());
        }
        Ok(termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, settings)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = self.set(&self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::{Winsize, openpty};
    use nix::sys::termios::{LocalFlags, tcgetattr};

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        assert_eq!(super::size(&pty.slave), Some(TerminalSize { columns: 99, rows: 33 }));
        let echoes = || tcgetattr(&pty.slave).unwrap().local_flags.contains(LocalFlags::ECHO);
        assert!(echoes());
        let raw = Raw::enter(pty.slave.as_fd()).unwrap();
        assert!(!echoes());
        termios::tcsetattr(&pty.slave, SetArg::TCSADRAIN, &raw.before).unwrap();
        raw.enter_again();
        assert!(!echoes());
        drop(raw);
        assert!(echoes());
    }

    #[test]
    fn a_pipe_is_no_terminal() {
        let (pipe, _other) = io::pipe().unwrap();
        assert_eq!(size(&pipe), None);
        assert!(Raw::enter(pipe.as_fd()).is_err());
    }
}
