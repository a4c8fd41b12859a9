//! GCRA: how often something may happen, decided from one number.
//!
//! The generic cell rate algorithm, virtual scheduling (ITU-T I.371, Annex A.1): an event that comes
//! at `now` conforms when `now >= TAT - tolerance`, and then `TAT = max(TAT, now) + T`, where TAT is
//! the *theoretical arrival time* of the next one and `T` the time between two at the rate. With
//! a tolerance of `(burst - 1) T`, `burst` of them conform at once after a rest. It equals a token bucket
//! that starts full, without a refill to compute.
//!
//! `T = per / rate` is rarely a whole number of nanoseconds, and rounding it would let through
//! more, or fewer, than was asked for (1 ns of 1.4 at 700 million a second). So times are counted in
//! `1 / rate` of a nanosecond: `T` is then `per`, everything is a whole number, and nothing drifts.

use std::time::Duration;

use crate::base::clock::{Nanos, nanos};

/// A rate and how much of it may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Ticks of a nanosecond.
    ticks: u64,
    /// `T` in ticks.
    emission: u64,
    /// `(burst - 1) T` in ticks.
    tolerance: u128,
}

/// A theoretical arrival time, in ticks of the [`Rate`] that made it; the default is that of what
/// was never seen. At most 96 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tat(u128);

// === impl Rate ===

impl Rate {
    /// `rate` in each `per`, `burst` of them at once. A rate or burst of 0 counts as 1; a `per` of 0 is
    /// no limit.
    pub fn new(rate: u32, per: Duration, burst: u32) -> Self {
        let emission = nanos(per);
        Self {
            ticks: u64::from(rate.max(1)),
            emission,
            tolerance: u128::from(emission) * u128::from(burst.max(1) - 1),
        }
    }

    /// Whether one may pass at `now`: the arrival time to remember, or how long until one would pass
    /// (at least 1). A refusal costs nothing: the arrival time stays.
    ///
    /// The arrival time only grows, so times that stand still or go back let nothing more through;
    /// they may refuse what would have passed at the latest of them.
    #[inline]
    pub fn decide(&self, tat: Tat, now: Nanos) -> Result<Tat, Nanos> {
        let now = self.ticks(now).0;
        let earliest = tat.0.saturating_sub(self.tolerance);
        if now < earliest {
            let wait = (earliest - now).div_ceil(u128::from(self.ticks));
            return Err(u64::try_from(wait).unwrap_or(Nanos::MAX));
        }
        // Fits: 64 bits of nanoseconds in 32 of ticks, and what a limit of centuries adds is cut.
        let next = tat.0.max(now) + u128::from(self.emission);
        Ok(Tat(next.min(Tat::MAX.0)))
    }

    /// `now` in ticks: a [`Tat`] up to it is over, and as good as none.
    #[inline]
    pub fn ticks(&self, now: Nanos) -> Tat {
        Tat(u128::from(now) * u128::from(self.ticks))
    }
}

// === impl Tat ===

impl Tat {
    /// Bits that a value has at most.
    pub const BITS: u32 = 96;

    const MAX: Self = Self((1 << Self::BITS) - 1);

    /// The value, for storage.
    #[inline]
    pub fn to_bits(self) -> u128 {
        self.0
    }

