//! Writes an initramfs: the "newc" cpio format (kernel: Documentation/driver-api/early-userspace/
//! buffer-format.rst): a header of 6 magic and 13 times 8 hexadecimal digits, the name with its
//! NUL, the data; header with name, and data, each padded to 4 bytes.

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

/// An archive being written, in memory.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// A file, readable and executable by all.
    pub(crate) fn file(&mut self, path: &str, data: &[u8]) -> Result<()> {
        self.entry(path, FILE, data)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, SYMLINK, target.as_bytes())
    }

    /// The whole archive, with its trailer.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let size = u32::try_from(data.len()).context("a file of 4 GiB or more")?;
        let name = u32::try_from(path.len() + 1).context("a name of 4 GiB or more")?;
        self.entries += 1;
        // inode, mode, uid, gid, links, mtime, size, device (2), device node (2), name, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_back_what_was_written() {
        let mut archive = Archive::default();
        archive.directory("bin").unwrap();
        archive.file("bin/odd", b"12345").unwrap();
        archive.symlink("bin/link", "odd").unwrap();
        let bytes = archive.finish().unwrap();
        let room = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["-id", "--quiet"])
            .current_dir(room.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(std::fs::read(room.path().join("bin/link")).unwrap(), b"12345");
    }
}
