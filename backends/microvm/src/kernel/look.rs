//! Looks at a kernel file that is to be booted just as it is, reading as little of it as will do.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use memchr::memmem::Finder;
use nix::fcntl::OFlag;
use object::Endianness;
use object::elf::{FileHeader64, SHT_NOBITS, SectionHeader64};
use object::pod::slice_from_bytes;

use super::Error;
use super::image::{ACPI_NAME, CMDLINE_NAME, Setup, check_segments};
use crate::boot::{Discovery, KernelFormat};

/// As much of a kernel file as tells what it is: a bzImage's setup header lies in the second
/// sector, an ELF image's program headers behind its own.
const HEAD: u64 = 4096;

/// Where Linux has the names of early parameters, and those of modules' parameters (Linux
/// include/asm-generic/vmlinux.lds.h, INIT_SETUP and RO_DATA).
const EARLY_NAMES: &[u8] = b".init.data";
const MODULES_NAMES: &[u8] = b".rodata";

/// The most that is read of the table of sections and of their names, in bytes.
const TABLE_MAX: u64 = 64 << 10;

/// The most that is searched of a file, in bytes.
const SEARCH_MAX: u64 = 512 << 20;

/// So much is searched at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// What a kernel file is, as far as a machine must know to boot it just as it is.
#[derive(Debug)]
pub struct Looked {
    /// The file, open for reading.
    pub file: File,
    /// How it is laid out.
    pub format: KernelFormat,
    /// How it finds its devices.
    pub discovery: Discovery,
}

/// Looks at a kernel that is to be booted as it is. Without a `discovery` some sections of an ELF
/// image are searched for it; a bzImage is taken for a distribution's, which has ACPI: to look into
/// it would be to unpack it.
///
/// # Errors
/// When the file can't be read, begins as no kernel does, or is cut short.
pub fn look(path: &Path, discovery: Option<Discovery>) -> Result<Looked, Error> {
    let not_a_kernel = |why| Error::NotAKernel { path: path.to_owned(), why };
    let mut options = File::options();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(Error::io("read", path))?;
    let meta = file.metadata().map_err(Error::io("read", path))?;
    if !meta.is_file() {
        return Err(not_a_kernel("it is not a regular file"));
    }
    let mut head = Vec::new();
    (&file).take(HEAD).read_to_end(&mut head).map_err(Error::io("read", path))?;
    if !head.starts_with(&object::elf::ELFMAG) {
        Setup::parse(&head).map_err(not_a_kernel)?;
        let discovery = discovery.unwrap_or(Discovery::Acpi);
        return Ok(Looked { file, format: KernelFormat::BzImage, discovery });
    }
    let header = check_segments(&head, meta.len()).map_err(not_a_kernel)?;
    let discovery = match discovery {
        Some(discovery) => discovery,
        None => search(&file, header).map_err(Error::io("read", path))?,
    };
    Ok(Looked { file, format: KernelFormat::Elf, discovery })
}

/// How an ELF image finds its devices, as [`Image::discovery`](super::image::Image::discovery) says
/// it, but looking only where the names are.
fn search(file: &File, header: &FileHeader64<Endianness>) -> io::Result<Discovery> {
    let sections = Sections::read(file, header)?;
    let has = |section, name| sections.part(section).contains(file, name);
    if !has(EARLY_NAMES, ACPI_NAME)? && has(MODULES_NAMES, CMDLINE_NAME)? {
        Ok(Discovery::Cmdline)
    } else {
        Ok(Discovery::Acpi)
    }
}

/// The table of sections; empty where an image has none.
struct Sections {
    table: Vec<u8>,
    names: Vec<u8>,
}

impl Sections {
    fn read(file: &File, header: &FileHeader64<Endianness>) -> io::Result<Self> {
        const SIZE: u64 = size_of::<SectionHeader64<Endianness>>() as u64;
        let little = Endianness::Little;
        let count = u64::from(header.e_shnum.get(little));
        let table = Part { start: header.e_shoff.get(little), size: count * SIZE };
        let mut sections = Self { table: table.bytes(file)?, names: Vec::new() };
        let names = usize::from(header.e_shstrndx.get(little).0);
        if let Some(names) = sections.headers().get(names).map(Part::of) {
            sections.names = names.bytes(file)?;
        }
        Ok(sections)
    }

