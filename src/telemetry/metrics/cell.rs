//! The cells that workers write: counters, gauges, histograms, and one padded set for each worker.
//!
//! Every cell has ONE writer, the worker that owns it: an update is a relaxed load and a relaxed
//! store (two plain moves, no lock prefix). `Relaxed` suffices everywhere here: nothing is published
//! through a cell, a scrape only wants a recent value of each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::base::clock::Nanos;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down.
///
/// One worker may add what another takes away (a connection handed over): only the sum over
/// workers means something then, and it is exact, because cells wrap.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// Upper bounds of the buckets of every duration, in nanoseconds; inclusive, as `le` is.
///
/// 1-2.5-5 steps from 100 us (a connect within a rack) to 10 s, then 30 s (the usual deadline) and
/// 120 s (long polls). One set for all families, so that quantiles can be compared. Any two bounds
/// are at least a factor of two apart: [`Histogram::observe`] relies on it.
pub const BOUNDS: [Nanos; 18] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    120_000_000_000,
];

/// One more than the bounds: the last bucket has no upper bound.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// For each power of two 2^k: how many bounds lie below it. 64 bytes: one cache line.
const BELOW: [u8; 64] = below();

/// Durations in buckets ([`BOUNDS`]) with their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

/// What a histogram held, summed over workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum {
    /// Observations in each bucket (not cumulative).
    pub buckets: [u64; BUCKETS],
    /// Sum of the observations.
    pub sum: Nanos,
}

/// A value on cache lines of its own (128 bytes: pairs of lines are prefetched together on x86).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// One set of cells for each worker, and one for the control plane.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

// === impl Counter ===

impl Counter {
    /// Adds `n`. Only by the owning worker.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one. Only by the owning worker.
    #[inline(always)]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes over a total that is counted elsewhere (a runtime's busy time). Only by the owner.
    #[inline]
    pub fn store(&self, total: u64) {
        self.0.store(total, Relaxed);
    }

    /// The value; by anyone.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

// === impl Gauge ===

impl Gauge {
    /// Adds `n`. Only by the owning worker.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away. Only by the owning worker.
    #[inline(always)]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Adds one. Only by the owning worker.
    #[inline(always)]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away. Only by the owning worker.
    #[inline(always)]
    pub fn dec(&self) {
        self.sub(1);
    }

    /// Replaces the value. Only by the owning worker.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value, below zero if others added what this worker took away; by anyone.
    #[inline]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed) as i64
    }
}

// === impl Histogram ===

impl Histogram {
    /// Counts one observation. Only by the owning worker.
    #[inline]
    pub fn observe(&self, elapsed: Nanos) {
        self.buckets[bucket(elapsed)].inc();
        self.sum.add(elapsed);
    }

    /// Adds what is here to `total`.
    pub fn add_to(&self, total: &mut HistogramSum) {
        for (to, from) in total.buckets.iter_mut().zip(&self.buckets) {
            *to = to.wrapping_add(from.value());
        }
        total.sum = total.sum.wrapping_add(self.sum.value());
    }
}

/// The bucket of `v`: how many bounds are below it.
///
/// Two bounds are never within one octave, so of the bounds not below 2^k only the first can be
/// below v < 2^(k+1): one table look-up and one comparison, no loop.
#[inline]
fn bucket(v: Nanos) -> usize {
    let octave = 63 - (v | 1).leading_zeros() as usize;
    let below = usize::from(BELOW[octave]);
    match BOUNDS.get(below) {
        Some(&bound) => below + usize::from(bound < v),
        None => below,
    }
}

const fn below() -> [u8; 64] {
    let mut table = [0; 64];
    let mut k = 0;
    while k < 64 {
        let mut n = 0;
        while n < BOUNDS.len() && BOUNDS[n] < 1 << k {
            n += 1;
        }
        table[k] = n as u8;
        k += 1;
    }
    let mut i = 1;
    while i < BOUNDS.len() {
        assert!(
            BOUNDS[i] >= 2 * BOUNDS[i - 1],
            "two bounds within one octave"
        );
        i += 1;
    }
    table
}

// === impl HistogramSum ===

impl HistogramSum {
    /// How many observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

// === impl PerWorker ===

impl<T: Default> PerWorker<T> {
    /// Cells for `workers` workers and the control plane, all zero.
    pub fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| Padded::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// The cells of worker `i`, which alone writes them. A number that no worker has gives the
    /// control plane's cells: wrong sums rather than a panic.
    #[inline]
    pub fn worker(&self, i: usize) -> &T {
        &self.0[i.min(self.0.len() - 1)].0
    }

    /// The cells of the control plane.
    pub fn control(&self) -> &T {
        self.worker(usize::MAX)
    }

    /// Every set of cells, the control plane's last.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    /// The sum of one number over all sets.
    pub fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        self.iter()
            .fold(0, |total, cells| total.wrapping_add(of(cells)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_is_that_of_a_linear_search() {
        let linear = |v: u64| BOUNDS.iter().filter(|&&b| b < v).count();
        for bound in BOUNDS {
            for v in [bound - 1, bound, bound + 1] {
                assert_eq!(bucket(v), linear(v), "{v}");
            }
        }
        for k in 0..64 {
            for v in [(1u64 << k) - 1, 1 << k, (1 << k) + 1] {
                assert_eq!(bucket(v), linear(v), "{v}");
            }
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(
            bucket(100_000),
            0,
            "a bound belongs to its bucket, as `le` says"
        );
        assert_eq!(bucket(100_001), 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let mut rng = crate::base::rng::Rng::new(7);
        for _ in 0..100_000 {
            let v = rng.next_u64() >> rng.below(64);
            assert_eq!(bucket(v), linear(v), "{v}");
        }
    }

    #[test]
    fn histogram_sums_over_workers() {
        let cells = PerWorker::<Histogram>::new(2);
        cells.worker(0).observe(1);
        cells.worker(1).observe(1_000_000);
        cells.worker(1).observe(u64::MAX / 2);
        let mut total = HistogramSum::default();
        cells.iter().for_each(|h| h.add_to(&mut total));
        assert_eq!(total.count(), 3);
        assert_eq!(total.sum, u64::MAX / 2 + 1_000_001);
        assert_eq!(
            (
                total.buckets[0],
                total.buckets[3],
                total.buckets[BUCKETS - 1]
            ),
            (1, 1, 1)
        );
    }

    #[test]
    fn gauge_that_one_worker_raises_and_another_lowers_sums_to_zero() {
        let cells = PerWorker::<Gauge>::new(2);
        cells.worker(0).inc();
        cells.worker(1).dec();
        assert_eq!(cells.worker(1).value(), -1);
        assert_eq!(cells.sum(|g| g.value() as u64), 0);
    }

    #[test]
    fn workers_never_share_a_cache_line() {
        let cells = PerWorker::<Counter>::new(3);
        assert_eq!(cells.iter().count(), 4);
        let at = |i| std::ptr::from_ref(cells.worker(i)) as usize;
        assert_eq!(at(1) - at(0), 128);
        assert_eq!(at(0) % 128, 0);
        assert_eq!(
            at(99),
            at(3),
            "a worker that does not exist writes the control cells"
        );
    }
}
