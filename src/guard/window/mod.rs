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
/// An observation is one load and one addition to a word that all workers add to. Aligned to a cache
/// line, so that what lies beside it is not torn from the other workers with each.
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
/// bucket; its place in the ring says the rest. 20 bits of laps of 10 s are 121 days; after a quiet
/// time of exactly that, to a bucket, what was counted before it would count again.
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
        (slot, (epoch / BUCKETS) & LAP_MASK)
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
mod tests;
