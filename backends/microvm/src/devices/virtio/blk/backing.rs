//! The file behind a disk, and what is done to it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::super::buffers::{Buffers, Moved};
use super::layout::{ID, Status};
use super::request::{Range, Work};

/// The most that is read without asking a worker, in bytes: copying more would keep the queue.
const SHORT: usize = 512 << 10;

/// A disk's file, used by all of the disk's threads.
#[derive(Debug)]
pub(super) struct Backing {
    file: File,
    id: [u8; ID],
    /// The driver knows of no cache, so that every write must be on the disk when it is answered
    /// (5.2.6.2).
    write_through: AtomicBool,
    /// The file's filesystem can say whether reading would wait.
    asks: AtomicBool,
}

impl Backing {
    pub(super) fn new(file: File, id: [u8; ID]) -> Self {
        let (write_through, asks) = (AtomicBool::new(false), AtomicBool::new(true));
        Self { file, id, write_through, asks }
    }

    /// To be called while no work is done.
    pub(super) fn set_write_through(&self, write_through: bool) {
        self.write_through.store(write_through, Ordering::Relaxed);
    }

    /// Does what can be done without waiting for the host's disk.
    pub(super) fn at_once(&self, work: &Work) -> Option<Status> {
        match work {
            Work::Read { data, offset }
                if data.len() <= SHORT && self.asks.load(Ordering::Relaxed) =>
            {
                let Moved { bytes, error } =
                    data.read_at(self.file.as_fd(), *offset, libc::RWF_NOWAIT);
                if error.is_some_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)) {
                    self.asks.store(false, Ordering::Relaxed);
                }
                (bytes == data.len()).then_some(Status::Ok)
            }
            Work::Identify { data } => {
                data.copy_from(0, &self.id);
                data.zero(ID);
                Some(Status::Ok)
            }
            _ => None,
        }
    }

    /// Does it, and waits for it.
    pub(super) fn execute(&self, work: &Work) -> Status {
        let result = match work {
            Work::Read { data, offset } => self.read(data, *offset),
            Work::Write { data, offset } => self.write(data, *offset),
            Work::Flush => self.file.sync_data(),
            Work::Identify { .. } => return self.at_once(work).unwrap_or(Status::Failed),
            Work::Discard(ranges) => self.discard(ranges),
            Work::Zero(range) => self.zero(*range),
        };
        match result {
            Ok(()) => Status::Ok,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, ?work, "the host's disk failed");
                Status::Failed
            }
        }
    }

    fn read(&self, data: &Buffers, offset: u64) -> io::Result<()> {
        let Moved { bytes, error } = data.read_at(self.file.as_fd(), offset, 0);
        // The last sector may be only partly there, and a file may have been cut off.
        data.zero(bytes);
        error.map_or(Ok(()), Err)
    }

    fn write(&self, data: &Buffers, offset: u64) -> io::Result<()> {
        let through = self.write_through.load(Ordering::Relaxed);
        let flags = if through { libc::RWF_DSYNC } else { 0 };
        let Moved { bytes, error } = data.write_at(self.file.as_fd(), offset, flags);
        match error {
            Some(error) => Err(error),
            None if bytes < data.len() => Err(io::ErrorKind::WriteZero.into()),
            None => Ok(()),
        }
    }

    /// Gives blocks back, where the host's filesystem can.
    fn discard(&self, ranges: &[Range]) -> io::Result<()> {
        for range in ranges {
            // Only a hint: what stays is not wrong (5.2.6.2).
            self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, *range)?;
        }
        Ok(())
    }

    fn zero(&self, range: Range) -> io::Result<()> {
        let mode = if range.unmap {
            FallocateFlags::FALLOC_FL_PUNCH_HOLE
        } else {
            FallocateFlags::FALLOC_FL_ZERO_RANGE
        };
        if !self.allocate(mode, range)? {
            static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
            let mut done = 0;
            while done < range.length {
                let left = usize::try_from(range.length - done).unwrap_or(usize::MAX);
                let zeroes = ZEROES.get(..left).unwrap_or(&ZEROES);
                self.file.write_all_at(zeroes, range.offset + done)?;
                done += zeroes.len() as u64;
            }
        }
        if self.write_through.load(Ordering::Relaxed) { self.file.sync_data() } else { Ok(()) }
    }

    /// False when the file's filesystem can't.
    fn allocate(&self, mode: FallocateFlags, range: Range) -> io::Result<bool> {
        let offset = |bytes| libc::off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
        let (start, length) = (offset(range.offset)?, offset(range.length)?);
        if length == 0 {
            return Ok(true);
        }
        loop {
            match fallocate(&self.file, mode | FallocateFlags::FALLOC_FL_KEEP_SIZE, start, length) {
                Ok(()) => return Ok(true),
                Err(Errno::EOPNOTSUPP) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
