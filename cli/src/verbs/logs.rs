//! `moat logs`

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use moat_core::diagnose::{Code, Fault};
use moat_host::kept::Kept;
use moat_host::log::{Piece, Reader, Stream};
use serde_json::json;

use crate::Failure;
use crate::args::Logs;
use crate::host::Host;
use crate::known;
use crate::output::Output;

/// How soon is looked again for what is written.
const SOON: Duration = Duration::from_millis(50);

/// Shows what was written: to stdout on stdout, to stderr on stderr.
pub(crate) fn logs(output: Output, args: &Logs) -> Result<u8, Failure> {
    let host = Host::open()?;
    host.sweep(output)?;
    let known = known::find(&host, &args.named.name, args.named.project.as_ref())?;
    let kept = known.kept.as_ref().ok_or_else(|| {
        Fault::new(Code::NotRunning, format!("nothing is kept of what {} writes", known.shown()))
            .hint("it runs in the foreground: what it writes is where it was started")
    })?;
    let mut reader = Reader::open(&kept.dir).map_err(|error| unreadable(kept, error))?;
    let mut printer = Printer { output, timestamps: args.timestamps, begun: [false; 2] };
    for piece in wanted(&mut reader, args).map_err(|error| unreadable(kept, error))? {
        if !printer.print(&piece)? {
            return Ok(0);
        }
    }
    if args.follow {
        follow(&host, kept, &mut reader, &mut printer, args)?;
    }
    Ok(0)
}

fn unreadable(kept: &Kept, error: io::Error) -> Fault {
    let what = format!("the log in {} can't be read", kept.dir.display());
    Fault::new(Code::State, what).hint("see that this user may read it").because(error)
}

/// What is there now and is asked for.
fn wanted(reader: &mut Reader, args: &Logs) -> io::Result<VecDeque<Piece>> {
    let mut pieces = VecDeque::new();
    // Whether each of them begins a line, and whether one of stdout or stderr has begun and not ended.
    let (mut begins, mut begun) = (VecDeque::new(), [false; 2]);
    let mut lines = 0;
    while let Some(piece) = reader.read()? {
        if !is_recent(&piece, args) {
            continue;
        }
        let begun = &mut begun[usize::from(piece.stream == Stream::Stderr)];
        begins.push_back(!*begun);
        lines += usize::from(!*begun);
        *begun = !piece.whole;
        pieces.push_back(piece);
        // What is left of a line whose beginning is gone goes too.
        while args.tail.is_some_and(|tail| lines > tail) || begins.front() == Some(&false) {
            pieces.pop_front();
            lines -= usize::from(begins.pop_front() == Some(true));
        }
    }
    Ok(pieces)
}

fn is_recent(piece: &Piece, args: &Logs) -> bool {
    args.since.is_none_or(|since| piece.time >= since)
}

/// Prints what is written from now on until the workload's end, or until nobody reads it.
fn follow(
    host: &Host,
    kept: &Kept,
    reader: &mut Reader,
    printer: &mut Printer,
    args: &Logs,
) -> Result<(), Fault> {
    loop {
        // In this order: what was written before the end is there when the end shows.
        let lives = host.shelf.find(&kept.dir).is_some_and(|kept| kept.lives);
        while let Some(piece) = reader.read().map_err(|error| unreadable(kept, error))? {
            if is_recent(&piece, args) && !printer.print(&piece)? {
                return Ok(());
            }
        }
        if !lives {
            return Ok(());
        }
        sleep(SOON);
    }
}

/// Prints pieces as the lines that they make up.
struct Printer {
    output: Output,
    timestamps: bool,
    /// Whether a line of stdout or stderr has begun and not ended.
    begun: [bool; 2],
}

impl Printer {
    /// Whether somebody reads it.
    fn print(&mut self, piece: &Piece) -> Result<bool, Fault> {
        if self.output.is_json() {
            let line = json!({
                "time": piece.time,
                "stream": piece.stream.as_str(),
                "text": String::from_utf8_lossy(&piece.bytes),
                "whole": piece.whole,
            });
            return write(Stream::Stdout, format!("{line}\n").as_bytes());
        }
        let begun = &mut self.begun[usize::from(piece.stream == Stream::Stderr)];
        let mut line = Vec::new();
        if self.timestamps && !*begun {
            line.extend_from_slice(format!("{:.9} ", piece.time).as_bytes());
        }
        line.extend_from_slice(&piece.bytes);
        if piece.whole {
            line.push(b'\n');
        }
        *begun = !piece.whole;
        write(piece.stream, &line)
    }
}

/// Writes at once, so that a prompt is seen; false when nobody reads.
fn write(stream: Stream, bytes: &[u8]) -> Result<bool, Fault> {
    let written = match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    };
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Fault::new(Code::State, "what was written can't be shown")
            .hint("see that there is room where stdout and stderr go")
            .because(error)),
    }
}
