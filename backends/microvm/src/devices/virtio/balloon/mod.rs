//! The memory balloon (virtio 1.2, section 5.5): memory that the guest can do without goes back to
//! the host.
//!
//! - **Free page reporting**: the guest tells of pages that are free, on its own; they stay its own.
//! - **Inflation**: the host asks for so many pages by [`Handle::ask`]; the guest gives what it can,
//!   and takes back what it needs when it would else run out (`DEFLATE_ON_OOM`).
//! - **Statistics**: how the guest's memory is used, in its own words, when it is asked.
//!
//! A guest may name any pages. Giving up those it uses breaks the guest alone, and what is no whole
//! page of guest memory is left alone (`give_back`).
//!
//! Calls: epoll_create1, epoll_ctl, epoll_wait, madvise (MADV_DONTNEED), read, write, close.

mod give_back;
mod statistics;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use virtio_queue::Reader;
use vm_memory::{Address, GuestMemoryMmap};
use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use give_back::{PAGE, give_back};
pub use statistics::Statistics;

use super::config::Config;
use super::queue::{Chain, Ring};
use super::{Active, Broken, Device, Poller};

/// Section 5.5.1.
const KIND: u32 = 5;
/// Inflate, deflate, statistics, reporting (5.5.2). The queue for hints, between the last two, is
/// of a feature that we don't offer. A driver numbers the queues that it uses without gaps (Linux
/// drivers/virtio/virtio_mmio.c, `vm_find_vqs`).
const QUEUES: [u16; 4] = [128, 128, 2, 64];
/// Feature bits (5.5.3).
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;
const FEATURES: u64 = STATS_VQ | DEFLATE_ON_OOM | REPORTING;

/// Section 5.5.4: how many pages the host asks for, and, written by the driver, how many it has.
const CONFIG_SIZE: usize = 8;
const NUM_PAGES: usize = 0;
const ACTUAL: usize = 4;

/// Page numbers read of one inflation buffer: Linux sends 256 at a time. What is beyond is not
/// given back.
const MAX_PAGES: usize = 4 << 10;
/// Ranges taken of one report: Linux sends 32.
const MAX_RANGES: usize = 256;
/// Buffers of one queue before the others get their turn.
const BATCH: usize = 32;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;

const ASKED_TOKEN: u64 = 100;
const STOP_TOKEN: u64 = 101;

/// The balloon.
#[derive(Debug)]
pub struct Balloon {
    handle: Arc<Handle>,
    config: [u8; CONFIG_SIZE],
}

/// What the host does with a balloon, from any thread.
#[derive(Debug)]
pub struct Handle {
    /// Pages asked for, and pages given, by the guest's word.
    pages: AtomicU32,
    actual: AtomicU32,
    statistics: Mutex<Option<Statistics>>,
    asked: EventFd,
}

impl Handle {
    /// Asks the guest for so many bytes of its memory, in all; rounded down to whole pages. It may
    /// take its time, and give less.
    ///
    /// # Errors
    /// When the device can't be told.
    pub fn ask(&self, bytes: u64) -> io::Result<()> {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        self.pages.store(pages, Ordering::SeqCst);
        self.refresh()
    }

    /// How many bytes the guest says that it has given, when it last said something.
    #[must_use]
    pub fn given(&self) -> u64 {
        u64::from(self.actual.load(Ordering::SeqCst)) * PAGE
    }

    /// Asks the guest for its statistics; `statistics` has them once it has answered.
    ///
    /// # Errors
    /// When the device can't be told.
    pub fn refresh(&self) -> io::Result<()> {
        self.asked.write(1)
    }

    /// The guest's last statistics, if it ever sent any.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Balloon {
    /// An empty balloon.
    ///
    /// # Errors
    /// When the host gives no event descriptor.
    pub fn new() -> io::Result<Self> {
        let handle = Handle {
            pages: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            statistics: Mutex::new(None),
            asked: EventFd::new(EFD_NONBLOCK)?,
        };
        Ok(Self { handle: Arc::new(handle), config: [0; CONFIG_SIZE] })
    }

    /// What the host uses it by.
    #[must_use]
    pub fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// Passes on what was asked for, and what the driver says that it has given.
    fn exchange(&self, config: &Config) -> io::Result<()> {
        let actual = u32::from_le_bytes(config.get(ACTUAL));
        self.handle.actual.store(actual, Ordering::SeqCst);
        config.change(NUM_PAGES, &self.handle.pages.load(Ordering::SeqCst).to_le_bytes())
    }

