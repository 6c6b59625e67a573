//! Runs the programs that fetch, unpack and build.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;
use super::tether::tether;

/// How much of a failed program's output is looked at, in bytes, and how many lines are shown.
const TAIL: u64 = 4096;
const LINES_SHOWN: usize = 10;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the program to its end, calling `look` now and then with the number of lines that it wrote
/// so far.
///
/// # Errors
/// When it can't be started or fails; then with the last that it wrote. An error of `look` ends
/// the program.
pub(super) fn run(
    command: &mut Command,
    look: impl FnMut(u64) -> Result<(), Error>,
) -> Result<(), Error> {
    finish(command, look)?.success()
}

/// As [`run`], whatever the program's status is.
pub(super) fn finish(
    command: &mut Command,
    mut look: impl FnMut(u64) -> Result<(), Error>,
) -> Result<Finished, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| Error::Run { program: program.clone(), source };
    let output = tempfile::tempfile().map_err(failed)?;
    let errors = tempfile::tempfile().map_err(failed)?;
    command.stdin(Stdio::null());
    command.stdout(output.try_clone().map_err(failed)?);
    command.stderr(errors.try_clone().map_err(failed)?);
    // Messages are read by programs and shown in moat's own: in English.
    command.env("LC_ALL", "C");
    tether(command);
    let mut child = command.spawn().map_err(failed)?;
    let mut lines = Lines::default();
    loop {
        let status = child.try_wait().map_err(failed)?;
        lines.count(&output);
        // Before the status: ctrl-C ends the program, too, and that is no failure of its own.
        if let Err(error) = look(lines.count) {
            end(&mut child);
            return Err(error);
        }
        match status {
            Some(status) => return Ok(Finished { program, status, output, errors }),
            None => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Ends the program, politely first: it may have programs of its own to end.
fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id())
        && matches!(child.try_wait(), Ok(None))
    {
        // What fails here, the kill below makes good.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let deadline = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Counts the lines of a file that grows.
#[derive(Default)]
struct Lines {
    read: u64,
    count: u64,
}

impl Lines {
    /// Reading fails for no reason that the program's own writing would not show.
    fn count(&mut self, file: &File) {
        let mut piece = [0; 16 << 10];
        while let Ok(length @ 1..) = file.read_at(&mut piece, self.read) {
            let piece = piece.get(..length).unwrap_or_default();
            self.count += memchr::memchr_iter(b'\n', piece).map(|_| 1).sum::<u64>();
            self.read += u64::try_from(length).unwrap_or_default();
        }
    }
}

/// A program that came to its end.
pub(super) struct Finished {
    program: String,
    pub(super) status: ExitStatus,
    output: File,
    errors: File,
}

impl Finished {
    /// The beginning of its standard output, `limit` bytes at most.
    pub(super) fn output(&self, limit: u64) -> io::Result<String> {
        text(&self.output, 0, limit)
    }

    /// The end of its standard error.
    pub(super) fn errors(&self) -> String {
        let length = self.errors.metadata().map(|meta| meta.len()).unwrap_or_default();
        let tail = text(&self.errors, length.saturating_sub(TAIL), TAIL);
        tail.unwrap_or_default().trim().to_owned()
    }

    /// An error, with the last of its standard error, unless it succeeded.
    pub(super) fn success(self) -> Result<(), Error> {
        if self.status.success() {
            return Ok(());
        }
        let errors = self.errors();
        if errors.contains("No space left on device") {
            return Err(Error::NoSpace { program: self.program });
        }
        let lines: Vec<&str> = errors.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default();
        let output = shown.join("\n");
        Err(Error::Failed { program: self.program, status: self.status, output })
    }
}

fn text(file: &File, from: u64, limit: u64) -> io::Result<String> {
    let mut bytes = vec![0; usize::try_from(limit).unwrap_or_default()];
    let mut filled = 0;
    loop {
        let at = from + u64::try_from(filled).unwrap_or_default();
        match file.read_at(bytes.get_mut(filled..).unwrap_or_default(), at)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(String::from_utf8_lossy(bytes.get(..filled).unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_comes_with_the_last_that_was_written() {
        let script = "seq 5000 >&2; echo the reason >&2; exit 3";
        let error = run(&mut sh(script), |_| Ok(())).unwrap_err();
        let Error::Failed { program, status, output } = error else { panic!("{error}") };
        assert_eq!((program.as_str(), status.code()), ("sh", Some(3)));
        assert!(output.starts_with("4992\n") && output.ends_with("\nthe reason"), "{output}");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let script = "echo 'tar: x: Cannot write: No space left on device' >&2; exit 2";
        let error = run(&mut sh(script), |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("moat-no-such-program"), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "moat-no-such-program can't be run");
    }

    #[test]
    fn lines_are_counted_while_they_come() {
        let mut seen = Vec::new();
        let look = |lines| {
            seen.push(lines);
            Ok(())
        };
        run(&mut sh("seq 3; sleep 0.5; seq 20000"), look).unwrap();
        assert!(seen.contains(&3) && seen.last() == Some(&20003), "{seen:?}");
    }

    #[test]
    fn one_that_is_told_to_stop_ends_the_program() {
        let room = tempfile::tempdir().unwrap();
        let script = "trap 'echo ended > end; exit 1' TERM; echo; while :; do sleep 0.1; done";
        let look = |lines| if lines == 0 { Ok(()) } else { Err(Error::Interrupted) };
        let error = run(sh(script).current_dir(&room), look).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        assert!(room.path().join("end").exists());
    }
}
