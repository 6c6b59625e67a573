//! The files of a group's directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;

/// More than the files that are read again and again hold, in bytes.
const SMALL: usize = 1 << 10;

impl Error {
    /// Whether a file is not there: the kernel does not have it, or the group is gone.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound
            || source.raw_os_error() == Some(libc::ENODEV))
    }
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// As [`read`], of a small file that is open; it may be read again.
pub(super) fn read_open(file: &File, path: &Path) -> Result<String, Error> {
    let mut text = [0; SMALL];
    let read = file.read_at(&mut text, 0).map(|length| {
        let text = text.get(..length).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    });
    read.map_err(|source| Error::File { action: "read", path: path.to_owned(), source })
}

/// Writes a value to an existing file.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Error> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| Error::File { action: "write", path: path.to_owned(), source })
}

/// The value of `key` in lines of `key value`.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Makes a directory, and its parent where that is missing.
pub(super) fn make(dir: &Path) -> Result<(), Error> {
    let made = match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir),
        made => made,
    };
    match made {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Directory { action: "make", path: dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Removes a group's directory, waiting so long for its last processes to be gone.
pub(super) fn remove(dir: &Path, until: Instant) -> Result<(), Error> {
    let mut pause = Duration::from_micros(200);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(source) => {
                return Err(Error::Directory { action: "remove", path: dir.to_owned(), source });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_key_is_matched_whole() {
        let text = "oom 7\noom_kill 3\noom_kill_disable 0\n";
        assert_eq!(value(text, "oom_kill"), Some(3));
        assert_eq!(value(text, "oom"), Some(7));
        assert_eq!(value(text, "kill"), None);
    }
}
