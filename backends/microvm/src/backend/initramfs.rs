//! The guest's first files, as a cpio archive in memory: PID 1, the modules that its kernel needs,
//! and the console.
//!
//! The format is "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst): a
//! header of 6 + 13 x 8 hexadecimal digits, the name with its NUL, the data; name and data each
//! padded to a multiple of 4.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::boot::Piece;

/// File type and permissions of a directory.
const DIRECTORY: u32 = libc::S_IFDIR | 0o755;
/// Of a program.
const PROGRAM: u32 = libc::S_IFREG | 0o755;
/// Of a file.
const FILE: u32 = libc::S_IFREG | 0o644;
/// Of the console's node.
const CONSOLE: u32 = libc::S_IFCHR | 0o600;
/// The console's device number, 5:1 (Linux Documentation/admin-guide/devices.txt).
const CONSOLE_DEVICE: (u32, u32) = (5, 1);

/// Why the archive could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitramfsError {
    /// A module can't be read.
    #[error("can't read kernel module {}", .path.display())]
    Module {
        /// The module's file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A module's file has no name that the list can carry.
    #[error("kernel module {} has no usable name", .path.display())]
    Name {
        /// The module's file.
        path: PathBuf,
    },
    /// Something is larger than the format can say.
    #[error("{name} is too large for an initramfs")]
    TooLarge {
        /// The entry.
        name: String,
    },
}

/// The archive, in pieces that lie back to back, with `guest` as `/init` and these modules, to be loaded in this order.
///
/// # Errors
/// When a module can't be read.
pub(super) fn build(
    guest: &'static [u8],
    modules: &[PathBuf],
) -> Result<Vec<Piece>, InitramfsError> {
    let mut archive = Archive::default();
    archive.directory("dev")?;
    archive.entry("dev/console", CONSOLE, CONSOLE_DEVICE, &[])?;
    archive.program("init", guest)?;
    if !modules.is_empty() {
        archive.directory("modules")?;
        let mut order = String::new();
        for (index, path) in modules.iter().enumerate() {
            // Two directories may each have a module of this name: the number keeps them apart.
            let name = format!("{index:03}-{}", module_name(path)?);
            let bytes = fs::read(path)
                .map_err(|source| InitramfsError::Module { path: path.clone(), source })?;
            archive.entry(&format!("modules/{name}"), FILE, (0, 0), &bytes)?;
            order.push_str(&name);
            order.push('\n');
        }
        archive.entry("modules/order", FILE, (0, 0), order.as_bytes())?;
    }
    archive.finish()
}

fn module_name(path: &Path) -> Result<&str, InitramfsError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.filter(|name| !name.contains('\n'))
        .ok_or_else(|| InitramfsError::Name { path: path.to_owned() })
}

#[derive(Debug, Default)]
struct Archive {
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) -> Result<(), InitramfsError> {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
        data: &[u8],
    ) -> Result<(), InitramfsError> {
        self.header(name, mode, (major, minor), data.len())?;
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    /// This program's own bytes are not copied before they go into the guest's memory, at a multiple
    /// of 4 like every piece.
    fn program(&mut self, name: &str, program: &'static [u8]) -> Result<(), InitramfsError> {
        self.header(name, PROGRAM, (0, 0), program.len())?;
        self.pieces.push(Piece::Bytes(std::mem::take(&mut self.bytes)));
        self.pieces.push(Piece::Program(program));
        Ok(())
    }

    fn header(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
        size: usize,
    ) -> Result<(), InitramfsError> {
        let too_large = || InitramfsError::TooLarge { name: name.to_owned() };
        let size = u32::try_from(size).map_err(|_| too_large())?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| too_large())?;
        self.entries += 1;
        let (inode, owner, links, time, device, check) = (self.entries, 0, 1, 0, 0, 0);
        let fields = [
            inode, mode, owner, owner, links, time, size, device, device, major, minor, name_size,
            check,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            // Writing to a Vec can't fail.
            let _ = write!(self.bytes, "{field:08x}");
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Piece>, InitramfsError> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.pieces.push(Piece::Bytes(self.bytes));
        Ok(self.pieces)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_was_built() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("fuse.ko");
        fs::write(&module, b"module").unwrap();
        let archive = joined(&build(b"guest binar", &[module]).unwrap());
        assert_eq!(archive.len() % 4, 0);
        let names = names(&archive);
        let expected = [
            ("dev", 0),
            ("dev/console", 0),
            ("init", 11),
            ("modules", 0),
            ("modules/000-fuse.ko", 6),
            ("modules/order", 12),
            ("TRAILER!!!", 0),
        ];
        assert_eq!(names, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = build(b"", &["/nonexistent/a.ko".into()]).unwrap_err();
        assert_eq!(error.to_string(), "can't read kernel module /nonexistent/a.ko");
    }

    /// As the guest finds it in its memory.
    fn joined(pieces: &[Piece]) -> Vec<u8> {
        let mut archive = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => archive.extend(bytes),
                Piece::Program(bytes) => archive.extend(*bytes),
                Piece::File(_) => panic!("files are read by the caller"),
            }
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
        archive
    }

    /// Walks an archive as Linux does: name and size of each entry.
    fn names(mut archive: &[u8]) -> Vec<(String, usize)> {
        let mut names = Vec::new();
        while !archive.is_empty() {
            assert_eq!(&archive[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&archive[6 + 8 * index..14 + 8 * index]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
            let data = (110 + name_size).next_multiple_of(4);
            archive = &archive[(data + size).next_multiple_of(4)..];
            names.push((name, size));
        }
        names
    }
}
