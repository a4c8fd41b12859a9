//! What `peak_ewma` remembers of one endpoint: a moving average of its latency, packed in one word.
//!
//! Departures from Finagle's peak EWMA, each for a reason seen in simulation (`tests/shares.rs`):
//! - The average is of log2(nanoseconds). Ratios of latencies matter, not differences, and decay in
//!   the log takes seconds to forget a factor of 1,000 as well as one of 10.
//! - Upward it is fast but not instant: one sample at most doubles the average. A single spike
//!   among equals (a scheduling delay of 20 times the usual) otherwise starves an endpoint for many
//!   times the averaging time; four slow samples in a row still count 16-fold.
//! - It decays toward the pool's typical latency, not toward zero: an endpoint without samples
//!   becomes average again, and is tried, but never more attractive than its equals.
//! - A failure multiplies the average by 16, whatever time it took, and failures in a row add up.

use crate::base::clock::Nanos;

/// Averaging time (Finagle's default decay time, 10 s).
const TAU: f32 = 10e9;

/// The least weight of a sample below the average, so that at thousands of samples a second a spike
/// is forgotten after tens of samples and not after tens of seconds.
const LEAST_GAIN: f32 = 1.0 / 8.0;

/// The most one sample raises the average, in bits, and what one lowers it while it is that far above
/// the pool: a factor of 2.
const STEP: f32 = 1.0;

/// What a failure adds, in bits: a factor of 16.
const PENALTY: f32 = 4.0;

/// Failures in a row add up to at most this above the pool, in bits: 65,536 times as slow. Decay
/// brings that back to within a factor of 2 in 10 s x ln 16 = 28 s.
const PENALTY_LIMIT: f32 = 16.0;

/// log2 of nanoseconds in one tick of the stored time: 16.8 ms, fine against 10 s; 32 bits of them
/// wrap after 2.3 years, and a sample is taken for fresh again only after half of that.
const TICK_SHIFT: u32 = 24;

/// The average of an endpoint as of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latency {
    /// log2 of nanoseconds; at least 1.0, so that the packed word is never 0.
    bits: f32,
    tick: u32,
}

/// log2 of a time, at least 1.0 (2 ns).
pub(super) fn log2(elapsed: Nanos) -> f32 {
    (elapsed.max(2) as f32).log2()
}

// === impl Latency ===

impl Latency {
    /// Unpacks [`Load::ewma`](crate::base::load::Load::ewma); `None` = never sampled (0).
    #[inline]
    pub(super) fn unpack(word: u64) -> Option<Self> {
        (word != 0).then(|| Self {
            bits: f32::from_bits((word >> 32) as u32),
            tick: word as u32,
        })
    }

    /// The word to store.
    #[inline]
    pub(super) fn pack(self) -> u64 {
        u64::from(self.bits.to_bits()) << 32 | u64::from(self.tick)
    }

    /// The average, decayed from its time to `now` toward the `pool`'s typical latency.
    #[inline]
    pub(super) fn at(self, now: Nanos, pool: f32) -> f32 {
        let age = self.age(now);
        if age == 0.0 {
            return self.bits;
        }
        pool + (self.bits - pool) * (-age / TAU).exp()
    }

    /// The average after an exchange that succeeded in `sample` (log2 of nanoseconds).
    pub(super) fn after_success(
        before: Option<Self>,
        sample: f32,
        pool: Option<f32>,
        now: Nanos,
    ) -> Self {
        let pool = pool.unwrap_or(sample);
        let (old, age) = before.map_or((pool, 0.0), |b| (b.at(now, pool), b.age(now)));
        let bits = if sample > old {
            old + (sample - old).min(STEP)
        } else {
            let gain = (1.0 - (-age / TAU).exp()).max(LEAST_GAIN);
            // An endpoint far above the pool gets few samples: each counts as much as one upward.
            let step = if old > pool + STEP {
                STEP.min(old - sample)
            } else {
                0.0
            };
            old - step.max((old - sample) * gain)
        };
        Self::new(bits, now)
    }

    /// The average after a failure that took `sample`.
    pub(super) fn after_failure(
        before: Option<Self>,
        sample: f32,
        pool: Option<f32>,
        now: Nanos,
    ) -> Self {
        // Without a single success anywhere, 1 ms stands for the pool: any value serves, as long as
        // a quick refusal does not become the standard.
        let pool = pool.unwrap_or(20.0);
        // Not decayed: failing again on the next trial means nothing got better meanwhile.
        let old = before.map_or(pool, |b| b.bits.max(pool));
        let bits = (old + PENALTY).min(pool + PENALTY_LIMIT).max(sample);
        Self::new(bits, now)
    }

