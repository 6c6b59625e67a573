//! PID 1 in the micro-VM.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match moat_guest::run() {
        Ok(never) => match never {},
        Err(error) => {
            report(&error);
            // The end of PID 1 is a kernel panic, which resets the machine: the VMM then shows the
            // console's tail, with what was just written.
            ExitCode::FAILURE
        }
    }
}

/// Writes the error and its causes to the console.
fn report(error: &dyn Error) {
    let mut text = format!("moat-guest: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.push('\n');
    // Without a console there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
