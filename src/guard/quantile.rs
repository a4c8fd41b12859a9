//! A learnt percentile of response times, for hedging; owned by one worker.
//!
//! Counts in log-linear buckets, as HdrHistogram's (Tene): each octave is cut in 32. A percentile is
//! the upper edge of its bucket, so it is up to 1/32 = 3.2 % above the true one and never below. That
//! side matters: when every response takes 10 ms, a percentile of 9.9 ms would hedge them all.
//!
//! Old samples fade: all counts are halved each 2,048 samples.

use std::cell::Cell;

use crate::base::clock::Nanos;

/// Percentiles of what was observed lately. 3.5 kB; allocates nothing after it was made.
#[derive(Debug)]
pub struct Quantile {
    /// In parts of a sample ([`ONE`]).
    counts: Box<[u32; BUCKETS]>,
    /// Sum of the counts.
    total: u64,
    /// Samples since the last halving.
    since_fade: u32,
    /// Samples ever, up to [`ENOUGH`].
    known: u32,
    /// The percentile that was asked for last, and its value, until it is too old.
    last: Cell<Option<(u8, Nanos)>>,
}

/// log2 of the buckets of an octave.
const CUT: u32 = 5;

/// log2 of the finest bucket's width: 64 ns, so that the error holds from 2 us on.
const FINEST: u32 = 6;

/// log2 of the highest latency that is told from higher ones: 137 s, above any time-out.
const HIGHEST: u32 = 37;

/// The first octaves are one linear run of 2^(CUT+1) buckets, each further octave has 2^CUT.
const BUCKETS: usize = ((HIGHEST - FINEST - CUT) as usize + 1) << CUT;

/// A sample in parts. More than one, because halving cuts off what is below a part: the tail is made of
/// buckets with a single sample each, which would all be gone at the first halving. With 256 parts a
/// sample is followed until it weighs 1/256.
const ONE: u32 = 256;

/// Samples from one halving to the next. Between 2,048 and 4,096 samples' worth count, so a 99th
/// percentile rests on 20 of them (its rank is then right to 1/sqrt(20) = 22 % of the tail). After a
/// change for the worse a 95th percentile follows within 5 % of 4,096 = 205 samples; after one for the
/// better when 95 % are forgotten, log2(20) = 4.3 halvings.
const FADE: u32 = 2_048;

/// Samples before there is a percentile. Fewer would leave none above a 99th; and of a 95th of 100
/// samples, the share above is 5 % with a standard deviation of sqrt(0.05 * 0.95 / 100) = 2.2 %: twice
/// of that astray, fewer than 10 % are hedged, half of the default budget.
const ENOUGH: u32 = 100;

/// Samples for which a computed percentile is used again: 64 of at least 2,048 can move a rank
/// by 3 %, and 800 buckets are then walked for one request in 64.
const REUSE: u32 = 64;

// === impl Quantile ===

impl Default for Quantile {
    fn default() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            total: 0,
            since_fade: 0,
            known: 0,
            last: Cell::new(None),
        }
    }
}

impl Quantile {
    /// Nothing observed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a response that came after `latency`.
    #[inline]
    pub fn observe(&mut self, latency: Nanos) {
        self.counts[bucket(latency)] += ONE;
        self.total += u64::from(ONE);
        self.known = (self.known + 1).min(ENOUGH);
        self.since_fade += 1;
        // Also at each fade, since REUSE divides FADE.
        if self.since_fade.is_multiple_of(REUSE) {
            self.last.set(None);
        }
        if self.since_fade == FADE {
            self.fade();
        }
    }

    /// What `p` percent of the responses (1 to 100; others count as the nearest) stayed below, as of
    /// at most 64 samples ago; `None` before 100 were observed.
    #[inline]
    pub fn percentile(&self, p: u8) -> Option<Nanos> {
        if self.known < ENOUGH {
            return None;
        }
        if let Some((last, value)) = self.last.get()
            && last == p
        {
            return Some(value);
        }
        let value = self.compute(p.clamp(1, 100));
        self.last.set(Some((p, value)));
        Some(value)
    }

    /// From the top, because percentiles for hedging are near it.
    fn compute(&self, p: u8) -> Nanos {
        let may_be_above = self.total * u64::from(100 - p) / 100;
        let mut above = 0;
        for (bucket, &count) in self.counts.iter().enumerate().rev() {
            above += u64::from(count);
            if above > may_be_above {
                return edge(bucket);
            }
        }
        // Never: less than the total may be above.
        edge(0)
    }

    fn fade(&mut self) {
        self.since_fade = 0;
        self.total = 0;
        for count in self.counts.iter_mut() {
            *count /= 2;
            self.total += u64::from(*count);
        }
    }
}

/// The bucket of `latency`; the last one has all from 137 s on.
#[inline]
fn bucket(latency: Nanos) -> usize {
    let units = latency >> FINEST;
    // By how much the octave is coarser than the finest; 0 for the first two.
    let shift = (u64::BITS - (units >> CUT).leading_zeros()).saturating_sub(1);
    let bucket = ((shift as usize) << CUT) + (units >> shift) as usize;
    bucket.min(BUCKETS - 1)
}

