//! What a workload wrote to stdout and stderr, kept on disk in the format that container runtimes
//! give to Kubernetes (CRI, "kubelet log format"): a line for each piece, with when and where it was
//! written, and whether its own line goes on.
//!
//! ```text
//! 2026-11-23T10:15:30.123456789Z stdout F a whole line
//! 2026-11-23T10:15:30.223456789Z stderr P a prompt, or a piece of a long line
//!
//! DIR/log     the newest          DIR/log.1, DIR/log.2, ...   older ones, each older than the one before
//! ```
//! A piece is written as soon as it is there, so that a prompt without an end of line is seen. Each
//! is one write(2). Where a full disk or a killed monitor cut one off, what is left of it is read as a
//! piece, or with the next one; what makes no sense is passed over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

const NAME: &str = "log";

/// The most bytes of output in one line of the file; longer ones are cut into pieces.
pub const PIECE: usize = 16 << 10;

/// The most bytes of one line of the file: a piece, and what is before it.
const LINE: u64 = PIECE as u64 + 128;

/// Where a workload wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Its stdout, or its terminal.
    Stdout,
    /// Its stderr.
    Stderr,
}

impl Stream {
    /// `stdout`, `stderr`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A file that has this many bytes gets no more; at least one piece goes into each.
    pub size: u64,
    /// The most files; at least 1.
    pub files: u32,
}

/// The writing end. One process has it.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
}

impl Writer {
    /// Goes on after what is in the log of `dir`.
    ///
    /// # Errors
    /// When the file can't be made or opened.
    pub fn open(dir: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = open(dir)?;
        let size = file.metadata()?.len();
        let mut writer = Self { dir: dir.to_owned(), rotation, file, size };
        if size > 0 && !ends_whole(dir)? {
            // A killed monitor's last line must not swallow our first.
            writer.put(b"\n")?;
        }
        Ok(writer)
    }

    /// Keeps what was written to `stream` at the time `now`.
    ///
    /// # Errors
    /// When it can't be written; what can be written later is taken again.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> io::Result<()> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, whole) = match line.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (line, false),
            };
            let pieces = line.len().div_ceil(PIECE).max(1);
            for number in 1..=pieces {
                let start = (number - 1) * PIECE;
                let piece = line.get(start..line.len().min(start + PIECE)).unwrap_or_default();
                self.piece(stream, piece, whole && number == pieces, now)?;
            }
        }
        Ok(())
    }

    fn piece(
        &mut self,
        stream: Stream,
        piece: &[u8],
        whole: bool,
        now: Timestamp,
    ) -> io::Result<()> {
        if self.size >= self.rotation.size {
            self.rotate()?;
        }
        let tag = if whole { 'F' } else { 'P' };
        let mut line = format!("{now:.9} {} {tag} ", stream.as_str()).into_bytes();
        line.extend_from_slice(piece);
        line.push(b'\n');
        self.put(&line)
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(line);
        // What a full disk cut off is ended by the next line's own end.
        self.size = self.file.metadata().map_or(self.size, |metadata| metadata.len());
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        let last = self.rotation.files.saturating_sub(1);
        let mut there = 0;
        while there < last && fs::exists(numbered(&self.dir, there))? {
            there += 1;
        }
        for number in (0..there).rev() {
            fs::rename(numbered(&self.dir, number), numbered(&self.dir, number + 1))?;
        }
        if self.rotation.files <= 1 {
            fs::remove_file(numbered(&self.dir, 0))?;
        }
        self.file = open(&self.dir)?;
        self.size = 0;
        Ok(())
    }
}

fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(numbered(dir, 0))
}

/// Whether the log's last line was written to its end.
fn ends_whole(dir: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = File::open(numbered(dir, 0))?;
    let mut last = [0];
    let at = file.metadata()?.len().saturating_sub(1);
    Ok(file.read_at(&mut last, at)? == 1 && last == *b"\n")
}

fn numbered(dir: &Path, number: u32) -> PathBuf {
    if number == 0 { dir.join(NAME) } else { dir.join(format!("{NAME}.{number}")) }
}

/// A piece of what a workload wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// When.
    pub time: Timestamp,
    /// Where.
    pub stream: Stream,
    /// Whether its line ends with it.
    pub whole: bool,
    /// The bytes, without the end of the line.
    pub bytes: Vec<u8>,
}

impl Piece {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let whole = match fields.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, whole, bytes: fields.next()?.to_vec() })
    }
}

/// The reading end, from the oldest piece that is kept; other processes may read and the writer may
/// write meanwhile.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    file: Option<BufReader<File>>,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
}

