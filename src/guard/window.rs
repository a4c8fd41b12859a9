//! How many of the latest requests failed, counted in ten buckets of exact time.
//!
//! A ring of buckets as in Hystrix's `HystrixRollingNumber` (10 buckets), but a bucket is one atomic
//! word that holds its time beside its counts: it cannot be seen half rolled over, and nobody has to
//! roll it over in time. The counts are those of the bucket that `now` is in and of the nine before
//! it: of the last 90 % to 100 % of the length.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::clock::Nanos;

/// Requests and failures of the latest time; shared by workers. `Relaxed`: a word says all about
/// its bucket, nothing is published through it.
///
/// An observation is one load and one addition, nothing else (`observe`). Aligned to a cache line,
/// so that what lies beside it is not torn from the other workers with each.
#[derive(Debug)]
#[repr(align(64))]
pub struct Window {
    buckets: [AtomicU64; BUCKETS as usize],
    /// Time of one bucket.
    width: Nanos,
}

/// What a window counted; its text is "12 of 20 requests".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests.
    pub total: u32,
    /// Those of them that failed; at most `total`.
    pub failures: u32,
}

/// A share of failures that is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Above this share, 0.0 to 1.0; nothing is above 1.0.
    pub above: f64,
    /// Of at least so many requests.
    pub min_requests: u32,
    /// In this time.
    pub window: Nanos,
}

/// Ten: the oldest tenth of the time leaves at once, which no threshold notices, and all of it fits
/// two cache lines.
const BUCKETS: u64 = 10;

/// Bits of a count, two counts a word.
const COUNT_BITS: u32 = 22;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const ONE_REQUEST: u64 = 1 << COUNT_BITS;

/// What the counts leave for the time: the lap, which is the number of whole lengths before the
/// bucket; its place in the ring says the rest. 20 bits of laps of 10 s are 121 days.
const LAP_BITS: u32 = 64 - 2 * COUNT_BITS;
const LAP_MASK: u64 = (1 << LAP_BITS) - 1;

/// A bucket with so many requests is full (4,128,768: 4 million a second for a length of 10 s,
/// 11,000 for one of an hour). Both its counts are then halved, so its share stays what it was, the
/// latest weighing more. The 65,536 up to where the bits end are for additions under way: one a
/// thread.
const FULL: u64 = (1 << COUNT_BITS) - (1 << 16);

/// A bucket is taken for one of the future, and the observation for late, when it is ahead by so
/// many laps at most; anything else is of the past. Not half of the laps: an endpoint that came back
/// after 60 quiet days would not be heard for another 60.
const AHEAD: u64 = 8;

// === impl Window ===

impl Window {
    /// A window over the last `length`, empty.
    pub fn new(length: Nanos) -> Self {
        Self {
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            // Rounded up; at least 1 ns, as it divides.
            width: length.div_ceil(BUCKETS).max(1),
        }
    }

    /// Counts one request that ended at `now`. One that is late by a whole length or more is not
    /// counted: its bucket belongs to another time.
    #[inline]
    pub fn observe(&self, failed: bool, now: Nanos) {
        let (slot, lap) = self.locate(now);
        let bucket = &self.buckets[slot];
        let one = ONE_REQUEST | u64::from(failed);
        let mut word = bucket.load(Ordering::Relaxed);
        loop {
            let total = total(word);
            let next = if total == 0 {
                lap << (2 * COUNT_BITS) | one
            } else if lap_of(word) == lap {
                if total < FULL {
                    // Never fails, however many workers add. Should the bucket be rolled over
                    // between the load and this, the request counts for the next length.
                    bucket.fetch_add(one, Ordering::Relaxed);
                    return;
                }
                pack(lap, total / 2, failures(word) / 2) + one
            } else if lap_of(word).wrapping_sub(lap) & LAP_MASK <= AHEAD {
                return;
            } else {
                lap << (2 * COUNT_BITS) | one
            };
            let stored =
                bucket.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed);
            match stored {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// The counts as of `now`; what was observed at a later time is not in them.
    pub fn counts(&self, now: Nanos) -> Counts {
        let (current, lap) = self.locate(now);
        let mut counts = Counts::default();
        for (slot, bucket) in self.buckets.iter().enumerate() {
            let word = bucket.load(Ordering::Relaxed);
            // Slots behind the current one still hold the lap before.
            let wanted = lap.wrapping_sub(u64::from(slot > current)) & LAP_MASK;
            if lap_of(word) == wanted {
                // Ten times 22 bits fit.
                counts.total += total(word) as u32;
                counts.failures += failures(word) as u32;
            }
        }
        counts
    }

    /// Forgets everything; observations under way may be forgotten with it or not.
    pub fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    /// The slot of the bucket that `now` is in, and its lap.
    #[inline]
    fn locate(&self, now: Nanos) -> (usize, u64) {
        let epoch = now / self.width;
        let slot = (epoch % BUCKETS) as usize;
        (slot, epoch / BUCKETS & LAP_MASK)
    }
}

// === impl Counts ===

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} requests", self.failures, self.total)
    }
}

