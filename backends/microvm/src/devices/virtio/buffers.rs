//! A chain's buffers in guest memory, into which the host's kernel reads and from which it writes
//! without a copy on the way.
//!
//! Safety argument for the whole file: every `iovec` was made from a slice that the guest memory
//! itself checked to lie within one of its mappings, and only ever becomes a part of what it was;
//! the mappings live as long as the `Arc` beside them. What lies there may change at any time, by
//! the guest's hand: it is only ever touched by the host's kernel, or copied by `VolatileSlice`,
//! never seen as a Rust reference.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, VolatileSlice};

use super::Broken;

/// The most pieces that the kernel takes at once (readv(2), `IOV_MAX`).
pub(super) const IOV_MAX: usize = 1024;

/// The most bytes that the kernel moves at once (read(2), `MAX_RW_COUNT`).
const MOST: usize = 0x7fff_f000;

/// A sequence of bytes in guest memory, in pieces.
#[derive(Debug)]
pub(super) struct Buffers {
    memory: Arc<GuestMemoryMmap>,
    pieces: Vec<libc::iovec>,
    length: usize,
}

// SAFETY: the pointers are to mappings that `memory` keeps, which any thread may use.
unsafe impl Send for Buffers {}

impl Buffers {
    pub(super) fn new(memory: Arc<GuestMemoryMmap>) -> Self {
        Self { memory, pieces: Vec::new(), length: 0 }
    }

    /// Adds `length` bytes at `address`.
    ///
    /// # Errors
    /// When they do not all lie in guest memory, or there are too many pieces.
    pub(super) fn push(&mut self, address: GuestAddress, length: u32) -> Result<(), Broken> {
        let outside = |_| broken(format!("{length} bytes at {:#x}, outside memory", address.0));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        for slice in self.memory.get_slices(address, length) {
            let slice = slice.map_err(outside)?;
            if self.pieces.len() == IOV_MAX {
                return Err(broken(format!("more than {IOV_MAX} pieces")));
            }
            let base = slice.ptr_guard_mut().as_ptr().cast();
            self.pieces.push(libc::iovec { iov_base: base, iov_len: slice.len() });
            self.length += slice.len();
        }
        if self.length > MOST {
            return Err(broken(format!("more than {MOST} bytes")));
        }
        Ok(())
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many pieces there are.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Splits off everything from byte `at` on; nothing when there are no more than `at`.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let mut rest = Self::new(Arc::clone(&self.memory));
        rest.pieces = after(&self.pieces, at);
        rest.length = self.length.saturating_sub(at);
        self.length -= rest.length;
        let mut left = self.length;
        self.pieces.retain_mut(|piece| {
            piece.iov_len = piece.iov_len.min(left);
            left -= piece.iov_len;
            piece.iov_len > 0
        });
        rest
    }

    /// Adds all of `more`, which must be of the same memory.
    pub(super) fn append(&mut self, more: &Self) {
        debug_assert!(Arc::ptr_eq(&self.memory, &more.memory));
        self.pieces.extend_from_slice(&more.pieces);
        self.length += more.length;
    }

    /// Takes away the first `bytes`, which must be whole pieces.
    pub(super) fn drop_front(&mut self, bytes: usize) {
        let mut left = bytes;
        let whole = self.pieces.iter().take_while(|piece| {
            let fits = piece.iov_len <= left;
            left -= if fits { piece.iov_len } else { 0 };
            fits
        });
        let whole = whole.count();
        debug_assert_eq!(left, 0);
        self.pieces.drain(..whole);
        self.length -= bytes - left;
    }

    /// Copies bytes from `at` on to `bytes`, and returns how many there were.
    pub(super) fn copy_to(&self, at: usize, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.slices(at) {
            let Some(room) = bytes.get_mut(done..).filter(|room| !room.is_empty()) else { break };
            done += piece.copy_to(room);
        }
        done
    }

