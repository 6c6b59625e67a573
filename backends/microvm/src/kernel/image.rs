//! Recognises kernel files, and takes the ELF image out of a bzImage.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use object::Endianness;
use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use super::Error;
use super::decompress::decompress;
use crate::boot::{Discovery, KernelFormat};

/// The most that a kernel may have, packed or unpacked, in bytes.
const LIMIT: usize = 512 << 20;

/// The release of a bzImage whose kernel can't be taken out, and whose header has none.
pub(super) const NO_RELEASE: &str = "unknown";

const CUT_SHORT: &str = "it is cut short";

/// Parameters of kernels that have ACPI, and of those that can be told of devices (Linux
/// Documentation/admin-guide/kernel-parameters.txt).
pub(super) const ACPI_NAME: &[u8] = b"acpi_rsdp";
pub(super) const CMDLINE_NAME: &[u8] = b"virtio_mmio.device";

/// A kernel, ready to go into a bundle.
pub(super) struct Image {
    pub(super) format: KernelFormat,
    pub(super) bytes: Vec<u8>,
    /// As `uname -r` says it.
    pub(super) release: String,
}

impl Image {
    /// How it finds its devices, by the names of parameters in it. What can't be looked into is
    /// taken for a distribution's.
    pub(super) fn discovery(&self) -> Discovery {
        let has = |name: &[u8]| memchr::memmem::find(&self.bytes, name).is_some();
        if !has(ACPI_NAME) && has(CMDLINE_NAME) { Discovery::Cmdline } else { Discovery::Acpi }
    }
}

/// Reads the kernel in `path`: an ELF image as it is, a bzImage as the ELF image in it, or as it
/// is where that can't be taken out.
pub(super) fn read(path: &Path) -> Result<Image, Error> {
    let bytes = read_limited(path, LIMIT)?;
    parse(bytes, LIMIT).map_err(|why| Error::NotAKernel { path: path.to_owned(), why })
}

/// The kernel in a file's bytes, unpacked to `limit` bytes at most.
pub(super) fn parse(bytes: Vec<u8>, limit: usize) -> Result<Image, &'static str> {
    if bytes.starts_with(&object::elf::ELFMAG) {
        let release = check_elf(&bytes)?;
        return Ok(Image { format: KernelFormat::Elf, bytes, release });
    }
    let setup = Setup::parse(&bytes)?;
    let payload = setup.payload(&bytes).ok_or(CUT_SHORT)?;
    let image = match decompress(payload, limit) {
        Ok(elf) => check_elf(&elf).ok().map(|release| (elf, release)),
        Err(_) => None,
    };
    Ok(match image {
        Some((bytes, release)) => Image { format: KernelFormat::Elf, bytes, release },
        None => {
            let release = setup.release(&bytes).unwrap_or_else(|| NO_RELEASE.to_owned());
            Image { format: KernelFormat::BzImage, bytes, release }
        }
    })
}

/// A regular file's contents; anything larger than `limit` bytes, or not a regular file, is an
/// error, found out without waiting for a pipe's other end.
pub(super) fn read_limited(path: &Path, limit: usize) -> Result<Vec<u8>, Error> {
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(Error::io("read", path))?;
    let meta = file.metadata().map_err(Error::io("read", path))?;
    if !meta.is_file() {
        let why = "it is not a regular file";
        return Err(Error::NotAKernel { path: path.to_owned(), why });
    }
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let too_large = || Error::TooLarge { path: path.to_owned(), limit };
    if meta.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    let read = read.map_err(Error::io("read", path))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit { Err(too_large()) } else { Ok(bytes) }
}

/// Checks that this is a whole 64-bit x86 Linux, and gives its release.
fn check_elf(bytes: &[u8]) -> Result<String, &'static str> {
    check_segments(bytes, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    banner_release(bytes).ok_or("it is an ELF image, but not of Linux")
}

