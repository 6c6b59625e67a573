//! `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::procfs;

/// One mount of the caller's mount namespace, as far as its root sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// Where.
    pub(crate) at: PathBuf,
    /// The filesystem's type.
    pub(crate) kind: String,
    /// The filesystem's own options.
    pub(crate) options: String,
    /// Whether it is shared with others or follows one (mount_namespaces(7)).
    pub(crate) follows: bool,
}

/// All of them, in the order in which they were mounted.
///
/// # Errors
/// When /proc can't be read.
pub(crate) fn read() -> io::Result<Vec<MountPoint>> {
    Ok(parse_all(&procfs::read_bytes("/proc/self/mountinfo")?))
}

/// Where anything is mounted.
///
/// # Errors
/// When /proc can't be read.
pub fn points() -> io::Result<Vec<PathBuf>> {
    Ok(read()?.into_iter().map(|mount| mount.at).collect())
}

/// Whether what is mounted elsewhere reaches an absolute path without symlinks.
///
/// # Errors
/// When /proc can't be read.
pub(crate) fn is_followed(path: &Path) -> io::Result<bool> {
    Ok(follows(&read()?, path))
}

fn follows(mounts: &[MountPoint], path: &Path) -> bool {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.at));
    // Of two at one place the later covers the earlier.
    let innermost = around.max_by_key(|mount| mount.at.as_os_str().len());
    innermost.is_some_and(|mount| mount.follows)
}

pub(crate) fn parse_all(text: &[u8]) -> Vec<MountPoint> {
    text.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// `36 35 98:0 /root /at options [optional...] - type source super-options`
fn parse(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = unescape(fields.nth(4)?);
    let optional = fields.by_ref().skip(1).take_while(|field| *field != b"-");
    let peers =
        optional.filter(|field| field.starts_with(b"shared:") || field.starts_with(b"master:"));
    let follows = peers.count() > 0;
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let options = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    Some(MountPoint { at: PathBuf::from(OsString::from_vec(at)), kind, options, follows })
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_escapes_and_optional_fields() {
        let line = br"36 35 98:0 /r /mnt/a\040b rw,noatime master:1 shared:2 - ext4 /dev/vda rw,x";
        let mount = parse(line).unwrap();
        assert_eq!(mount.at, PathBuf::from("/mnt/a b"));
        assert_eq!((mount.kind.as_str(), mount.options.as_str()), ("ext4", "rw,x"));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 / /mnt rw"), None);
    }

    #[test]
    fn escapes_are_undone() {
        let unescaped = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
        assert_eq!(unescaped(br"/a\040b\134c"), Path::new("/a b\\c"));
        assert_eq!(unescaped(br"/a\04"), Path::new(r"/a\04"));
        assert_eq!(unescaped(br"\"), Path::new("\\"));
    }

    #[test]
    fn what_reaches_a_path_is_told_by_the_innermost_mount_it_is_on() {
        let text = b"1 0 0:1 / / rw shared:1 - ext4 a rw\n\
            2 1 0:2 / /private rw - ext4 b rw\n\
            3 1 0:3 / /a\\040b rw,x master:7 - ext4 c rw\n\
            4 2 0:4 / /private/again rw shared:9 master:2 - ext4 d rw\n\
            5 1 0:5 / /over rw shared:3 - ext4 e rw\n\
            6 5 0:6 / /over rw unbindable - ext4 f rw\n";
        for (path, expected) in [
            ("/", true),
            ("/home/x", true),
            ("/private", false),
            ("/private/x", false),
            ("/privateer", true),
            ("/private/again/x", true),
            ("/a b", true),
            ("/over/x", false),
        ] {
            assert_eq!(follows(&parse_all(text), Path::new(path)), expected, "{path}");
        }
        assert!(!follows(&parse_all(b""), Path::new("/")));
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(read().unwrap().iter().any(|mount| mount.at.parent().is_none()));
    }
}