// === impl Ratio ===

impl Ratio {
    /// Whether `counts` are too much. For judging at a failure: between two failures the share only
    /// falls.
    pub fn is_exceeded_by(&self, counts: Counts) -> bool {
        counts.total >= self.min_requests
            && f64::from(counts.failures) > self.above * f64::from(counts.total)
    }
}

fn pack(lap: u64, total: u64, failures: u64) -> u64 {
    lap << (2 * COUNT_BITS) | total << COUNT_BITS | failures
}

#[inline]
fn lap_of(word: u64) -> u64 {
    word >> (2 * COUNT_BITS)
}

#[inline]
fn total(word: u64) -> u64 {
    word >> COUNT_BITS & COUNT_MASK
}

#[inline]
fn failures(word: u64) -> u64 {
    word & COUNT_MASK
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const S: Nanos = 1_000_000_000;
    const LENGTH: Nanos = 10 * S;

    fn counts(total: u32, failures: u32) -> Counts {
        Counts { total, failures }
    }

    #[test]
    fn it_counts_the_bucket_of_now_and_the_nine_before() {
        let window = Window::new(LENGTH);
        assert_eq!(window.counts(0), counts(0, 0));
        window.observe(true, 0);
        window.observe(false, S - 1);
        window.observe(false, S);
        assert_eq!(window.counts(S), counts(3, 1));
        assert_eq!(window.counts(LENGTH - 1), counts(3, 1));
        assert_eq!(window.counts(LENGTH), counts(1, 0), "the first bucket left");
        assert_eq!(window.counts(11 * S), counts(0, 0));
    }

    #[test]
    fn what_is_later_than_now_is_not_counted() {
        let window = Window::new(LENGTH);
        window.observe(true, 21 * S);
        assert_eq!(window.counts(20 * S), counts(0, 0));
        assert_eq!(window.counts(11 * S), counts(0, 0), "the same slot");
        assert_eq!(window.counts(21 * S), counts(1, 1));
    }

    #[test]
    fn a_late_observation_counts_in_its_own_bucket_or_not_at_all() {
        let window = Window::new(LENGTH);
        window.observe(false, 25 * S);
        window.observe(true, 24 * S);
        assert_eq!(window.counts(25 * S), counts(2, 1));
        window.observe(true, 15 * S);
        assert_eq!(window.counts(25 * S), counts(2, 1), "its slot is taken");
        assert_eq!(window.counts(24 * S), counts(1, 1));
    }

    #[test]
    fn a_reset_forgets_everything_at_any_time() {
        for lap in [0, 1, LAP_MASK - AHEAD, LAP_MASK, LAP_MASK + 1] {
            let window = Window::new(LENGTH);
            let now = lap * LENGTH + 3 * S;
            window.observe(true, now);
            assert_eq!(window.counts(now), counts(1, 1), "lap {lap}");
            window.reset();
            assert_eq!(window.counts(now), counts(0, 0), "lap {lap}");
            window.observe(false, now);
            assert_eq!(window.counts(now), counts(1, 0), "lap {lap}");
        }
    }

    /// Laps are kept modulo 2^20: what is quiet for long must be heard again, at the latest after
    /// the few laps that count as ahead.
    #[test]
    fn after_any_quiet_time_it_counts_again() {
        for quiet in [1, 2, LAP_MASK / 2, LAP_MASK / 2 + 1, LAP_MASK - AHEAD] {
            let window = Window::new(LENGTH);
            window.observe(true, 5 * LENGTH);
            let now = (5 + quiet) * LENGTH;
            assert_eq!(window.counts(now), counts(0, 0), "quiet for {quiet} laps");
            window.observe(false, now);
            assert_eq!(window.counts(now), counts(1, 0), "quiet for {quiet} laps");
        }
        let window = Window::new(LENGTH);
        window.observe(true, 5 * LENGTH);
        let end_of_ahead = (5 + LAP_MASK + 1 + 1) * LENGTH;
        window.observe(false, end_of_ahead);
        assert_eq!(window.counts(end_of_ahead), counts(1, 0));
    }

    #[test]
    fn a_full_bucket_is_halved_and_its_share_stays() {
        let window = Window::new(LENGTH);
        let word = pack(0, FULL - 1, FULL / 4);
        window.buckets[0].store(word, Ordering::Relaxed);
        window.observe(true, 0);
        assert_eq!(window.counts(0), counts(FULL as u32, FULL as u32 / 4 + 1));
        window.observe(true, 0);
        let half = FULL as u32 / 2;
        assert_eq!(window.counts(0), counts(half + 1, FULL as u32 / 8 + 1));
        // All failed: failures never exceed requests.
        window.buckets[0].store(pack(0, FULL + 1, FULL + 1), Ordering::Relaxed);
        window.observe(true, 0);
        assert_eq!(window.counts(0), counts(half + 1, half + 1));
    }

    #[test]
    fn ten_full_buckets_do_not_overflow() {
        let window = Window::new(LENGTH);
        for bucket in &window.buckets {
            let word = pack(0, COUNT_MASK, COUNT_MASK);
            bucket.store(word, Ordering::Relaxed);
        }
        let most = 10 * COUNT_MASK as u32;
        assert_eq!(window.counts(LENGTH - 1), counts(most, most));
    }

    #[test]
    fn lengths_that_ten_does_not_divide_are_rounded_up() {
        for (length, width) in [
            (0, 1),
            (1, 1),
            (10, 1),
            (11, 2),
            (Nanos::MAX, Nanos::MAX / 10 + 1),
        ] {
            let window = Window::new(length);
            assert_eq!(window.width, width);
            window.observe(true, Nanos::MAX);
            assert_eq!(window.counts(Nanos::MAX), counts(1, 1));
        }
    }

    #[test]
    fn a_ratio_wants_enough_requests_and_more_than_its_share() {
        let ratio = Ratio {
            above: 0.5,
            min_requests: 10,
            window: LENGTH,
        };
        assert!(!ratio.is_exceeded_by(counts(9, 9)));
        assert!(!ratio.is_exceeded_by(counts(10, 5)));
        assert!(ratio.is_exceeded_by(counts(10, 6)));
        let never = Ratio {
            above: 1.0,
            ..ratio
        };
        assert!(!never.is_exceeded_by(counts(10, 10)));
        let any = Ratio {
            above: 0.0,
            min_requests: 0,
            window: LENGTH,
        };
        assert!(!any.is_exceeded_by(counts(0, 0)));
        assert!(any.is_exceeded_by(counts(1, 1)));
    }

    #[test]
    fn threads_lose_no_count() {
        const THREADS: u64 = 4;
        const EACH: u64 = 20_000;
        let window = Window::new(LENGTH);
        // A lap other than the first, so that the threads race to roll the buckets over as well.
        let start = 7 * LENGTH;
        for slot in 0..10 {
            window.observe(true, start - LENGTH + slot * S);
        }
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let window = &window;
                scope.spawn(move || {
                    for i in 0..EACH {
                        let now = start + (i + thread) % 10 * S;
                        window.observe(i % 4 == 0, now);
                    }
                });
            }
        });
        let sum = (THREADS * EACH) as u32;
        assert_eq!(window.counts(start + 9 * S), counts(sum, sum / 4));
    }

    /// Every observation by itself, the module docs read aloud.
    #[derive(Default)]
    struct Model {
        seen: Vec<(u64, bool)>,
    }

    impl Model {
        fn observe(&mut self, failed: bool, epoch: u64) {
            let same_slot = |other: u64| other % BUCKETS == epoch % BUCKETS;
            if self.seen.iter().any(|&(e, _)| same_slot(e) && e > epoch) {
                return;
            }
            self.seen.retain(|&(e, _)| !same_slot(e) || e == epoch);
            self.seen.push((epoch, failed));
        }

        fn counts(&self, epoch: u64) -> Counts {
            let last = || {
                self.seen
                    .iter()
                    .filter(|(e, _)| *e <= epoch && e + BUCKETS > epoch)
            };
            counts(
                last().count() as u32,
                last().filter(|(_, failed)| *failed).count() as u32,
            )
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_model(
            length in 1..5_000u64,
            start in 0..1_000_000u64,
            // Forward by up to 3 lengths, mostly little, and back by up to one and a half.
            steps in vec((any::<bool>(), prop_oneof![0..100i64, -15..1i64, 0..3_000i64]), 1..200),
        ) {
            let window = Window::new(length);
            let mut model = Model::default();
            let mut now = start;
            for (failed, step) in steps {
                // In thousandths of the length; back is in tenths.
                let step = if step < 0 { step * 100 } else { step };
                let moved = step * length as i64 / 1_000;
                now = now.saturating_add_signed(moved);
                let epoch = now / window.width;
                window.observe(failed, now);
                model.observe(failed, epoch);
                prop_assert_eq!(window.counts(now), model.counts(epoch));
            }
        }
    }
}
