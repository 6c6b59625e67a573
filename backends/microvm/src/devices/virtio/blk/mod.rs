//! virtio-blk (virtio 1.2, section 5.2): a file or block device of the host as the guest's disk.
//!
//! ```text
//! queue --> understood --> admitted --> read at once, when the host has it in memory
//!                          (rate)   \-> a worker: read, written, flushed, zeroed
//! queue <-- answered <-------------------/
//! ```
//! The device's thread never waits for the host's disk; four workers do, each with one request, in
//! any order. Data goes between the file and guest memory without a copy of ours.
//!
//! Why workers and not io_uring: a seccomp filter can't see what goes through an io_uring, so a VMM
//! that was taken over would have all of its operations; many hosts switch it off for that; and the
//! fallback would have to be there and tested all the same. What it would save is one switch of
//! threads for requests that miss the host's memory, next to which waiting for the disk is long.
//!
//! Calls of the device's thread: epoll_create1, epoll_ctl, epoll_wait, read and write (event
//! descriptors), preadv2, futex, close, and those of [`super::rate`]. Of the workers, which are
//! made with the device, before there is a guest: futex, preadv2, pwritev2, pwrite64, fdatasync,
//! fallocate, write (the event descriptor), and what ends a thread.

mod backing;
mod layout;
mod pool;
mod request;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vmm_sys_util::epoll::{EpollEvent, EventSet};

use backing::Backing;
#[cfg(test)]
use layout::kind;
use layout::{CONFIG, ID, QUEUE_SIZE, SECTOR, feature};
use pool::Pool;
use request::{Request, Rules};

use super::queue::{Parts, Ring};
use super::rate::{Limiter, LimiterError, Limits};
use super::{Active, Broken, Device, Poller};
use crate::jail::Confine;

/// Section 5.2.1.
const KIND: u32 = 2;
const QUEUES: [u16; 1] = [QUEUE_SIZE];

const STOP_TOKEN: u64 = 0;
const KICK_TOKEN: u64 = 1;
const DONE_TOKEN: u64 = 2;
const TIMER_TOKEN: u64 = 3;

/// How a disk is shown to the guest.
#[derive(Debug, Clone, Default)]
pub struct DiskOptions {
    /// The guest may only read.
    pub read_only: bool,
    /// What the guest finds as the disk's serial number; the first 20 bytes count.
    pub id: String,
    /// How fast it may be used.
    pub limits: Limits,
}

/// Why a file can't be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Neither file nor block device.
    #[error("a disk is a file or a block device, and this is neither")]
    Kind,
    /// Opened for reading, and the guest is to write; or for writing only.
    #[error("the disk is not open for what the guest is to do with it")]
    Access,
    /// Another machine has it.
    #[error("the disk is in use: one machine may write it, or any number read it")]
    Busy,
    /// Rate limits.
    #[error("can't limit the disk's rate")]
    Limits(#[from] LimiterError),
    /// The host refused something.
    #[error("can't use the disk's file")]
    Host(#[from] io::Error),
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    pool: Pool,
    limiter: Limiter,
    sectors: u64,
    read_only: bool,
    config: [u8; CONFIG],
}

impl Disk {
    /// A disk with the contents of `file`: a raw image or a block device, open for reading, and
    /// for writing unless it is read-only. It is locked (flock(2)) as long as the disk lives:
    /// shared when it is read-only.
    ///
    /// An image that does not end with a whole sector is shown with its last one filled up with
    /// zeroes; a guest that writes there makes it whole.
    ///
    /// # Errors
    /// When the file is of the wrong kind, not open for what is asked, or in use.
    pub fn new(mut file: File, options: &DiskOptions) -> Result<Self, DiskError> {
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind);
        }
        let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(io::Error::from)?;
        let access = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
        if access == OFlag::O_WRONLY || (!options.read_only && access != OFlag::O_RDWR) {
            return Err(DiskError::Access);
        }
        let locked = if options.read_only { file.try_lock_shared() } else { file.try_lock() };
        if let Err(TryLockError::WouldBlock) = locked {
            return Err(DiskError::Busy);
        }
        let sectors = file.seek(SeekFrom::End(0))?.div_ceil(SECTOR);
        let mut id = [0; ID];
        for (to, from) in id.iter_mut().zip(options.id.bytes()) {
            *to = from;
        }
        Ok(Self {
            pool: Pool::new(Backing::new(file, id))?,
            limiter: Limiter::new(options.limits)?,
            sectors,
            read_only: options.read_only,
            config: layout::config(sectors),
        })
    }
}

