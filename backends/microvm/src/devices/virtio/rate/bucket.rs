//! One token bucket, as pure arithmetic on times that the caller gives.

use std::time::Duration;

/// How fast something may go: `size` tokens every `refill`, all of them at once if none were used
/// for that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that the bucket holds, at least 1. It is full at the start.
    pub size: u64,
    /// How long an empty bucket takes to fill, from [`MIN_REFILL`] to [`MAX_REFILL`].
    pub refill: Duration,
    /// Tokens on top of `size`, once in the bucket's life. They are used first.
    pub burst: u64,
}

/// A timer does not do shorter times well.
pub const MIN_REFILL: Duration = Duration::from_millis(1);
/// A year: enough, and its nanoseconds times any size are far from the end of 128 bits.
pub const MAX_REFILL: Duration = Duration::from_secs(366 * 24 * 3600);

/// A rate that can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Nothing would ever get through.
    #[error("a rate limit of 0 lets nothing through: leave it out for no limit")]
    Empty,
    /// Too short or too long.
    #[error("a rate limit refills in 1 ms to 366 days, not in {refill:?}")]
    Refill {
        /// What was asked for.
        refill: Duration,
    },
}

/// A bucket of tokens. What is taken from it between two points in time, in pieces no larger than
/// its size, is at most `size + burst` and what flowed in meanwhile.
#[derive(Debug)]
pub(super) struct Bucket {
    size: u64,
    refill: u128,
    burst: u64,
    /// In tokens times nanoseconds of `refill`: what flows in each nanosecond is then a whole
    /// number, `size`, and nothing is lost to rounding. Below zero after one piece larger than the
    /// bucket, which has to be paid off.
    level: i128,
    filled: Duration,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: Rate, now: Duration) -> Result<Self, RateError> {
        if rate.size == 0 {
            return Err(RateError::Empty);
        }
        if !(MIN_REFILL..=MAX_REFILL).contains(&rate.refill) {
            return Err(RateError::Refill { refill: rate.refill });
        }
        let mut bucket = Self {
            size: rate.size,
            refill: rate.refill.as_nanos(),
            burst: rate.burst,
            level: 0,
            filled: now,
        };
        bucket.level = bucket.worth(rate.size);
        Ok(bucket)
    }

    /// How long until `tokens` can be taken: nothing when they can now. More than the bucket holds
    /// can be taken when it is full.
    pub(super) fn wait(&mut self, tokens: u64, now: Duration) -> Duration {
        self.fill(now);
        let needed = self.worth(tokens.saturating_sub(self.burst).min(self.size));
        let missing = u128::try_from(needed - self.level).unwrap_or(0);
        let nanos = missing.div_ceil(u128::from(self.size));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes `tokens`. To be called when there is nothing to [`Bucket::wait`] for.
    pub(super) fn take(&mut self, tokens: u64) {
        let extra = tokens.min(self.burst);
        self.burst -= extra;
        self.level -= self.worth(tokens - extra);
    }

    fn fill(&mut self, now: Duration) {
        // A clock that goes back adds nothing.
        let passed = now.saturating_sub(self.filled).as_nanos();
        let flow = passed.saturating_mul(u128::from(self.size));
        let flow = i128::try_from(flow).unwrap_or(i128::MAX);
        self.level = self.level.saturating_add(flow).min(self.worth(self.size));
        self.filled = self.filled.max(now);
    }

    /// Below 2^64 times a year's nanoseconds, 2^55: fits.
    fn worth(&self, tokens: u64) -> i128 {
        i128::try_from(u128::from(tokens) * self.refill).unwrap_or(i128::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(size: u64, refill: Duration, burst: u64) -> Bucket {
        Bucket::new(Rate { size, refill, burst }, Duration::ZERO).unwrap()
    }

    #[test]
    fn it_refills_exactly_and_no_more_than_it_holds() {
        let mut bucket = bucket(3, SECOND, 0);
        assert_eq!(bucket.wait(3, Duration::ZERO), Duration::ZERO);
        bucket.take(3);
        // A third of a second is no whole number of nanoseconds: rounded up, so that the wait is
        // never one too few.
        assert_eq!(bucket.wait(1, Duration::ZERO), Duration::from_nanos(333_333_334));
        assert_eq!(bucket.wait(1, Duration::from_nanos(333_333_333)), Duration::from_nanos(1));
        assert_eq!(bucket.wait(1, Duration::from_nanos(333_333_334)), Duration::ZERO);
        assert_eq!(bucket.wait(3, SECOND), Duration::ZERO);
        assert_eq!(bucket.wait(3, 100 * SECOND), Duration::ZERO);
        bucket.take(3);
        assert_ne!(bucket.wait(1, 100 * SECOND), Duration::ZERO);
    }

    #[test]
    fn looking_often_loses_nothing() {
        let mut bucket = bucket(7, SECOND, 0);
        bucket.take(7);
        for nanos in (0..1_000_000_000).step_by(99_991) {
            bucket.wait(7, Duration::from_nanos(nanos));
        }
        assert_eq!(bucket.wait(7, SECOND - Duration::from_nanos(1)), Duration::from_nanos(1));
        assert_eq!(bucket.wait(7, SECOND), Duration::ZERO);
    }

    #[test]
    fn a_burst_comes_once_and_first() {
        let mut bucket = bucket(10, SECOND, 5);
        assert_eq!(bucket.wait(15, Duration::ZERO), Duration::ZERO);
        bucket.take(5);
        assert_eq!(bucket.wait(10, Duration::ZERO), Duration::ZERO);
        bucket.take(10);
        assert_eq!(bucket.wait(10, Duration::ZERO), SECOND);
        bucket.wait(0, 10 * SECOND);
        bucket.take(10);
        assert_eq!(bucket.wait(1, 10 * SECOND), SECOND / 10);
    }

    #[test]
    fn a_piece_larger_than_the_bucket_waits_for_a_full_one_and_is_paid_off() {
        let mut bucket = bucket(10, SECOND, 0);
        bucket.take(1);
        assert_eq!(bucket.wait(40, Duration::ZERO), SECOND / 10);
        assert_eq!(bucket.wait(40, SECOND), Duration::ZERO);
        bucket.take(40);
        assert_eq!(bucket.wait(1, SECOND), 3 * SECOND + SECOND / 10);
        assert_eq!(bucket.wait(10, SECOND), 4 * SECOND);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut bucket = bucket(u64::MAX, MAX_REFILL, u64::MAX);
        bucket.take(u64::MAX);
        assert_eq!(bucket.wait(u64::MAX, Duration::MAX), Duration::ZERO);
        bucket.take(u64::MAX);
        assert_eq!(bucket.wait(u64::MAX, Duration::ZERO), MAX_REFILL);
        let mut small =
            Bucket::new(Rate { size: 1, refill: MAX_REFILL, burst: 0 }, Duration::ZERO).unwrap();
        for _ in 0..3 {
            small.take(u64::MAX);
        }
        assert_eq!(small.wait(1, Duration::ZERO), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn rates_that_can_not_be_are_refused() {
        let refuse = |size, refill| {
            Bucket::new(Rate { size, refill, burst: 0 }, Duration::ZERO).map(drop).unwrap_err()
        };
        assert_eq!(refuse(0, SECOND), RateError::Empty);
        assert!(matches!(refuse(1, Duration::ZERO), RateError::Refill { .. }));
        assert!(matches!(refuse(1, Duration::MAX), RateError::Refill { .. }));
    }

    proptest! {
        /// In pieces no larger than the bucket: never more than is in it and flows in, whatever
        /// the times; and whoever waits as long as told gets it.
        #[test]
        fn never_more_than_size_and_rate_times_time(
            size in 1..=u64::MAX,
            refill in 1_000_000..=10_000_000_000u64,
            burst in prop_oneof![Just(0), any::<u64>()],
            steps in proptest::collection::vec(
                (0..20_000_000_000u64, 0.0..=1.0f64, any::<bool>()), 1..50),
        ) {
            let rate = Rate { size, refill: Duration::from_nanos(refill), burst };
            let start = Duration::from_secs(5);
            let mut bucket = Bucket::new(rate, start).unwrap();
            let mut now = start;
            let mut taken = 0u128;
            for (passed, share, patient) in steps {
                now += Duration::from_nanos(passed);
                #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation,
                        clippy::cast_sign_loss)]
                let piece = ((size as f64 * share) as u64).min(size);
                let wait = bucket.wait(piece, now);
                if wait > Duration::ZERO {
                    if !patient {
                        continue;
                    }
                    now += wait - Duration::from_nanos(1);
                    prop_assert_eq!(bucket.wait(piece, now), Duration::from_nanos(1));
                    now += Duration::from_nanos(1);
                    prop_assert_eq!(bucket.wait(piece, now), Duration::ZERO);
                }
                bucket.take(piece);
                taken += u128::from(piece);
                let flow = u128::from(size) * (now - start).as_nanos() / u128::from(refill);
                prop_assert!(taken <= u128::from(size) + u128::from(burst) + flow);
            }
        }
    }
}