    /// Takes the statistics that the driver sent. Its buffer is kept: giving it back asks for the
    /// next (5.5.6.3).
    fn take_statistics(&self, ring: &mut Ring, held: &mut Option<u16>) -> Result<(), Broken> {
        ring.clear_kick();
        for _ in 0..BATCH {
            let Some(chain) = ring.take()? else { return Ok(()) };
            if let Some(unexpected) = held.replace(chain.head_index()) {
                // A driver has one buffer; another one is news of the same.
                ring.give_back(unexpected, 0)?;
            }
            let reader: Reader<'_> = chain.reader(ring.memory().as_ref())?;
            let mut last = self.handle.statistics.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(Statistics::read(reader));
        }
        // A driver that adds them as fast as they are taken must not keep us from the stop signal.
        Ok(ring.kick_again()?)
    }
}

/// Gives back the pages whose numbers the driver put into `chain`.
fn inflate(memory: &GuestMemoryMmap, chain: Chain) -> Result<u32, Broken> {
    let mut reader: Reader<'_> = chain.reader(memory)?;
    let mut run = Range::default();
    for _ in 0..MAX_PAGES {
        let mut number = [0; 4];
        // An unfinished number at the end is none.
        if reader.read_exact(&mut number).is_err() {
            break;
        }
        // Linux counts pages of 4 KiB, whatever its own page is (5.5.6).
        let page = u64::from(u32::from_le_bytes(number)) * PAGE;
        // Pages come one by one, mostly neighbours, the lower or the higher one first.
        if page == run.end {
            run.end = page + PAGE;
        } else if page.checked_add(PAGE) == Some(run.start) {
            run.start = page;
        } else {
            give_back(memory, run.start, run.end - run.start);
            run = page..page + PAGE;
        }
    }
    give_back(memory, run.start, run.end - run.start);
    Ok(0)
}

/// Gives back the free ranges that `chain` is made of (5.5.6.6).
fn report(memory: &GuestMemoryMmap, chain: Chain) -> Result<u32, Broken> {
    for range in chain.take(MAX_RANGES) {
        give_back(memory, range.addr().raw_value(), range.len().into());
    }
    // Nothing was written into them.
    Ok(0)
}

impl Device for Balloon {
    fn name(&self) -> &'static str {
        "virtio-balloon"
    }

    fn kind(&self) -> u32 {
        KIND
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn queue_features(&self) -> &'static [u64] {
        &[STATS_VQ, REPORTING]
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn config_writable(&self) -> Range<usize> {
        ACTUAL..CONFIG_SIZE
    }

    fn run(&mut self, mut active: Active) -> Result<(), Broken> {
        let poller = Poller::new()?;
        poller.add(active.stop.as_raw_fd(), EventSet::IN, STOP_TOKEN)?;
        poller.add(self.handle.asked.as_raw_fd(), EventSet::IN, ASKED_TOKEN)?;
        for (token, ring) in (0..).zip(&active.rings) {
            poller.add(ring.kick_fd(), EventSet::IN, token)?;
        }
        let statistics = active.features & STATS_VQ != 0;
        let mut held = None;
        let mut events = [EpollEvent::default(); QUEUES.len() + 2];
        self.exchange(&active.config)?;
        loop {
            let ready = poller.wait(&mut events)?;
            let ready = events.get(..ready).unwrap_or_default();
            if ready.iter().any(|event| event.data() == STOP_TOKEN) {
                return Ok(());
            }
            self.exchange(&active.config)?;
            for event in ready {
                let index = usize::try_from(event.data()).unwrap_or(usize::MAX);
                match (index, active.rings.get_mut(index)) {
                    (INFLATE, Some(ring)) => ring.serve(BATCH, inflate)?,
                    // The guest just uses them again: the host's pages come as they are touched.
                    (DEFLATE, Some(ring)) => ring.serve(BATCH, |_, _| Ok(0))?,
                    (STATISTICS, Some(ring)) if statistics => {
                        self.take_statistics(ring, &mut held)?;
                    }
                    (_, Some(ring)) => ring.serve(BATCH, report)?,
                    (_, None) => {
                        // Asked by the host. Fails only when nobody did.
                        let _ = self.handle.asked.read();
                        let ring = active.rings.get_mut(STATISTICS).filter(|_| statistics);
                        if let (Some(ring), Some(head)) = (ring, held.take()) {
                            ring.give_back(head, 0)?;
                            ring.notify()?;
                        }
                    }
                }
            }
        }
    }
}
