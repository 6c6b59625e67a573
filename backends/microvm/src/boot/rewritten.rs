//! Which pages of its own image a Linux kernel writes before its first process.
//!
//! All of its data, and the pages around it that it gives away; and of its code the places for which
//! the processor decides what is to stand there: `.altinstructions` lists them. They are many, spread
//! over hundreds of pages which are read before they are written, and a page of a mapped file that is
//! written late costs three exits and a copy (docs/guest-kernel.md).
//!
//! Only a hint: what is wrong or unknown gives fewer pages, and nothing else changes.

use std::fs::File;
use std::ops::Range;

use object::Endianness;
use object::elf::{FileHeader64, PF_W, PT_LOAD};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

const PAGE: u64 = 4096;

/// More than this of data is not all written at once.
const DATA_LIMIT: u64 = 8 << 20;

/// A larger file, or a larger table in it, is no kernel that this was made for: some 40 MB and 400 KB
/// is what distributions have.
const FILE_LIMIT: u64 = 256 << 20;
const TABLE_LIMIT: u64 = 4 << 20;

/// `struct alt_instr` (Linux arch/x86/include/asm/alternative.h): the place, relative to the entry
/// itself, comes first. Since 6.4 its size is 14, before that it was 12.
const ENTRY_SIZES: [usize; 2] = [14, 12];

/// A piece of the image: where it is linked to run, and where it lies in memory.
struct Segment {
    linked: u64,
    physical: Range<u64>,
    writable: bool,
}

/// Guest physical addresses of whole pages, in order.
pub(super) fn ranges(file: &File) -> Vec<Range<u64>> {
    find(file).unwrap_or_default()
}

fn find(file: &File) -> Option<Vec<Range<u64>>> {
    if file.metadata().ok()?.len() > FILE_LIMIT {
        return None;
    }
    let cache = ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    let mut segments = Vec::new();
    for segment in header.program_headers(endian, &cache).ok()? {
        let start = segment.p_paddr(endian);
        if segment.p_type(endian) == PT_LOAD {
            segments.push(Segment {
                linked: segment.p_vaddr(endian),
                physical: start..start.checked_add(segment.p_memsz(endian))?,
                writable: segment.p_flags(endian).contains(PF_W),
            });
        }
    }
    let sections = header.sections(endian, &cache).ok()?;
    let mut pages = match sections.section_by_name(endian, b".altinstructions") {
        Some((_, section)) if section.sh_size(endian) <= TABLE_LIMIT => {
            let entries = section.data(endian, &cache).ok()?;
            alternatives(entries, section.sh_addr(endian), &segments).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    pages.sort_unstable();
    let mut ranges = merge(&pages);
    let data = data(&segments)?;
    ranges.retain(|range| range.end <= data.start);
    ranges.push(data);
    Some(ranges)
}

/// The pages of the places that `entries` lists, which are linked at `address`.
fn alternatives(entries: &[u8], address: u64, segments: &[Segment]) -> Option<Vec<u64>> {
    ENTRY_SIZES.into_iter().find_map(|size| {
        let places = (0..).step_by(size).zip(entries.chunks_exact(size));
        let pages = places.map(|(at, entry)| page(entry, address.checked_add(at)?, segments));
        if entries.len().is_multiple_of(size) { pages.collect() } else { None }
    })
}

/// The page of the place of one entry, which is itself linked at `address`.
fn page(entry: &[u8], address: u64, segments: &[Segment]) -> Option<u64> {
    let place = i32::from_le_bytes(*entry.first_chunk()?);
    let place = address.wrapping_add_signed(place.into());
    segments.iter().find_map(|segment| {
        let at = segment.physical.start.checked_add(place.checked_sub(segment.linked)?)?;
        segment.physical.contains(&at).then_some(at / PAGE)
    })
}

/// All that is writable, with the rest of the large page before it: code and data do not share one,
/// and Linux fills what is left between them before it gives it away.
fn data(segments: &[Segment]) -> Option<Range<u64>> {
    let writable = || segments.iter().filter(|segment| segment.writable);
    let start = writable().map(|segment| segment.physical.start).min()?;
    let end = writable().map(|segment| segment.physical.end).max()?;
    let before = segments.iter().map(|segment| segment.physical.end).filter(|end| *end <= start);
    let start = before.max()?.checked_next_multiple_of(PAGE)?.min(start);
    (end - start <= DATA_LIMIT).then_some(start..end)
}

/// Sorted pages as stretches of addresses.
fn merge(pages: &[u64]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for page in pages {
        let Some(end) = page.checked_add(1).and_then(|next| next.checked_mul(PAGE)) else {
            continue;
        };
        let start = end - PAGE;
        match ranges.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKED: u64 = 0xffff_ffff_8100_0000;

    #[test]
    fn the_last_page_of_all_is_none_of_a_guests() {
        assert_eq!(merge(&[1, 2, u64::MAX / PAGE]), merge(&[1, 2]));
        assert_eq!(merge(&[u64::MAX / PAGE]), Vec::new());
    }

    #[test]
    fn a_file_that_is_too_large_is_not_looked_at() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(FILE_LIMIT + 1).unwrap();
        assert_eq!(find(&file), None);
    }

    fn segments() -> Vec<Segment> {
        let code = Segment { linked: LINKED, physical: 0x100_0000..0x110_0000, writable: false };
        let data = Segment {
            linked: LINKED + 0x20_0000,
            physical: 0x120_0000..0x121_0000,
            writable: true,
        };
        let per_cpu = Segment { linked: 0, physical: 0x121_0000..0x121_2345, writable: true };
        vec![code, data, per_cpu]
    }

    /// Entries of so many bytes for these places.
    fn entries(size: usize, places: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for place in places {
            let address = LINKED + 0x20_0000 + u64::try_from(bytes.len()).unwrap();
            let offset = i32::try_from(i128::from(*place) - i128::from(address)).unwrap();
            bytes.extend(offset.to_le_bytes());
            bytes.resize(bytes.len() + size - 4, 0xee);
        }
        bytes
    }

    #[test]
    fn places_are_found_whatever_the_size_of_an_entry() {
        let places = [LINKED + 0x1234, LINKED + 0x2fff, LINKED + 0x5000];
        for size in ENTRY_SIZES {
            let found = alternatives(&entries(size, &places), LINKED + 0x20_0000, &segments());
            let found = merge(&found.unwrap());
            assert_eq!(found, [0x100_1000..0x100_3000, 0x100_5000..0x100_6000], "{size}");
        }
    }

    #[test]
    fn nonsense_gives_nothing() {
        assert!(alternatives(&[0x7f; 28], LINKED, &segments()).is_none());
        assert!(alternatives(&[0; 13], LINKED, &segments()).is_none());
        assert!(ranges(&File::open("/dev/null").unwrap()).is_empty());
        assert!(data(&[]).is_none());
    }

    #[test]
    fn data_begins_where_code_ends() {
        assert_eq!(data(&segments()), Some(0x110_0000..0x121_2345));
        let mut large = segments();
        large[2].physical.end += DATA_LIMIT;
        assert!(data(&large).is_none());
    }
}
