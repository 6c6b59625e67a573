//! The attacker's side: what an attack is given, and how it tells what it got.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;

use crate::call;
use crate::cases;
use crate::evidence::{Evidence, Kind};

/// The argument that makes this executable an attacker.
pub(crate) const ASKED: &str = "--attack";

/// Runs the attack of this name, as the process that it was started to be.
pub(crate) fn be_attack(name: &str, arguments: &[&str]) -> ExitCode {
    let Some(case) = cases::ALL.iter().find(|case| case.name == name) else {
        return ExitCode::FAILURE;
    };
    (case.attack)(&Tries, arguments);
    ExitCode::SUCCESS
}

/// What was tried, and what came of it: each a line on stdout, at once.
pub(crate) struct Tries;

impl Tries {
    /// It worked.
    pub(crate) fn got(&self, what: &str, how: impl Display) {
        tell(Kind::Got, what, how);
    }

    /// It was refused.
    pub(crate) fn refused(&self, what: &str, why: impl Display) {
        tell(Kind::Refused, what, why);
    }

    /// There is no such thing on this machine.
    pub(crate) fn absent(&self, what: &str, why: impl Display) {
        tell(Kind::Absent, what, why);
    }

    /// As the call went; `ENOSYS` may mean that this kernel does not have it.
    pub(crate) fn of(&self, what: &str, result: nix::Result<impl Display>) {
        self.door(what, result, &[]);
    }

    /// As the call went, where these errors are given only to those whom the kernel let in.
    pub(crate) fn door(&self, what: &str, result: nix::Result<impl Display>, past: &[Errno]) {
        match result {
            Ok(how) => self.got(what, how),
            Err(errno) if past.contains(&errno) => tell(Kind::Past, what, format!("{errno:?}")),
            Err(Errno::ENOSYS) => self.absent(what, "ENOSYS"),
            Err(errno) => self.refused(what, format!("{errno:?}")),
        }
    }

    /// Opens a file. One that is not there, or stands for no device, is absent.
    pub(crate) fn opens(&self, path: &str, flags: OFlag) {
        match open(path, flags) {
            Ok(_) if flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR) => {
                self.got(path, "opened for writing");
            }
            Ok(_) => self.got(path, "opened"),
            Err(errno @ (Errno::ENOENT | Errno::ENXIO | Errno::ENODEV)) => {
                self.absent(path, format!("{errno:?}"));
            }
            Err(errno) => self.refused(path, format!("{errno:?}")),
        }
    }

    /// Tries this in a child process. One that is killed at it was refused.
    pub(crate) fn apart(&self, what: &str, body: impl FnOnce(&Self)) {
        let tried = call::apart(|| {
            body(self);
            0
        });
        match tried {
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                self.refused(what, format!("killed by {signal}"));
            }
            Ok(_) => {}
            Err(errno) => self.refused(what, format!("no child: {errno:?}")),
        }
    }
}

fn tell(kind: Kind, what: &str, how: impl Display) {
    let line = Evidence { kind, what: what.to_owned(), how: how.to_string() }.line();
    // Past the buffer of stdout, which a forked child would write a second time. Nobody is told
    // when nobody listens.
    let _ = nix::unistd::write(io::stdout(), line.as_bytes());
}

/// Opens a file.
///
/// # Errors
/// The kernel's.
pub(crate) fn open(path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o600))
}

/// The first bytes of a file, as text.
///
/// # Errors
/// The kernel's.
pub(crate) fn read(path: &str) -> nix::Result<String> {
    const ENOUGH: u64 = 4096;
    let mut bytes = Vec::new();
    let file = File::from(open(path, OFlag::O_RDONLY)?);
    file.take(ENOUGH).read_to_end(&mut bytes).map_err(|error| number(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes so many MiB to a new file, which is removed again.
///
/// # Errors
/// The kernel's; `ENOSPC` also when not all could be written.
pub(crate) fn fill(path: &str, mib: usize) -> nix::Result<String> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
    let bytes = vec![1; 1 << 20];
    let mut written = (0..mib).map(|_| nix::unistd::write(&file, &bytes));
    let failed = written.find(|written| *written != Ok(bytes.len()));
    nix::unistd::unlink(path)?;
    match failed {
        None => Ok(format!("{mib} MiB")),
        Some(written) => written.and(Err(Errno::ENOSPC)),
    }
}

/// The kernel's number of an error of the standard library.
pub(crate) fn number(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