/// Checks that this is the beginning of a 64-bit x86 image of `size` bytes that is whole, and gives
/// its header.
pub(super) fn check_segments(
    head: &[u8],
    size: u64,
) -> Result<&FileHeader64<Endianness>, &'static str> {
    const BROKEN: &str = "its ELF header is broken";
    let header = FileHeader64::<Endianness>::parse(head).map_err(|_| "it is not a 64-bit ELF")?;
    let endian = header.endian().map_err(|_| BROKEN)?;
    if endian != Endianness::Little || header.e_machine(endian) != EM_X86_64 {
        return Err("it is not for x86-64");
    }
    if ![ET_EXEC, ET_DYN].contains(&header.e_type(endian)) {
        return Err("it is an ELF object, not an image");
    }
    let segments = header.program_headers(endian, head).map_err(|_| BROKEN)?;
    let mut loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD).peekable();
    if loaded.peek().is_none() {
        return Err("nothing in it is to be loaded");
    }
    let ends = |segment: &ProgramHeader64<_>| {
        let (offset, length) = segment.file_range(endian);
        offset.checked_add(length)
    };
    if loaded.any(|segment| ends(segment).is_none_or(|end| end > size)) {
        return Err(CUT_SHORT);
    }
    Ok(header)
}

/// The release in "Linux version RELEASE (", which every kernel has in its data.
fn banner_release(bytes: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = bytes;
    loop {
        let at = memchr::memmem::find(rest, BANNER)?;
        rest = rest.get(at + BANNER.len()..)?;
        // Among format strings that begin the same: "Linux version %s".
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return word(rest);
        }
    }
}

/// The printable characters up to the first blank or NUL.
fn word(bytes: &[u8]) -> Option<String> {
    const LONGEST: usize = 64;
    let end = bytes.iter().take(LONGEST).position(|byte| !byte.is_ascii_graphic())?;
    String::from_utf8(bytes.get(..end)?.to_vec()).ok().filter(|word| !word.is_empty())
}

/// The setup header of a bzImage (Linux Documentation/arch/x86/boot.rst).
pub(super) struct Setup {
    /// Where the protected-mode code begins in the file.
    code: usize,
    payload_offset: usize,
    payload_length: usize,
    release_offset: usize,
}