impl Device for Disk {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn features(&self) -> u64 {
        let always = feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY;
        let more = if self.read_only {
            feature::READ_ONLY
        } else {
            feature::DISCARD | feature::WRITE_ZEROES
        };
        always | more
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn prepare(&mut self, confine: Confine) -> io::Result<()> {
        self.pool.start(confine)
    }

    fn run(&mut self, active: Active) -> Result<(), Broken> {
        self.pool.backing().set_write_through(active.features & feature::FLUSH == 0);
        let rules =
            Rules { sectors: self.sectors, read_only: self.read_only, features: active.features };
        let (pool, limiter) = (&self.pool, &mut self.limiter);
        let result = Session { pool, limiter, rules, under_way: 0 }.serve(active);
        self.pool.stop();
        result
    }
}

/// A disk while its driver uses it.
struct Session<'a> {
    pool: &'a Pool,
    limiter: &'a mut Limiter,
    rules: Rules,
    /// Requests that workers have. Never more than the ring has room for, whatever the driver does.
    under_way: u16,
}

impl Session<'_> {
    fn serve(mut self, mut active: Active) -> Result<(), Broken> {
        let [ring] = active.rings.as_mut_slice() else {
            return Err(virtio_queue::Error::QueueNotReady.into());
        };
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, STOP_TOKEN)?;
        poller.add(ring.kick_fd(), EventSet::IN, KICK_TOKEN)?;
        poller.add(self.pool.bell_fd(), EventSet::IN, DONE_TOKEN)?;
        if let Some(timer) = self.limiter.timer_fd() {
            poller.add(timer, EventSet::IN, TIMER_TOKEN)?;
        }
        let mut events = [EpollEvent::default(); 4];
        let mut answered = false;
        loop {
            // At first too: for what came before we watched.
            answered |= self.take(ring)?;
            if answered {
                ring.notify()?;
            }
            answered = false;
            let ready = poller.wait(&mut events)?;
            for event in events.get(..ready).unwrap_or_default() {
                match event.data() {
                    STOP_TOKEN => return Ok(()),
                    TIMER_TOKEN => self.limiter.clear_timer(),
                    DONE_TOKEN => answered |= self.answer(ring)?,
                    _ => ring.clear_kick(),
                }
            }
        }
    }

    /// Gives back what workers have done. True if there was something.
    fn answer(&mut self, ring: &mut Ring) -> Result<bool, Broken> {
        let done = self.pool.done();
        let some = !done.is_empty();
        for (request, status) in done {
            self.under_way = self.under_way.saturating_sub(1);
            let (head, written) = request.finish(status);
            ring.give_back(head, written)?;
        }
        Ok(some)
    }

    /// Takes what there is, up to a ring's worth. True if something was answered at once.
    fn take(&mut self, ring: &mut Ring) -> Result<bool, Broken> {
        let mut answered = false;
        ring.mute()?;
        let mut left = ring.size();
        loop {
            // The next that is done makes room.
            if self.under_way >= ring.size() {
                break;
            }
            let Some(chain) = ring.take()? else {
                if ring.unmute()? {
                    continue;
                }
                break;
            };
            if left == 0 {
                ring.put_back();
                ring.kick_again()?;
                break;
            }
            left -= 1;
            let parts = Parts::of(chain, ring.memory())?;
            let request = Request::parse(parts, self.rules)?;
            if !self.limiter.admit(request.bytes())? {
                ring.put_back();
                break;
            }
            answered |= self.begin(request, ring)?;
        }
        Ok(answered)
    }

    /// True if it is answered already.
    fn begin(&mut self, request: Request, ring: &mut Ring) -> Result<bool, Broken> {
        let status = match &request.work {
            Ok(work) => self.pool.backing().at_once(work),
            Err(status) => Some(*status),
        };
        let Some(status) = status else {
            self.under_way += 1;
            self.pool.submit(request);
            return Ok(false);
        };
        let (head, written) = request.finish(status);
        ring.give_back(head, written)?;
        Ok(true)
    }
}