    fn headers(&self) -> &[SectionHeader64<Endianness>] {
        let count = self.table.len() / size_of::<SectionHeader64<Endianness>>();
        slice_from_bytes(&self.table, count).map_or(&[], |(headers, _)| headers)
    }

    /// Where this section is; the whole file where there is no such section.
    fn part(&self, name: &[u8]) -> Part {
        let is_it = |header: &&SectionHeader64<Endianness>| {
            let at = usize::try_from(header.sh_name.get(Endianness::Little)).unwrap_or(usize::MAX);
            let found = self.names.get(at..).and_then(|names| names.strip_prefix(name));
            found.is_some_and(|rest| rest.first() == Some(&0))
                && header.sh_type.get(Endianness::Little) != SHT_NOBITS
        };
        let whole = Part { start: 0, size: SEARCH_MAX };
        self.headers().iter().find(is_it).map_or(whole, Part::of)
    }
}

/// A part of a file, as the file itself says it: it may lie beyond its end.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u64,
    size: u64,
}

impl Part {
    fn of(header: &SectionHeader64<Endianness>) -> Self {
        let little = Endianness::Little;
        Self { start: header.sh_offset.get(little), size: header.sh_size.get(little) }
    }

    /// What of it is there, [`TABLE_MAX`] at most.
    fn bytes(self, file: &File) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.size.min(TABLE_MAX)).unwrap_or_default();
        let mut bytes = vec![0; size];
        let read = fill(file, &mut bytes, self.start)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn contains(self, file: &File, name: &[u8]) -> io::Result<bool> {
        let finder = Finder::new(name);
        let end = self.start.saturating_add(self.size.min(SEARCH_MAX));
        let mut at = self.start;
        let mut chunk = vec![0; CHUNK];
        // Chunks overlap, so that a name is whole in one of them.
        let step = u64::try_from(CHUNK - name.len()).unwrap_or_default();
        while at < end {
            let read = fill(file, &mut chunk, at)?;
            let rest = usize::try_from(end - at).unwrap_or(usize::MAX);
            if finder.find(chunk.get(..read.min(rest)).unwrap_or_default()).is_some() {
                return Ok(true);
            }
            if read < CHUNK {
                break;
            }
            at = at.saturating_add(step);
        }
        Ok(false)
    }
}

