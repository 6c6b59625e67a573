//! Lays the pieces of an initramfs back to back at the end of low memory.
//!
//! Linux unpacks archives one after the other, each plain cpio beginning at a multiple of 4
//! (Documentation/driver-api/early-userspace/buffer-format.rst); what lies between is zero, as
//! fresh guest memory is.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Error, Span, program};
use crate::memory::low_end;

const PAGE: u64 = 4096;
const ALIGN: u64 = 4;

/// One archive of the initramfs.
#[derive(Debug)]
pub enum Piece {
    /// A whole file, read straight into guest memory.
    File(File),
    /// Bytes made by the caller.
    Bytes(Vec<u8>),
    /// Bytes of this program's own file.
    Program(&'static [u8]),
}

impl Piece {
    fn size(&self) -> std::io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::Program(bytes) => Ok(bytes.len() as u64),
        }
    }
}

/// Returns where the initramfs lies, with no size if there is none.
pub(super) fn load(
    memory: &GuestMemoryMmap,
    pieces: &[Piece],
    floor: u64,
    max: u64,
) -> Result<Span, Error> {
    let mut sizes = Vec::with_capacity(pieces.len());
    let mut total: u64 = 0;
    let ceiling = low_end(memory).min(max.saturating_add(1));
    for (index, piece) in pieces.iter().enumerate() {
        let size = piece.size().map_err(|source| Error::ReadInitramfs { index, source })?;
        let too_large = |size| Error::InitramfsTooLarge { size, floor, ceiling };
        let end = total.checked_add(size).ok_or(too_large(u64::MAX))?;
        total = end.checked_next_multiple_of(ALIGN).ok_or(too_large(end))?;
        sizes.push(size);
    }
    if total == 0 {
        return Ok(Span { start: 0, size: 0 });
    }
    let start = ceiling.checked_sub(total).map(|start| start - start % PAGE);
    let start = match start {
        Some(start) if start >= floor => start,
        _ => return Err(Error::InitramfsTooLarge { size: total, floor, ceiling }),
    };
    let mut at = start;
    for (index, (piece, &size)) in pieces.iter().zip(&sizes).enumerate() {
        copy(memory, index, piece, GuestAddress(at), size)?;
        at += size.next_multiple_of(ALIGN);
    }
    Ok(Span { start, size: total })
}

fn copy(
    memory: &GuestMemoryMmap,
    index: usize,
    piece: &Piece,
    at: GuestAddress,
    size: u64,
) -> Result<(), Error> {
    let failed = |source| Error::CopyInitramfs { index, source };
    match piece {
        Piece::Bytes(bytes) => memory.write_slice(bytes, at).map_err(failed),
        Piece::Program(bytes) => {
            memory.write_slice(bytes, at).map_err(failed)?;
            program::forget(bytes);
            Ok(())
        }
        Piece::File(file) => {
            let mut file = file;
            file.seek(SeekFrom::Start(0))
                .map_err(|source| Error::ReadInitramfs { index, source })?;
            let size = usize::try_from(size).map_err(|_| Error::InitramfsTooLarge {
                size,
                floor: at.0,
                ceiling: u64::MAX,
            })?;
            memory.read_exact_volatile_from(at, &mut file, size).map_err(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::memory;

    #[test]
    fn pieces_lie_back_to_back_each_at_a_multiple_of_four() {
        let memory = memory::create(32 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"second").unwrap();
        let pieces =
            [Piece::Bytes(b"first".to_vec()), Piece::File(file), Piece::Bytes(b"third".to_vec())];
        let span = load(&memory, &pieces, 16 << 20, u64::MAX).unwrap();
        assert_eq!(span.size, 24);
        assert_eq!(span.start, (32 << 20) - 4096);
        let mut bytes = [0u8; 24];
        memory.read_slice(&mut bytes, GuestAddress(span.start)).unwrap();
        assert_eq!(&bytes, b"first\0\0\0second\0\0third\0\0\0");
    }

    #[test]
    fn an_initramfs_that_would_overlap_the_kernel_is_refused() {
        let memory = memory::create(32 << 20).unwrap();
        let pieces = [Piece::Bytes(vec![0; 8192])];
        let floor = (32 << 20) - 4096;
        let result = load(&memory, &pieces, floor, u64::MAX);
        assert!(matches!(result, Err(Error::InitramfsTooLarge { size: 8192, .. })));
    }

    #[test]
    fn none_at_all_is_fine() {
        let memory = memory::create(32 << 20).unwrap();
        assert_eq!(load(&memory, &[], 0, u64::MAX).unwrap(), Span { start: 0, size: 0 });
    }
}
