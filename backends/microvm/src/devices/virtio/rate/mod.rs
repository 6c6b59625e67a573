//! Rate limits of a device's queue: bytes and operations, each a token bucket.
//!
//! A queue that has run dry sleeps on the limiter's timer and is looked at again when there is
//! enough for what it wants to do next.
//!
//! Calls: timerfd_create at the start; timerfd_settime and read (of the timer). The clock is
//! clock_gettime, in the vDSO, or else a call too.

mod bucket;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

pub use bucket::{MAX_REFILL, MIN_REFILL, Rate, RateError};

use bucket::Bucket;

/// The limits of one queue; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of data.
    pub bytes: Option<Rate>,
    /// Requests or packets.
    pub operations: Option<Rate>,
}

/// Why a limiter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LimiterError {
    /// A rate that makes no sense.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The host gave no timer.
    #[error("can't make a timer")]
    Timer(#[from] io::Error),
}

/// Holds a queue to its limits.
#[derive(Debug)]
pub(super) struct Limiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
    /// There is one when there is a limit.
    timer: Option<TimerFd>,
    clock: Clock,
}

/// Tells the time since some beginning.
#[derive(Debug)]
enum Clock {
    Monotonic(Instant),
    #[cfg(test)]
    Given(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    fn now(&self) -> Duration {
        match self {
            Self::Monotonic(start) => start.elapsed(),
            #[cfg(test)]
            Self::Given(nanos) => {
                Duration::from_nanos(nanos.load(std::sync::atomic::Ordering::SeqCst))
            }
        }
    }
}

impl Limiter {
    /// A limiter with full buckets.
    pub(super) fn new(limits: Limits) -> Result<Self, LimiterError> {
        Self::with_clock(limits, Clock::Monotonic(Instant::now()))
    }

    /// One whose time, in nanoseconds, a test tells.
    #[cfg(test)]
    pub(super) fn with_time(
        limits: Limits,
        nanos: std::sync::Arc<std::sync::atomic::AtomicU64>,
    ) -> Result<Self, LimiterError> {
        Self::with_clock(limits, Clock::Given(nanos))
    }

    fn with_clock(limits: Limits, clock: Clock) -> Result<Self, LimiterError> {
        let now = clock.now();
        let bucket = |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate, now)).transpose();
        let timer = match limits {
            Limits { bytes: None, operations: None } => None,
            _ => Some(
                TimerFd::new(
                    ClockId::CLOCK_MONOTONIC,
                    TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
                )
                .map_err(io::Error::from)?,
            ),
        };
        let (bytes, operations) = (bucket(limits.bytes)?, bucket(limits.operations)?);
        Ok(Self { bytes, operations, timer, clock })
    }

    /// Readable when it is time to try again; nothing when there is no limit.
    pub(super) fn timer_fd(&self) -> Option<i32> {
        self.timer.as_ref().map(|timer| timer.as_fd().as_raw_fd())
    }

    /// Takes one operation of `bytes`, or sets the timer to when it can be taken and says no.
    ///
    /// # Errors
    /// When the timer can't be set.
    pub(super) fn admit(&mut self, bytes: u64) -> io::Result<bool> {
        let Some(timer) = &self.timer else { return Ok(true) };
        let now = self.clock.now();
        let wait = |bucket: &mut Option<Bucket>, tokens| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait(tokens, now))
        };
        let wait = wait(&mut self.bytes, bytes).max(wait(&mut self.operations, 1));
        if wait > Duration::ZERO {
            // The kernel takes no times near the end of its own count.
            let wait = TimeSpec::from_duration(wait.min(MAX_REFILL));
            timer.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
            return Ok(false);
        }
        for (bucket, tokens) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.take(tokens);
            }
        }
        Ok(true)
    }

    /// Makes the timer unreadable again. To be called when it was readable.
    pub(super) fn clear_timer(&self) {
        if let Some(timer) = &self.timer {
            // Fails only when it was not readable, after it was set anew.
            let _ = nix::unistd::read(timer, &mut [0; 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rate(size: u64, refill: Duration) -> Option<Rate> {
        Some(Rate { size, refill, burst: 0 })
    }

    #[test]
    fn what_one_bucket_refuses_costs_nothing_in_the_other() {
        let time = Arc::new(AtomicU64::new(0));
        let limits = Limits {
            bytes: rate(1000, Duration::from_secs(1)),
            operations: rate(2, Duration::from_secs(1)),
        };
        let mut limiter = Limiter::with_time(limits, Arc::clone(&time)).unwrap();
        assert!(limiter.admit(600).unwrap());
        assert!(!limiter.admit(600).unwrap());
        assert!(!limiter.admit(600).unwrap());
        // The second operation is still there.
        assert!(limiter.admit(400).unwrap());
        assert!(!limiter.admit(0).unwrap());
        time.store(500_000_000, Ordering::SeqCst);
        assert!(limiter.admit(0).unwrap());
    }

    #[test]
    fn the_timer_wakes_when_there_is_enough() {
        let limits = Limits { bytes: rate(100, Duration::from_millis(100)), operations: None };
        let mut limiter = Limiter::new(limits).unwrap();
        assert!(limiter.admit(100).unwrap());
        let begun = Instant::now();
        while !limiter.admit(50).unwrap() {
            let timer = limiter.timer.as_ref().unwrap();
            let mut fds = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)).unwrap(), 1);
            limiter.clear_timer();
        }
        assert!(begun.elapsed() >= Duration::from_millis(45), "{:?}", begun.elapsed());
    }

    #[test]
    fn no_limit_no_timer() {
        let mut limiter = Limiter::new(Limits::default()).unwrap();
        assert_eq!(limiter.timer_fd(), None);
        assert!(limiter.admit(u64::MAX).unwrap());
    }
}
