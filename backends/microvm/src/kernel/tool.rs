//! Runs the programs that fetch, unpack and build.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::Error;

/// How much of a failed program's output is shown.
const TAIL: u64 = 4096;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The program's name, for messages.
pub(super) fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Runs the program to its end, calling `look` now and then.
///
/// # Errors
/// When it can't be started or fails; then with the last that it wrote.
pub(super) fn run(command: &mut Command, mut look: impl FnMut()) -> Result<(), Error> {
    let program = name(command);
    let failed = |source| Error::Run { program: program.clone(), source };
    let log = tempfile::tempfile().map_err(failed)?;
    let output = log.try_clone().map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let child = plain(command).stdout(output).stderr(errors).spawn();
    let mut child = child.map_err(failed)?;
    loop {
        match child.try_wait().map_err(failed)? {
            None => {
                look();
                std::thread::sleep(LOOK_EVERY);
            }
            Some(status) => return check(command, status, log),
        }
    }
}

/// Starts the program with its standard output as a pipe. Its errors go to the file returned.
pub(super) fn start(command: &mut Command) -> Result<(Child, File), Error> {
    let program = name(command);
    let failed = |source| Error::Run { program: program.clone(), source };
    let log = tempfile::tempfile().map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let child = plain(command).stdout(Stdio::piped()).stderr(errors).spawn().map_err(failed)?;
    Ok((child, log))
}

/// An error with the end of `log` unless `status` is success.
pub(super) fn check(command: &Command, status: ExitStatus, log: File) -> Result<(), Error> {
    if status.success() {
        return Ok(());
    }
    let output = tail(log).unwrap_or_default();
    Err(Error::Failed { program: name(command), status, output: output.trim().to_owned() })
}

/// Messages are read by programs and shown in moat's own: in English.
fn plain(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).env("LC_ALL", "C")
}

fn tail(mut log: File) -> io::Result<String> {
    let length = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    log.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_with_the_last_that_was_written() {
        let script = "yes filler | head -5000; echo the reason >&2; exit 3";
        let error = run(Command::new("sh").args(["-c", script]), || {}).unwrap_err();
        let Error::Failed { program, status, output } = error else { panic!("{error}") };
        assert_eq!((program.as_str(), status.code()), ("sh", Some(3)));
        assert!(output.ends_with("the reason"), "{output}");
        assert!(output.len() <= 4096);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("moat-no-such-program"), || {}).unwrap_err();
        assert_eq!(error.to_string(), "moat-no-such-program can't be run");
    }
}
