//! Files of /proc (proc(5)).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than most of them hold, in bytes.
const USUAL: usize = 8 << 10;

/// Reads one whole. They tell no size, for which the standard library reads them in many small
/// pieces, and the kernel writes some anew for each.
///
/// # Errors
/// When it can't be read or is no text.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(USUAL);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// As [`read`], where a name in it may be no text.
///
/// # Errors
/// When it can't be read.
pub fn read_bytes(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