/// Reads until `bytes` are full or the file ends. Offsets that no file has are its end.
fn fill(file: &File, bytes: &mut [u8], start: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = start.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        if i64::try_from(at).is_err() {
            break;
        }
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::image::tests::{bzimage, tiny_elf};
    use super::*;

    /// An image with these sections, the names of which are their own section.
    fn with_sections(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut elf = tiny_elf();
        let mut names = b"\0".to_vec();
        let mut headers = vec![[0u64; 4]];
        for (name, content) in sections {
            let place = [names.len(), 1, elf.len(), content.len()];
            headers.push(place.map(|value| value.try_into().unwrap()));
            elf.extend(*content);
            names.extend(name.as_bytes());
            names.push(0);
        }
        headers.push([0, 3, elf.len(), names.len()].map(|value| value.try_into().unwrap()));
        elf.extend(&names);
        let table = u64::try_from(elf.len()).unwrap();
        elf[40..48].copy_from_slice(&table.to_le_bytes());
        let count = u16::try_from(headers.len()).unwrap();
        elf[60..62].copy_from_slice(&count.to_le_bytes());
        elf[62..64].copy_from_slice(&(count - 1).to_le_bytes());
        for [name, kind, offset, size] in headers {
            elf.extend(u32::try_from(name).unwrap().to_le_bytes());
            elf.extend(u32::try_from(kind).unwrap().to_le_bytes());
            for field in [0, 0, offset, size, 0, 0, 0] {
                elf.extend(field.to_le_bytes());
            }
        }
        elf
    }

    fn looked(bytes: &[u8], known: Option<Discovery>) -> Result<Looked, Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        look(file.path(), known)
    }

    fn found(bytes: &[u8]) -> Discovery {
        looked(bytes, None).unwrap().discovery
    }

    #[test]
    fn names_are_looked_for_where_linux_has_them() {
        let own = with_sections(&[(".rodata", b"..virtio_mmio.device\0"), (".init.data", b"..")]);
        assert_eq!(found(&own), Discovery::Cmdline);
        let both = with_sections(&[
            (".rodata", b"virtio_mmio.device\0"),
            (".init.data", b"quiet\0acpi_rsdp\0"),
        ]);
        assert_eq!(found(&both), Discovery::Acpi);
        assert_eq!(
            found(&with_sections(&[(".rodata", b""), (".init.data", b"")])),
            Discovery::Acpi
        );
        // Elsewhere they mean nothing: `.BTF` has names of functions.
        let elsewhere = with_sections(&[
            (".rodata", b"virtio_mmio.device\0"),
            (".BTF", b"setup_acpi_rsdp\0"),
            (".init.data", b""),
        ]);
        assert_eq!(found(&elsewhere), Discovery::Cmdline);
    }

    #[test]
    fn an_image_without_sections_is_searched_as_a_whole() {
        let elf = |text: &[u8]| [tiny_elf().as_slice(), &vec![0; CHUNK], text].concat();
        assert_eq!(found(&elf(b"")), Discovery::Acpi);
        assert_eq!(found(&elf(b"virtio_mmio.device\0")), Discovery::Cmdline);
        assert_eq!(found(&elf(b"virtio_mmio.device\0acpi_rsdp\0")), Discovery::Acpi);
    }

    #[test]
    fn a_name_across_two_chunks_is_found() {
        for at in CHUNK - 40..CHUNK + 3 {
            let rodata = [vec![b'.'; at].as_slice(), b"virtio_mmio.device\0"].concat();
            let elf = with_sections(&[(".rodata", &rodata), (".init.data", b"")]);
            assert_eq!(found(&elf), Discovery::Cmdline, "{at}");
        }
    }

    #[test]
    fn what_is_known_is_not_looked_for_and_a_bzimage_has_acpi() {
        let known = looked(&tiny_elf(), Some(Discovery::Cmdline)).unwrap();
        assert_eq!((known.format, known.discovery), (KernelFormat::Elf, Discovery::Cmdline));
        let packed = looked(&bzimage(b"virtio_mmio.device\0"), None).unwrap();
        assert_eq!((packed.format, packed.discovery), (KernelFormat::BzImage, Discovery::Acpi));
    }

    #[test]
    fn tables_that_lie_are_no_more_than_absent() {
        let good = with_sections(&[(".rodata", b"virtio_mmio.device\0"), (".init.data", b"")]);
        let table = usize::try_from(u64::from_le_bytes(good[40..48].try_into().unwrap())).unwrap();
        for (at, lie) in [(40, u64::MAX), (40, 1 << 62), (table + 64 + 24, u64::MAX - 3)] {
            let mut elf = good.clone();
            elf[at..at + 8].copy_from_slice(&lie.to_le_bytes());
            looked(&elf, None).unwrap();
        }
        let mut elf = good.clone();
        elf[60..64].fill(0xff);
        looked(&elf, None).unwrap();
        // A section as large as can be said ends with the file.
        let mut elf = good;
        elf[table + 64 + 32..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(found(&elf), Discovery::Cmdline);
    }

    #[test]
    fn a_cut_image_is_refused_before_anything_is_loaded() {
        let elf = tiny_elf();
        for (length, reason) in
            [(elf.len() - 10, "it is cut short"), (100, "its ELF header is broken")]
        {
            for known in [None, Some(Discovery::Acpi)] {
                match looked(&elf[..length], known) {
                    Err(Error::NotAKernel { why, .. }) => assert_eq!(why, reason),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
