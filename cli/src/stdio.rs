//! moat's own stdin, stdout and stderr: whether a workload may have them.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

use moat_core::diagnose::{Code, Fault};
use moat_core::sandbox::TerminalSize;
use moat_core::spec::Resolved;
use moat_host::terminal;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

/// Refuses a directory, and what was opened only as a place (open(2), `O_PATH`). Nothing can be read
/// or written there, and whoever has it can go on from it to all that is around it on this host
/// (proc(5), /proc/self/fd), past every wall.
pub(crate) fn check() -> Result<(), Fault> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let own = [("stdin", stdin.as_fd()), ("stdout", stdout.as_fd()), ("stderr", stderr.as_fd())];
    own.into_iter().try_for_each(|(name, fd)| refuse_place(name, fd))
}

/// Refuses one of them, if it is such.
pub(crate) fn refuse_place(name: &str, fd: BorrowedFd<'_>) -> Result<(), Fault> {
    if !is_place(fd) {
        return Ok(());
    }
    let what =
        format!("{name} is a directory, or was opened with O_PATH: a way out of any container");
    Err(Fault::new(Code::Usage, what)
        .hint("give it a file, a pipe or /dev/null; a directory is given as a volume"))
}

fn is_place(fd: BorrowedFd<'_>) -> bool {
    let kind = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    kind == Ok(SFlag::S_IFDIR) || flags.is_ok_and(|flags| flags.contains(OFlag::O_PATH))
}

/// The terminal that the workload gets: the one that moat is on, unless the spec says no. Not from
/// its background, where another job has the keys.
pub(crate) fn terminal_for(workload: &Resolved) -> Result<Option<TerminalSize>, Fault> {
    match (workload.tty, terminal()) {
        (Some(false), _) => Ok(None),
        (Some(true), None) => Err(Fault::new(
            Code::Usage,
            format!(
                "{} wants a terminal (`tty = true`), but moat is not in the foreground of one",
                workload.name
            ),
        )
        .hint("run it from a terminal, or leave `tty` out: it is found by itself")),
        (_, size) => Ok(size),
    }
}

/// The size of the terminal that moat is in the foreground of, if it is.
pub(crate) fn terminal() -> Option<TerminalSize> {
    let stdin = io::stdin();
    let shown = stdin.is_terminal() && !terminal::is_in_background(&stdin);
    shown.then(|| terminal::size(io::stdout())).flatten()
}