    /// Copies `bytes` to `at` and after, as far as there is room, and returns how many fitted.
    pub(super) fn copy_from(&self, at: usize, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.slices(at) {
            let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) else { break };
            piece.copy_from(rest);
            done += rest.len().min(piece.len());
        }
        done
    }

    /// Fills everything from `at` on with zeroes.
    pub(super) fn zero(&self, at: usize) {
        const ZEROES: [u8; 4096] = [0; 4096];
        let mut at = at;
        while at < self.length {
            at += self.copy_from(at, ZEROES.get(..self.length - at).unwrap_or(&ZEROES));
        }
    }

    fn slices(&self, at: usize) -> impl Iterator<Item = VolatileSlice<'_>> {
        let mut skip = at;
        self.pieces.iter().filter_map(move |piece| {
            let skipped = skip.min(piece.iov_len);
            skip -= skipped;
            // SAFETY: part of a piece (head comment), borrowed for as long as `self` is.
            let slice = unsafe {
                VolatileSlice::new(
                    piece.iov_base.cast::<u8>().wrapping_add(skipped),
                    piece.iov_len - skipped,
                )
            };
            (skipped < piece.iov_len).then_some(slice)
        })
    }

    /// Reads from `file` at `offset` until all is filled or the file is at its end; with `flags` as
    /// preadv2(2) has them.
    pub(super) fn read_at(&self, file: BorrowedFd<'_>, offset: u64, flags: i32) -> Moved {
        self.all(|pieces, count, done| {
            let offset = position(offset, done)?;
            // SAFETY: `count` pieces (head comment), for the kernel to fill.
            check(unsafe { libc::preadv2(file.as_raw_fd(), pieces, count, offset, flags) })
        })
    }

    /// As [`Buffers::read_at`], to the file.
    pub(super) fn write_at(&self, file: BorrowedFd<'_>, offset: u64, flags: i32) -> Moved {
        self.all(|pieces, count, done| {
            let offset = position(offset, done)?;
            // SAFETY: `count` pieces (head comment), which the kernel reads.
            check(unsafe { libc::pwritev2(file.as_raw_fd(), pieces, count, offset, flags) })
        })
    }

    /// Reads once, from something that gives whole packets.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn read_packet(&self, file: BorrowedFd<'_>) -> io::Result<usize> {
        let count = i32::try_from(self.pieces.len().min(IOV_MAX)).unwrap_or_default();
        // SAFETY: `count` pieces (head comment), for the kernel to fill.
        check(unsafe { libc::readv(file.as_raw_fd(), self.pieces.as_ptr(), count) })
    }

    /// Writes all of this as one packet, with `header` in the place of its first bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn write_packet(&self, file: BorrowedFd<'_>, header: &[u8]) -> io::Result<usize> {
        let base = header.as_ptr().cast_mut().cast();
        let mut pieces = after(&self.pieces, header.len());
        pieces.insert(0, libc::iovec { iov_base: base, iov_len: header.len() });
        let count = i32::try_from(pieces.len()).unwrap_or(i32::MAX);
        // SAFETY: the first piece is `header`, which the kernel only reads; the others are as the
        // head comment says.
        check(unsafe { libc::writev(file.as_raw_fd(), pieces.as_ptr(), count) })
    }

    /// Calls `once` with what is left until it moves nothing.
    fn all(
        &self,
        mut once: impl FnMut(*const libc::iovec, i32, usize) -> io::Result<usize>,
    ) -> Moved {
        let mut done = 0;
        let mut rest = Cow::Borrowed(self.pieces.as_slice());
        while done < self.length {
            let count = i32::try_from(rest.len()).unwrap_or(i32::MAX);
            let moved = match once(rest.as_ptr(), count, done) {
                Ok(0) => break,
                Ok(moved) => moved,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Moved { bytes: done, error: Some(error) },
            };
            done += moved;
            rest = Cow::Owned(after(&rest, moved));
        }
        Moved { bytes: done, error: None }
    }
}

/// `pieces` without their first `bytes`.
fn after(pieces: &[libc::iovec], bytes: usize) -> Vec<libc::iovec> {
    let mut skip = bytes;
    let left = pieces.iter().filter_map(|piece| {
        let skipped = skip.min(piece.iov_len);
        skip -= skipped;
        let base = piece.iov_base.cast::<u8>().wrapping_add(skipped).cast();
        let left = libc::iovec { iov_base: base, iov_len: piece.iov_len - skipped };
        (left.iov_len > 0).then_some(left)
    });
    left.collect()
}

/// What became of reading or writing.
#[derive(Debug)]
pub(super) struct Moved {
    /// So many bytes were moved,
    pub(super) bytes: usize,
    /// and then this happened; nothing at all at the end of a file.
    pub(super) error: Option<io::Error>,
}