impl Reader {
    /// Reads the log of `dir`, from its oldest file on.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut oldest = None;
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| match name.strip_prefix(NAME)? {
                "" => Some(0),
                number => number.strip_prefix('.')?.parse::<u32>().ok(),
            });
            oldest = oldest.max(number);
        }
        let file = match oldest.map(|number| File::open(numbered(dir, number))) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            file => file.and_then(Result::ok),
        };
        Ok(Self { dir: dir.to_owned(), file: file.map(BufReader::new), begun: Vec::new() })
    }

    /// The next piece; `None` when there is none yet, and another call may find one.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn read(&mut self) -> io::Result<Option<Piece>> {
        loop {
            let Some(file) = &mut self.file else {
                match File::open(numbered(&self.dir, 0)) {
                    Ok(file) => self.file = Some(BufReader::new(file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                }
                continue;
            };
            let room = LINE.saturating_sub(self.begun.len() as u64).max(1);
            let read = file.by_ref().take(room).read_until(b'\n', &mut self.begun)?;
            if self.begun.last() == Some(&b'\n') {
                self.begun.pop();
                let piece = Piece::parse(&self.begun);
                self.begun.clear();
                match piece {
                    Some(piece) => return Ok(Some(piece)),
                    None => continue,
                }
            }
            if read > 0 && self.begun.len() as u64 >= LINE {
                // No line of ours: its end will be none either.
                self.begun.clear();
                continue;
            }
            if read == 0 && !self.turn()? {
                return Ok(None);
            }
        }
    }

    /// At the end of a file: goes on with the next newer one, if there is one.
    fn turn(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let here = file.get_ref().metadata()?;
        let mut newer = None;
        for number in 0.. {
            match fs::metadata(numbered(&self.dir, number)) {
                Ok(found) if (found.dev(), found.ino()) == (here.dev(), here.ino()) => break,
                Ok(_) => newer = Some(number),
                Err(error) if error.kind() == io::ErrorKind::NotFound && number > 0 => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let Some(newer) = newer else { return Ok(false) };
        // The writer moved on after our last read: what it wrote in between comes first.
        if here.len() > self.position()? {
            return Ok(true);
        }
        self.file = match File::open(numbered(&self.dir, newer)) {
            // It was moved just now: the next call looks again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => Some(BufReader::new(file?)),
        };
        self.begun.clear();
        Ok(true)
    }

    fn position(&mut self) -> io::Result<u64> {
        match &mut self.file {
            Some(file) => io::Seek::stream_position(file),
            None => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDE: Rotation = Rotation { size: 1 << 20, files: 3 };

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn all(reader: &mut Reader) -> Vec<Piece> {
        std::iter::from_fn(|| reader.read().unwrap()).collect()
    }

    fn text(pieces: &[Piece], stream: Stream) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.stream == stream) {
            text.extend_from_slice(&piece.bytes);
            if piece.whole {
                text.push(b'\n');
            }
        }
        text
    }

    #[test]
    fn a_line_is_as_kubernetes_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), WIDE).unwrap();
        writer.write(Stream::Stdout, b"a\nprompt: ", time(1)).unwrap();
        writer.write(Stream::Stderr, b"\n", time(2)).unwrap();
        let kept = fs::read_to_string(dir.path().join("log")).unwrap();
        let lines: Vec<_> = kept.split_inclusive('\n').collect();
        assert_eq!(lines[0], "1970-01-01T00:00:01.000000000Z stdout F a\n");
        assert_eq!(lines[1], "1970-01-01T00:00:01.000000000Z stdout P prompt: \n");
        assert_eq!(lines[2], "1970-01-01T00:00:02.000000000Z stderr F \n");
    }

    #[test]
    fn a_cut_line_is_passed_over_and_swallows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let whole = "1970-01-01T00:00:01.000000000Z stdout F a\n";
        fs::write(dir.path().join("log"), format!("{whole}1970-01-01T00:0")).unwrap();
        let mut writer = Writer::open(dir.path(), WIDE).unwrap();
        writer.write(Stream::Stdout, b"b\n", time(3)).unwrap();
        fs::write(dir.path().join("log.x"), "not ours").unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        assert_eq!(text(&all(&mut reader), Stream::Stdout), b"a\nb\n");
    }

    #[test]
    fn a_file_without_lines_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), vec![b'x'; 1 << 20]).unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        assert_eq!(all(&mut reader), []);
        assert!(reader.begun.capacity() < 1 << 16);
    }

    #[test]
    fn a_follower_loses_nothing_where_files_are_turned_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), Rotation { size: 200, files: 2 }).unwrap();
        let mut reader = Reader::open(dir.path()).unwrap();
        let mut seen = Vec::new();
        for number in 0..50 {
            writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), time(number)).unwrap();
            seen.extend(all(&mut reader));
        }
        let expected: String = (0..50).map(|number| format!("{number}\n")).collect();
        assert_eq!(text(&seen, Stream::Stdout), expected.as_bytes());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    proptest! {
        // Each writes thousands of lines.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_written_is_read(
            writes in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300)),
                0..20,
            ),
            long in 0usize..3 * PIECE,
            size in 100u64..4000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), Rotation { size, files: 1000 }).unwrap();
            let mut expected = [Vec::new(), Vec::new()];
            let long = vec![b'l'; long];
            let writes = writes.iter().map(|(err, bytes)| (*err, bytes));
            for (err, bytes) in writes.chain([(false, &long)]) {
                let stream = if err { Stream::Stderr } else { Stream::Stdout };
                writer.write(stream, bytes, time(7)).unwrap();
                expected[usize::from(err)].extend_from_slice(bytes);
            }
            let pieces = all(&mut Reader::open(dir.path()).unwrap());
            prop_assert!(pieces.iter().all(|piece| piece.bytes.len() <= PIECE));
            prop_assert_eq!(text(&pieces, Stream::Stdout), &*expected[0]);
            prop_assert_eq!(text(&pieces, Stream::Stderr), &*expected[1]);
        }
    }
}