    /// What [`to_bits`](Self::to_bits) gave; higher bits are ignored.
    #[inline]
    pub fn from_bits(bits: u128) -> Self {
        Self(bits & Self::MAX.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Nanos = 1_000_000_000;

    /// Tries at each of `times`: which passed.
    fn run(rate: &Rate, times: impl IntoIterator<Item = Nanos>) -> Vec<bool> {
        let mut tat = Tat::default();
        let mut attempt = |now| {
            let decision = rate.decide(tat, now);
            tat = decision.unwrap_or(tat);
            decision.is_ok()
        };
        times.into_iter().map(&mut attempt).collect()
    }

    fn passed(rate: &Rate, times: impl IntoIterator<Item = Nanos>) -> usize {
        run(rate, times)
            .into_iter()
            .filter(|&passed| passed)
            .count()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_for_each_emission() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let times = [5, 5, 5, 5, 5 + S / 10 - 1, 5 + S / 10, 5 + S / 10];
        let passed = [true, true, true, false, false, true, false];
        assert_eq!(run(&rate, times), passed);
    }

    #[test]
    fn a_rest_of_any_length_gives_one_burst() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        for rest in [S, 86_400 * S, u64::MAX - 1] {
            let times = [0; 9].into_iter().chain([rest; 9]);
            assert_eq!(passed(&rate, times), 6, "after {rest} ns");
        }
    }

    /// 3, 7 and 700 million a second do not divide a second of nanoseconds.
    #[test]
    fn whole_periods_of_greed_pass_exactly_the_rate() {
        for per_second in [3, 7, 999] {
            // With a burst of 1 each would be late by the part of a nanosecond that clocks cannot show.
            let rate = Rate::new(per_second, Duration::from_secs(1), 2);
            let mut tat = Tat::default();
            let (mut now, mut count) = (0, 0u64);
            // Always again when the refusal says so.
            while now < 1_000 * S {
                match rate.decide(tat, now) {
                    Ok(next) => (tat, count) = (next, count + 1),
                    Err(wait) => now += wait,
                }
            }
            assert_eq!(count, u64::from(per_second) * 1_000 + 1);
        }
        let fast = Rate::new(700_000_000, Duration::from_secs(1), 2);
        assert_eq!(passed(&fast, 0..100_000), 70_001);
    }

    #[test]
    fn more_than_one_a_nanosecond_is_counted_too() {
        let rate = Rate::new(4_000_000_000, Duration::from_secs(1), 4);
        let times = (0..1_000).flat_map(|now| [now; 9]);
        assert_eq!(passed(&rate, times), 4_000);
    }

    #[test]
    fn the_wait_is_exact_and_a_refusal_costs_nothing() {
        let rate = Rate::new(3, Duration::from_secs(1), 1);
        let tat = rate.decide(Tat::default(), 0).unwrap();
        assert_eq!(rate.decide(tat, 0), Err(333_333_334));
        assert_eq!(rate.decide(tat, 333_333_333), Err(1));
        assert!(rate.decide(tat, 333_333_334).is_ok());
    }

    #[test]
    fn time_going_back_passes_nothing_more_and_loses_nothing_later() {
        let rate = Rate::new(1, Duration::from_secs(1), 2);
        let times = [9 * S, 8 * S, 7 * S, 0, 9 * S, 10 * S, 9 * S];
        let passed = [true, false, false, false, true, true, false];
        assert_eq!(run(&rate, times), passed);
    }

    #[test]
    fn zeros_and_extremes_are_harmless() {
        assert_eq!(passed(&Rate::new(1, Duration::ZERO, 1), [7; 50]), 50);
        assert_eq!(passed(&Rate::new(0, Duration::from_secs(1), 0), [7; 50]), 1);
        for rate in [1, u32::MAX] {
            for burst in [1, u32::MAX] {
                let rate = Rate::new(rate, Duration::MAX, burst);
                let count = passed(&rate, [0, u64::MAX, 0, u64::MAX]);
                assert!(count >= 1, "{rate:?}");
            }
        }
    }

    #[test]
    fn the_bits_come_back() {
        let rate = Rate::new(u32::MAX, Duration::from_secs(1), 1);
        for now in [0, 1, S, u64::MAX] {
            let tat = rate.decide(Tat::default(), now).unwrap();
            assert_eq!(Tat::from_bits(tat.to_bits()), tat);
            assert_eq!(tat.to_bits() >> Tat::BITS, 0);
        }
    }

    /// A token bucket that keeps every passed arrival: one passes when for every suffix of
    /// those before, the `n` events with it fit into their time: `n <= burst + elapsed * rate / per`.
    struct Model {
        passed: Vec<Nanos>,
    }

    impl Model {
        fn decide(&mut self, rate: u32, per: Nanos, burst: u32, now: Nanos) -> bool {
            let fits = self.passed.iter().rev().enumerate().all(|(i, &since)| {
                let with_this = i as u128 + 2;
                with_this.saturating_sub(u128::from(burst)) * u128::from(per)
                    <= u128::from(now - since) * u128::from(rate)
            });
            if fits {
                self.passed.push(now);
            }
            fits
        }
    }

    proptest! {
        #[test]
        fn decisions_are_those_of_a_model_that_remembers_everything(
            rate in 1u32..50,
            per in 1u64..10_000,
            burst in 1u32..20,
            gaps in proptest::collection::vec(0u64..2_000, 1..200),
        ) {
            let gcra = Rate::new(rate, Duration::from_nanos(per), burst);
            let mut model = Model { passed: Vec::new() };
            let mut tat = Tat::default();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                let decision = gcra.decide(tat, now);
                let expected = model.decide(rate, per, burst, now);
                prop_assert_eq!(decision.is_ok(), expected, "at {}", now);
                match decision {
                    Ok(next) => tat = next,
                    // Exactly as long as said, and not a nanosecond less.
                    Err(wait) => {
                        prop_assert!(wait > 0);
                        prop_assert!(gcra.decide(tat, now + wait - 1).is_err());
                        prop_assert!(gcra.decide(tat, now + wait).is_ok());
                    }
                }
            }
        }
    }
}