fn position(offset: u64, done: usize) -> io::Result<libc::off_t> {
    let offset = u64::try_from(done).ok().and_then(|done| offset.checked_add(done));
    offset
        .and_then(|offset| libc::off_t::try_from(offset).ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn broken(reason: String) -> Broken {
    Broken::Buffer { reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::os::fd::AsFd;
    use vm_memory::Bytes;

    use super::*;

    const MEMORY: u64 = 64 << 10;

    fn memory() -> Arc<GuestMemoryMmap> {
        Arc::new(crate::memory::create_small(MEMORY).unwrap())
    }

    fn pieces() -> impl Strategy<Value = Vec<(u64, u32)>> {
        proptest::collection::vec((0..MEMORY - 300, 0..300u32), 0..20)
    }

    fn buffers(memory: &Arc<GuestMemoryMmap>, pieces: &[(u64, u32)]) -> Buffers {
        let mut buffers = Buffers::new(Arc::clone(memory));
        for &(address, length) in pieces {
            buffers.push(GuestAddress(address), length).unwrap();
        }
        buffers
    }

    #[test]
    fn what_does_not_lie_in_memory_is_refused() {
        for (address, length) in [
            (MEMORY, 1),
            (MEMORY - 1, 2),
            (0, u32::MAX),
            (u64::MAX, 1),
            (u64::MAX, 2),
            (u64::MAX - 1, u32::MAX),
        ] {
            let mut buffers = Buffers::new(memory());
            let refused = buffers.push(GuestAddress(address), length);
            assert!(matches!(refused, Err(Broken::Buffer { .. })), "{address:#x} {length}");
        }
        let mut many = Buffers::new(memory());
        for _ in 0..IOV_MAX {
            many.push(GuestAddress(0), 1).unwrap();
        }
        assert!(many.push(GuestAddress(0), 1).is_err());
        assert_eq!(many.pieces(), IOV_MAX);
    }

    #[test]
    fn a_hole_between_regions_is_refused_and_regions_that_touch_are_joined() {
        let ranges = [(0u64, 0x1000), (0x1000, 0x1000), (0x4000, 0x1000)];
        let ranges = ranges.map(|(start, length)| (GuestAddress(start), length));
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let mut buffers = Buffers::new(Arc::clone(&memory));
        buffers.push(GuestAddress(0xff0), 0x20).unwrap();
        assert_eq!((buffers.len(), buffers.pieces()), (0x20, 2));
        assert!(Buffers::new(Arc::clone(&memory)).push(GuestAddress(0x1ff0), 0x20).is_err());
        assert!(Buffers::new(memory).push(GuestAddress(0x1000), 0x4000).is_err());
    }

    proptest! {
        /// However bytes are cut up and where, what is copied, split, read and written is the
        /// same as of one flat run of them.
        #[test]
        fn pieces_are_as_good_as_one(lengths in proptest::collection::vec(0..300u32, 0..20),
                                     cut in 0.0..=1.2f64) {
            let memory = memory();
            // Apart, so that none overlaps another.
            let pieces: Vec<_> = (0..).zip(&lengths).map(|(i, &length)| (i * 1000, length)).collect();
            let mut all = buffers(&memory, &pieces);
            let length = all.len();
            let text: Vec<u8> = (0..=250).cycle().take(length).collect();
            prop_assert_eq!(all.copy_from(0, &text), length);
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation,
                    clippy::cast_sign_loss)]
            let cut = (length as f64 * cut) as usize;
            let mut back = vec![0; length];
            let expected = text.get(cut..).unwrap_or_default();
            prop_assert_eq!(all.copy_to(cut, &mut back), expected.len());
            prop_assert_eq!(&back[..expected.len()], expected);

            let file = tempfile::tempfile().unwrap();
            let moved = all.write_at(file.as_fd(), 7, 0);
            prop_assert_eq!((moved.bytes, moved.error.is_none()), (length, true));
            all.zero(0);
            let rest = all.split_off(cut);
            prop_assert_eq!((all.len(), rest.len()), (cut.min(length), expected.len()));
            let moved = rest.read_at(file.as_fd(), 7 + cut as u64, 0);
            prop_assert_eq!(moved.bytes, rest.len());
            let mut back = vec![1; length];
            all.append(&rest);
            prop_assert_eq!(all.copy_to(0, &mut back), length);
            prop_assert!(back[..all.len() - rest.len()].iter().all(|byte| *byte == 0));
            prop_assert_eq!(&back[all.len() - rest.len()..], expected);
            // Past the end of the file there is nothing.
            let moved = all.read_at(file.as_fd(), 7 + length as u64, 0);
            prop_assert_eq!((moved.bytes, moved.error.is_none()), (0, true));
        }

        /// Whatever the pieces: nothing outside them is touched.
        #[test]
        fn nothing_outside_is_touched(pieces in pieces()) {
            let memory = memory();
            let all = buffers(&memory, &pieces);
            let ones = vec![1; all.len()];
            all.copy_from(0, &ones);
            let mut seen = vec![0; usize::try_from(MEMORY).unwrap()];
            memory.read_slice(&mut seen, GuestAddress(0)).unwrap();
            for (address, byte) in (0..).zip(seen) {
                let inside = pieces
                    .iter()
                    .any(|&(start, length)| (start..start + u64::from(length)).contains(&address));
                prop_assert_eq!(byte == 1, inside, "{}", address);
            }
        }
    }

    #[test]
    fn offsets_that_overflow_are_errors() {
        let memory = memory();
        let some = buffers(&memory, &[(0, 512)]);
        let file = tempfile::tempfile().unwrap();
        for offset in [u64::MAX, 1 << 63, (1 << 63) - 100] {
            assert!(some.write_at(file.as_fd(), offset, 0).error.is_some());
            let read = some.read_at(file.as_fd(), offset, 0);
            assert!(read.error.is_some() || read.bytes == 0);
        }
    }

    #[test]
    fn packets_go_whole() {
        let memory = memory();
        let (one, other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let packet = buffers(&memory, &[(100, 3), (50, 2)]);
        packet.copy_from(0, b"abcde");
        assert_eq!(packet.write_packet(one.as_fd(), b"head").unwrap(), 5);
        let mut bytes = [0; 20];
        assert_eq!(other.recv(&mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"heade");
        other.send(b"12345678").unwrap();
        assert_eq!(packet.read_packet(one.as_fd()).unwrap(), 5);
        let mut bytes = [0; 5];
        packet.copy_to(0, &mut bytes);
        assert_eq!(&bytes, b"12345");
    }
}