/// The upper edge of a bucket, the first latency of the next.
fn edge(bucket: usize) -> Nanos {
    let shift = (bucket >> CUT).saturating_sub(1);
    let units = bucket - (shift << CUT) + 1;
    (units as u64) << shift << FINEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::rng::Rng;

    const MS: Nanos = 1_000_000;

    fn observed(latencies: impl IntoIterator<Item = Nanos>) -> Quantile {
        let mut quantile = Quantile::new();
        for latency in latencies {
            quantile.observe(latency);
        }
        quantile
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!(bucket(0), 0);
        for this in 0..BUCKETS - 1 {
            assert_eq!(bucket(edge(this) - 1), this);
            assert_eq!(bucket(edge(this)), this + 1);
        }
        assert_eq!(edge(BUCKETS - 1), 1 << HIGHEST);
        assert_eq!(bucket(1 << HIGHEST), BUCKETS - 1);
        assert_eq!(bucket(Nanos::MAX), BUCKETS - 1);
    }

    #[test]
    fn nothing_is_known_before_a_hundred_samples() {
        let mut quantile = observed([MS; 99]);
        assert_eq!(quantile.percentile(95), None);
        quantile.observe(MS);
        assert!(quantile.percentile(95).is_some());
        assert_eq!(Quantile::new().percentile(50), None);
    }

    #[test]
    fn equal_latencies_are_never_above_their_percentile() {
        for latency in [0, 1, 63, 64, 1_000, 2 * MS, 10 * MS, 10_000 * MS] {
            let quantile = observed([latency; 100]);
            for p in [1, 50, 95, 99, 100] {
                let value = quantile.percentile(p).unwrap();
                assert!(value > latency);
                assert!(
                    value <= latency + latency / 32 + 64,
                    "{value} for {latency}"
                );
            }
        }
    }

    #[test]
    fn percentiles_out_of_range_are_the_nearest() {
        let quantile = observed((1..=100).map(|n| n * MS));
        assert_eq!(quantile.percentile(0), quantile.percentile(1));
        assert_eq!(quantile.percentile(255), quantile.percentile(100));
        assert!(quantile.percentile(1) < quantile.percentile(100));
    }

    #[test]
    fn a_change_for_the_worse_is_followed_in_hundreds_of_samples() {
        let mut quantile = observed(vec![MS; 100_000]);
        assert!(quantile.percentile(95).unwrap() < 2 * MS);
        let needed = (1..100_000).find(|_| {
            quantile.observe(50 * MS);
            quantile.percentile(95).unwrap() > 50 * MS
        });
        assert!(needed.unwrap() <= 300, "{needed:?}");
    }

    #[test]
    fn a_change_for_the_better_is_followed_within_six_halvings() {
        let mut quantile = observed(vec![50 * MS; 100_000]);
        let needed = (1..100_000).find(|_| {
            quantile.observe(MS);
            quantile.percentile(95).unwrap() < 2 * MS
        });
        assert!(needed.unwrap() <= 6 * FADE, "{needed:?}");
    }

    /// Seen red with samples of one part: each halving took the whole tail, and the 99th percentile
    /// was that of the body.
    #[test]
    fn a_thin_tail_over_many_buckets_survives_fading() {
        let mut rng = Rng::new(11);
        let mut quantile = Quantile::new();
        for n in 1..20_000u64 {
            let tail = n.is_multiple_of(50);
            quantile.observe(if tail {
                (100 + rng.below(10_000) as u64) * MS
            } else {
                MS
            });
            if n > 2_000 {
                assert!(
                    quantile.percentile(99).unwrap() > 100 * MS,
                    "sample {n}, seed 11"
                );
                assert!(
                    quantile.percentile(95).unwrap() < 2 * MS,
                    "sample {n}, seed 11"
                );
            }
        }
    }

    #[test]
    fn a_value_is_used_again_for_at_most_64_samples() {
        let mut quantile = observed([MS; 128]);
        let before = quantile.percentile(50);
        for _ in 0..63 {
            quantile.observe(100 * MS);
        }
        assert_eq!(quantile.percentile(99), quantile.percentile(99));
        assert!(
            quantile.percentile(99) > before,
            "another percentile is computed"
        );
        let mut quantile = observed([MS; 128]);
        assert_eq!(quantile.percentile(99), before);
        for _ in 0..63 {
            quantile.observe(100 * MS);
            assert_eq!(quantile.percentile(99), before);
        }
        quantile.observe(100 * MS);
        assert!(quantile.percentile(99) > before);
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_samples(
            latencies in proptest::collection::vec(2_048u64..1 << 37, 100..1_000),
            p in 1u8..=100,
        ) {
            let quantile = observed(latencies.iter().copied());
            let mut sorted = latencies;
            sorted.sort_unstable();
            // The least sample with no more than (100 - p) percent above it.
            let above = sorted.len() * usize::from(100 - p) / 100;
            let truth = sorted[sorted.len() - 1 - above];
            let value = quantile.percentile(p).unwrap();
            prop_assert!(value > truth && value <= truth + truth / 32 + 64, "{} for {}", value, truth);
        }

        #[test]
        fn no_sample_is_too_much(latencies in proptest::collection::vec(any::<u64>(), 100..500)) {
            prop_assert!(observed(latencies).percentile(95).is_some());
        }
    }
}
