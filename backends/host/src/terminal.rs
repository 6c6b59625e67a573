//! The terminal that moat is on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_core::sandbox::TerminalSize;
use nix::sys::termios::{self, SetArg, Termios};

/// The size of a terminal; `None` when the descriptor is none.
pub fn size(terminal: impl AsFd) -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(TerminalSize { columns: size.ws_col, rows: size.ws_row })
}

/// A terminal in raw mode (termios(3)), so that every key reaches the workload's own terminal.
/// Restored when dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
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
        termios::tcsetattr(&terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
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