    /// The average after the client left at `sample`: it would have taken at least as long, so it
    /// may rise, never fall. `None` = nothing learnt.
    pub(super) fn after_cancel(
        before: Option<Self>,
        sample: f32,
        pool: Option<f32>,
        now: Nanos,
    ) -> Option<Self> {
        let known = before.map(|b| b.at(now, pool.unwrap_or(b.bits))).or(pool)?;
        (sample > known).then(|| Self::after_success(before, sample, pool, now))
    }

    fn new(bits: f32, now: Nanos) -> Self {
        Self {
            bits: bits.max(1.0),
            tick: (now >> TICK_SHIFT) as u32,
        }
    }

    /// Nanoseconds since the sample; 0 when `now` is earlier (clocks of two workers).
    #[inline]
    fn age(self, now: Nanos) -> f32 {
        let ticks = ((now >> TICK_SHIFT) as u32).wrapping_sub(self.tick) as i32;
        ticks.max(0) as f32 * (1u64 << TICK_SHIFT) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const POOL: Option<f32> = Some(20.0);

    fn ok(before: Option<Latency>, sample: f32, now: Nanos) -> Latency {
        Latency::after_success(before, sample, POOL, now)
    }

    #[test]
    fn packing_keeps_the_value_and_never_gives_zero() {
        let latency = ok(None, 0.0, 0);
        assert_ne!(latency.pack(), 0);
        assert_eq!(Latency::unpack(latency.pack()), Some(latency));
        assert_eq!(Latency::unpack(0), None);
    }

    #[test]
    fn a_slow_sample_at_most_doubles_and_fast_ones_bring_it_back() {
        let spike = ok(Some(ok(None, 20.0, 0)), 26.0, 0);
        assert_eq!(spike.bits, 21.0);
        let back = (0..16).fold(spike, |l, _| ok(Some(l), 20.0, 0));
        assert!(
            back.bits < 20.2,
            "16 samples without time passing: {}",
            back.bits
        );
    }

    #[test]
    fn decay_is_toward_the_pool_from_both_sides() {
        let slow = Latency::new(30.0, 0);
        let fast = Latency::new(10.0, 0);
        let e = std::f32::consts::E;
        assert!((slow.at(10 * SECOND, 20.0) - (20.0 + 10.0 / e)).abs() < 0.01);
        assert!((fast.at(10 * SECOND, 20.0) - (20.0 - 10.0 / e)).abs() < 0.01);
        // A gap of a year.
        assert_eq!(slow.at(365 * 86_400 * SECOND, 20.0), 20.0);
    }

    #[test]
    fn time_standing_still_or_going_back_changes_nothing() {
        let slow = Latency::new(30.0, 100 * SECOND);
        assert_eq!(slow.at(100 * SECOND, 20.0), 30.0);
        assert_eq!(slow.at(0, 20.0), 30.0);
        assert!(ok(Some(slow), 20.0, 0).bits < 30.0);
    }

    #[test]
    fn a_fast_failure_counts_as_slow_and_failures_add_up_to_a_limit() {
        let one = Latency::after_failure(None, 5.0, POOL, 0);
        assert_eq!(one.bits, 24.0);
        let two = Latency::after_failure(Some(one), 5.0, POOL, 60 * SECOND);
        assert_eq!(two.bits, 28.0);
        let many = (0..9).fold(two, |l, _| Latency::after_failure(Some(l), 5.0, POOL, 0));
        assert_eq!(many.bits, 36.0);
        // A time-out longer than the penalty counts as itself.
        assert_eq!(Latency::after_failure(None, 40.0, POOL, 0).bits, 40.0);
        // Even before anything succeeded anywhere.
        assert_eq!(Latency::after_failure(None, 5.0, None, 0).bits, 24.0);
    }

    #[test]
    fn a_penalty_is_forgotten_within_half_a_minute() {
        let worst = (0..9).fold(None, |l, _| Some(Latency::after_failure(l, 5.0, POOL, 0)));
        assert!(worst.unwrap().at(28 * SECOND, 20.0) < 21.0);
    }

    #[test]
    fn a_cancelled_exchange_raises_and_never_lowers() {
        let known = Some(Latency::new(25.0, 0));
        assert_eq!(Latency::after_cancel(known, 20.0, POOL, 0), None);
        assert_eq!(
            Latency::after_cancel(known, 30.0, POOL, 0).unwrap().bits,
            26.0
        );
        assert_eq!(Latency::after_cancel(None, 20.0, None, 0), None);
    }
}
