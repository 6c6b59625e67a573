//! A kernel file whose pages become the guest's without being copied.
//!
//! Where file and guest memory lie at the same place within a page, whole pages are mapped
//! privately over the guest's: those that the guest never looks at cost nothing, those that it only
//! reads are the page cache's, shared by all guests of this kernel, and the rest is copied one by
//! one when it is first written to.
//!
//! A mapped file that changes changes the guest, and one that is cut short ends the VMM with
//! SIGBUS when the lost pages are touched. So only files that nobody but their owner may write
//! are mapped: who owns the kernel can do worse to the guest. moat's own store never writes to a
//! bundle that is in place; all others are copied.
//!
//! Safety argument for the whole file: the only unsafe call maps file pages over pages of a
//! `VolatileSlice`, exactly and nothing else. [`PageSource`] is handed only to loaders that read
//! into guest memory, so the slice lies in a private mapping made for it, which stays mapped, with
//! the same rights, and is unmapped as a whole by its owner. Volatile accesses allow for bytes that
//! change at any time.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

const PAGE: usize = 4096;

/// Less than this is copied: a mapping of its own costs more.
const LEAST: usize = 16 * PAGE;

/// Group and others may write (inode(7)).
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A file that is read into guest memory by mapping what can be mapped.
#[derive(Debug)]
pub(super) struct PageSource<'a> {
    file: &'a File,
    /// How much of it may be mapped, in bytes: its size when it was opened, or nothing.
    mappable: u64,
}

impl<'a> PageSource<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let own = metadata.is_file() && metadata.mode() & WRITABLE_BY_OTHERS == 0;
        Ok(Self { file, mappable: if own { metadata.len() } else { 0 } })
    }

    /// The file itself.
    pub(super) fn file(&self) -> &'a File {
        self.file
    }

    /// Maps the whole pages of `length` bytes at `offset` over those at `to`. How many bytes.
    fn map(&self, to: *mut u8, offset: u64, length: usize) -> Option<usize> {
        let length = length - length % PAGE;
        let end = offset.checked_add(length as u64)?;
        if length < LEAST || end > self.mappable || !to.addr().is_multiple_of(PAGE) {
            return None;
        }
        let offset = libc::off_t::try_from(offset).ok()?;
        // SAFETY: `to` and `length` are whole pages inside guest memory (head comment), so nothing
        // else is unmapped by MAP_FIXED; the descriptor is open.
        let mapped = unsafe {
            libc::mmap(
                to.cast(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                self.file.as_raw_fd(),
                offset,
            )
        };
        // A filesystem that can't map, mostly: then it is read.
        (!ptr::eq(mapped, libc::MAP_FAILED)).then_some(length)
    }
}

impl Read for PageSource<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for PageSource<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl ReadVolatile for PageSource<'_> {
    /// Fills all of `to`, or fails.
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        to: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let offset = self.file.stream_position().map_err(VolatileMemoryError::IOError)?;
        let guard = to.ptr_guard_mut();
        // Bytes until the file's next page begins.
        let head = offset.next_multiple_of(PAGE as u64) - offset;
        let head = usize::try_from(head).unwrap_or(PAGE).min(to.len());
        let start = guard.as_ptr().wrapping_add(head);
        let mapped = self.map(start, offset + head as u64, to.len() - head);
        let Some(mapped) = mapped else {
            self.file.read_exact_volatile(to)?;
            return Ok(to.len());
        };
        self.file.read_exact_volatile(&mut to.subslice(0, head)?)?;
        let skip = i64::try_from(mapped).unwrap_or(i64::MAX);
        self.file.seek(SeekFrom::Current(skip)).map_err(VolatileMemoryError::IOError)?;
        self.file.read_exact_volatile(&mut to.offset(head + mapped)?)?;
        Ok(to.len())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};

    use super::*;

    const SIZE: usize = 40 * PAGE + 100;

    /// A file of bytes that tell where they are from.
    fn file() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern()).unwrap();
        file
    }

    fn pattern() -> Vec<u8> {
        (0..SIZE).map(|at| u8::try_from((at / 7) % 251).unwrap()).collect()
    }

    fn guest() -> GuestMemoryMmap {
        crate::memory::create_small(1 << 20).unwrap()
    }

    fn load(memory: &GuestMemoryMmap, file: &File, from: usize, to: u64, length: usize) {
        let mut source = PageSource::new(file).unwrap();
        source.seek(SeekFrom::Start(from as u64)).unwrap();
        memory.read_exact_volatile_from(GuestAddress(to), &mut source, length).unwrap();
        assert_eq!(source.stream_position().unwrap(), (from + length) as u64);
        let mut found = vec![0; length + 2];
        memory.read_slice(&mut found, GuestAddress(to - 1)).unwrap();
        assert_eq!(found[1..=length], pattern()[from..from + length]);
        assert_eq!((found[0], found[length + 1]), (0, 0), "bytes around it were touched");
    }

    /// Whether the page at `at` is the file's own.
    fn is_mapped(memory: &GuestMemoryMmap, at: u64) -> bool {
        let host = memory.get_host_address(GuestAddress(at)).unwrap().addr();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&host) && !rest.contains(" 00:00 0")
        })
    }

    #[test]
    fn whole_pages_are_mapped_and_what_is_around_them_is_copied() {
        let (memory, file) = (guest(), file());
        load(&memory, &file, 100, 0x1_0064, SIZE - 100);
        assert!(!is_mapped(&memory, 0x1_0064));
        assert!(is_mapped(&memory, 0x1_1000));
        assert!(!is_mapped(&memory, 0x1_0000 + 40 * 4096));
    }

    #[test]
    fn the_guests_writes_stay_the_guests() {
        let (memory, file) = (guest(), file());
        load(&memory, &file, 0, 0x1_0000, SIZE);
        memory.write_slice(b"the guest's own", GuestAddress(0x1_0000)).unwrap();
        let other = guest();
        load(&other, &file, 0, 0x1_0000, SIZE);
    }

    #[test]
    fn what_does_not_lie_alike_or_is_not_the_owners_alone_is_copied() {
        let (memory, file) = (guest(), file());
        load(&memory, &file, 0, 0x1_0010, SIZE);
        assert!(!is_mapped(&memory, 0x1_1000));
        file.set_permissions(Permissions::from_mode(0o660)).unwrap();
        load(&memory, &file, 0, 0x8_0000, SIZE);
        assert!(!is_mapped(&memory, 0x8_1000));
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error_and_not_a_signal() {
        let (memory, file) = (guest(), file());
        let mut source = PageSource::new(&file).unwrap();
        let read = memory.read_exact_volatile_from(GuestAddress(0), &mut source, SIZE + 1);
        assert!(read.is_err());
        let mut source = PageSource::new(&file).unwrap();
        file.set_len(PAGE as u64).unwrap();
        source.rewind().unwrap();
        // Cut short after its size was taken: nothing of it is touched here.
        let read = memory.read_exact_volatile_from(GuestAddress(0), &mut source, SIZE - 4096);
        assert!(read.is_err());
    }
}
