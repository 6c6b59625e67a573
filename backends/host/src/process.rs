//! A process named so that a reused pid is never taken for it: its pid and when it started.

use std::io;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::procfs;

/// A process of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid in moat's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now, unless there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = procfs::read(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start_time: start_time(&stat)? })
    }

    /// The calling process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether that process is still there (it may be a zombie).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends it by SIGKILL; nothing happens when it is gone, whoever has its pid by now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let sent = pidfd_open(pid, PidfdFlags::empty()).and_then(|process| {
            // What was opened is the one that was meant only if that is still there now.
            if self.is_alive() { pidfd_send_signal(process, Signal::KILL) } else { Ok(()) }
        });
        match sent {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// How long ago it started; `None` where that can't be told.
    pub fn age(self) -> Option<Duration> {
        let uptime = uptime(&procfs::read("/proc/uptime").ok()?)?;
        let second = sysconf(SysconfVar::CLK_TCK).ok()??;
        let second = u64::try_from(second).ok().filter(|ticks| *ticks > 0)?;
        let rest = Duration::from_millis(self.start_time % second * 1000 / second);
        uptime.checked_sub(Duration::from_secs(self.start_time / second) + rest)
    }
}

/// Seconds since boot with two decimals, the first field (proc_uptime(5)).
fn uptime(text: &str) -> Option<Duration> {
    let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    let whole = Duration::from_secs(seconds.parse().ok()?);
    Some(whole + Duration::from_millis(hundredths.parse::<u64>().ok()?.min(99) * 10))
}

/// Field 22, counted from behind the command's closing parenthesis, since the command itself may
/// hold blanks and parentheses.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_may_hold_anything() {
        let fields = (3..=52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time(&format!("7 (a) b (c)) {fields}")), Some(22));
        assert_eq!(start_time("7 (cut"), None);
    }

    #[test]
    fn this_process_is_young_and_ages() {
        assert_eq!(uptime("350735.47 234388.90"), Some(Duration::from_millis(350_735_470)));
        assert_eq!(uptime("soon"), None);
        let own = ProcessId::own().unwrap();
        let age = own.age().unwrap();
        assert!(age < Duration::from_secs(600), "{age:?}");
        while own.age().unwrap() <= age {}
    }

    #[test]
    fn a_reused_pid_is_not_the_same_process() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        let other = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive());
        other.kill().unwrap();
    }
}