impl Setup {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        const NEITHER: &str = "it is neither an ELF image nor a bzImage";
        if bytes.get(0x1fe..0x200) != Some(&[0x55, 0xaa])
            || bytes.get(0x202..0x206) != Some(b"HdrS")
        {
            return Err(NEITHER);
        }
        let version = u16_at(bytes, 0x206).ok_or(NEITHER)?;
        let xloadflags = u16_at(bytes, 0x236).ok_or(NEITHER)?;
        // Protocol 2.12 has xloadflags, of which bit 0 is the 64-bit entry point.
        if version < 0x20c || xloadflags & 1 == 0 {
            return Err("it is a bzImage without a 64-bit entry point");
        }
        // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
        let sectors = match bytes.get(0x1f1) {
            Some(0) | None => 4,
            Some(&sectors) => usize::from(sectors),
        };
        Ok(Self {
            code: (sectors + 1) * 512,
            payload_offset: size_at(bytes, 0x248).ok_or(NEITHER)?,
            payload_length: size_at(bytes, 0x24c).ok_or(NEITHER)?,
            release_offset: usize::from(u16_at(bytes, 0x20e).ok_or(NEITHER)?),
        })
    }

    /// The compressed kernel.
    fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.code.checked_add(self.payload_offset)?;
        bytes.get(start..start.checked_add(self.payload_length)?)
    }

    /// "If set to a nonzero value, contains a pointer to a NUL-terminated human-readable kernel
    /// version number string, less 0x200."
    fn release(&self, bytes: &[u8]) -> Option<String> {
        if self.release_offset == 0 {
            return None;
        }
        word(bytes.get(self.release_offset + 0x200..)?)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::decompress::tests::lz4_legacy;
    use super::*;

    /// The smallest ELF that counts as a kernel: one segment, which is the whole file.
    pub(in super::super) fn tiny_elf() -> Vec<u8> {
        let text = b"Linux version %s\0Linux version 6.1.0-tiny (gcc)\0";
        let size = u64::try_from(64 + 56 + text.len()).unwrap();
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend(2u16.to_le_bytes()); // e_type: ET_EXEC
        elf.extend(62u16.to_le_bytes()); // e_machine: EM_X86_64
        elf.extend(1u32.to_le_bytes());
        for field in [0x100_0000u64, 64, 0] {
            elf.extend(field.to_le_bytes()); // e_entry, e_phoff, e_shoff
        }
        elf.extend(0u32.to_le_bytes());
        for field in [64u16, 56, 1, 64, 0, 0] {
            elf.extend(field.to_le_bytes()); // sizes and numbers of headers
        }
        elf.extend(1u32.to_le_bytes()); // p_type: PT_LOAD
        elf.extend(5u32.to_le_bytes());
        for field in [0, 0x100_0000, 0x100_0000, size, size, 0x1000] {
            elf.extend(field.to_le_bytes()); // offset, addresses, sizes, alignment
        }
        elf.extend(text);
        elf
    }

    /// A bzImage around `payload`.
    pub(in super::super) fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        image[0x236] = 1;
        image[0x248..0x24c].copy_from_slice(&8u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image[0x300..0x30b].copy_from_slice(b"6.1.0-setup");
        image.extend([0; 8]);
        image.extend(payload);
        image.extend([0xcc; 100]);
        image
    }

    fn on_disk(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("file");
        fs::write(&path, bytes).unwrap();
        (room, path)
    }

    fn why_not(bytes: &[u8]) -> &'static str {
        let (_room, path) = on_disk(bytes);
        match read(&path) {
            Err(Error::NotAKernel { why, .. }) => why,
            Err(other) => panic!("{other}"),
            Ok(image) => panic!("taken as {:?}", image.format),
        }
    }

    #[test]
    fn an_elf_stays_as_it_is() {
        let (_room, path) = on_disk(&tiny_elf());
        let image = read(&path).unwrap();
        assert_eq!((image.format, image.release.as_str()), (KernelFormat::Elf, "6.1.0-tiny"));
        assert_eq!(image.bytes, tiny_elf());
    }

    #[test]
    fn a_bzimage_gives_its_elf() {
        let (_room, path) = on_disk(&bzimage(&lz4_legacy(&tiny_elf())));
        let image = read(&path).unwrap();
        assert_eq!((image.format, image.release.as_str()), (KernelFormat::Elf, "6.1.0-tiny"));
        assert_eq!(image.bytes, tiny_elf());
    }

    #[test]
    fn how_devices_are_found_is_seen_in_the_code() {
        let image = |text: &[u8]| {
            let bytes = [tiny_elf().as_slice(), text].concat();
            Image { format: KernelFormat::Elf, bytes, release: String::new() }
        };
        assert_eq!(image(b"").discovery(), Discovery::Acpi);
        assert_eq!(image(b"virtio_mmio.device\0").discovery(), Discovery::Cmdline);
        assert_eq!(image(b"virtio_mmio.device\0acpi_rsdp\0").discovery(), Discovery::Acpi);
    }

    #[test]
    fn a_bzimage_of_unknown_compression_stays_as_it_is() {
        for payload in [b"whatever".to_vec(), lz4_legacy(b"not an ELF")] {
            let file = bzimage(&payload);
            let (_room, path) = on_disk(&file);
            let image = read(&path).unwrap();
            let told = (image.format, image.release.as_str());
            assert_eq!(told, (KernelFormat::BzImage, "6.1.0-setup"));
            assert_eq!(image.bytes, file);
        }
    }

    #[test]
    fn a_bzimage_without_all_of_its_payload_is_refused() {
        let mut file = bzimage(&lz4_legacy(&tiny_elf()));
        assert_eq!(why_not(&file[..file.len() - 200]), "it is cut short");
        file[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(why_not(&file), "it is cut short");
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_the_reason() {
        assert_eq!(why_not(b""), "it is neither an ELF image nor a bzImage");
        assert_eq!(why_not(b"#!/bin/sh\n"), "it is neither an ELF image nor a bzImage");
        assert_eq!(why_not(&[0; 4096]), "it is neither an ELF image nor a bzImage");
        assert_eq!(why_not(b"\x7fELF"), "it is not a 64-bit ELF");
        let elf = tiny_elf();
        assert_eq!(why_not(&elf[..elf.len() - 10]), "it is cut short");
        let mut other = elf.clone();
        other[18] = 0xb7; // EM_AARCH64
        assert_eq!(why_not(&other), "it is not for x86-64");
        let mut program = elf.clone();
        let name = program.len() - 30..;
        program[name].fill(0);
        assert_eq!(why_not(&program), "it is an ELF image, but not of Linux");
        let mut old = bzimage(b"");
        old[0x236] = 0;
        assert_eq!(why_not(&old), "it is a bzImage without a 64-bit entry point");
        let own = fs::read("/proc/self/exe").unwrap();
        let (_room, path) = on_disk(&own[..own.len().min(1 << 20)]);
        assert!(read(&path).is_err());
    }

    #[test]
    fn only_regular_files_are_read() {
        for path in ["/", "/dev/zero", "/nowhere"] {
            assert!(read(Path::new(path)).is_err(), "{path}");
        }
    }
}
