//! `peak_ewma`: two choices weighed by recent latency as well as by exchanges in flight.
//!
//! cost = ewma x (in flight + 1) / weight, compared in logarithms; what the average is and where it
//! departs from Finagle's `PeakEwma` is told in [`latency`](super::latency).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::latency::{Latency, log2};
use super::ready::in_flight;
use super::two_choices::TwoChoices;
use super::{Ask, Balancer, Member, Outcome};
use crate::base::clock::Nanos;
use crate::base::load::Load;

/// Latencies within a factor of 2 (one bit) count as equal; beyond, what exceeds it counts. Equal
/// endpoints with noisy latencies differ by less nearly always, and then get equal shares.
const INDIFFERENCE: f32 = 1.0;

/// One in 16 first candidates that lose on latency is taken all the same: an endpoint that stalled
/// once and is well again shows it after tens of its turns, not after the averaging time. It costs
/// 11 % of mean latency when one of five is 10 times as slow.
const PROBE: u64 = 16;

/// No probes above this, in bits: 64 times as slow is two failures or a stall that decay must forgive
/// first.
const PROBE_LIMIT: f32 = 6.0;

/// How fast the pool's typical latency follows a sample: at most 1/16 bit each, so that one slow
/// endpoint of a few does not become the norm, yet a doubling of all is learnt in tens of samples.
const POOL_GAIN: f32 = 1.0 / 16.0;

/// Latency-aware two choices.
#[derive(Debug)]
pub(super) struct PeakEwma {
    choices: TwoChoices,
    /// Shared by all generations of an upstream.
    pool: Arc<Pool>,
}

/// The typical latency of successful exchanges over all endpoints; written by every worker, so on
/// lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Pool {
    /// Bits of an `f32`, log2 of nanoseconds; 0 = nothing known (a sample is at least 1.0).
    bits: AtomicU32,
}

// === impl PeakEwma ===

impl PeakEwma {
    /// Inherits the pool's latency from `previous`; those of endpoints live in their [`Load`].
    pub(super) fn new(
        members: &[Member],
        ready: &[bool],
        previous: Option<&Self>,
        seed: u64,
    ) -> Self {
        Self {
            choices: TwoChoices::new(members, ready, previous.map(|p| &p.choices), seed),
            pool: previous.map(|p| Arc::clone(&p.pool)).unwrap_or_default(),
        }
    }
}

impl Balancer for PeakEwma {
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        let ready = self.choices.ready();
        let (first, second) = self.choices.draw(ask)?;
        let Some(second) = second else {
            return Some(ready.index(first));
        };
        let (a, b) = (ready.index(first), ready.index(second));

        let (load_a, load_b) = (in_flight(ask.loads, a), in_flight(ask.loads, b));
        let mut excess = match (self.pool.known(), ask.loads.get(a), ask.loads.get(b)) {
            (Some(pool), Some(a), Some(b)) => {
                // An endpoint never sampled is taken for average: it gets its share and is known.
                let latency = |load: &Load| {
                    Latency::unpack(load.ewma.load(Relaxed)).map_or(pool, |l| l.at(ask.now, pool))
                };
                let ratio = latency(a) - latency(b);
                let excess = ratio - ratio.clamp(-INDIFFERENCE, INDIFFERENCE);
                let is_probe = excess > 0.0
                    && excess < PROBE_LIMIT
                    && ask.rng.next_u64().is_multiple_of(PROBE);
                if is_probe { 0.0 } else { excess }
            }
            _ => 0.0,
        };
        // Idle endpoints keep the shares of the schedule (see `least_request`).
        if (load_a | load_b) != 0 {
            let (weight_a, weight_b) = (ready.weight(first) as f32, ready.weight(second) as f32);
            let ratio = (load_a as f32 + 1.0) * weight_b / ((load_b as f32 + 1.0) * weight_a);
            excess += ratio.log2();
        }
        Some(if excess > 0.0 { b } else { a })
    }

    fn observe(&self, load: &Load, outcome: Outcome, elapsed: Nanos, now: Nanos) {
        let sample = log2(elapsed);
        let pool = self.pool.known();
        // Relaxed: each word is whole by itself and guards nothing else.
        let _ = load.ewma.fetch_update(Relaxed, Relaxed, |word| {
            let before = Latency::unpack(word);
            let after = match outcome {
                Outcome::Ok => Some(Latency::after_success(before, sample, pool, now)),
                Outcome::Failed => Some(Latency::after_failure(before, sample, pool, now)),
                Outcome::Cancelled => Latency::after_cancel(before, sample, pool, now),
            };
            after.map(Latency::pack)
        });
        if outcome == Outcome::Ok {
            self.pool.learn(sample);
        }
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

// === impl Pool ===

impl Pool {
    #[inline]
    fn known(&self) -> Option<f32> {
        let bits = self.bits.load(Relaxed);
        (bits != 0).then(|| f32::from_bits(bits))
    }

    /// A clipped average, nearly a median. A load and a store, not a read-modify-write: of two
    /// samples at the same moment one may be lost.
    fn learn(&self, sample: f32) {
        let next = self
            .known()
            .map_or(sample, |p| p + (sample - p).clamp(-1.0, 1.0) * POOL_GAIN);
        self.bits.store(next.to_bits(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::PolicyKind;
    use crate::balance::fixture::{Bench, SEED};

    #[test]
    fn the_slower_endpoint_loses_unless_the_other_is_busier() {
        let mut bench = Bench::new(PolicyKind::PeakEwma, &[1, 1]);
        for _ in 0..20 {
            bench.observe(0, Outcome::Ok, 1_000_000);
            bench.observe(1, Outcome::Ok, 8_000_000);
        }
        // Half of the turns are the slow one's; 1 in 16 of those is a probe.
        assert!((1..60).contains(&bench.count(1_000)[1]), "seed {SEED}");
        // 8 times as slow, less the factor of 2 that is indifferent: worth 4 in flight.
        bench.load(0, 9);
        assert_eq!(bench.count(100), [0, 100]);
    }

    #[test]
    fn an_unknown_endpoint_starts_with_its_share() {
        let mut bench = Bench::new(PolicyKind::PeakEwma, &[1, 1]);
        for _ in 0..20 {
            bench.observe(0, Outcome::Ok, 1_000_000);
        }
        assert_eq!(bench.count(100), [50, 50]);
    }

    #[test]
    fn the_pool_survives_a_change_of_readiness() {
        let mut bench = Bench::new(PolicyKind::PeakEwma, &[1, 1]);
        bench.observe(0, Outcome::Ok, 1_000_000);
        bench.set_ready(1, false);
        bench.set_ready(1, true);
        // A failure now is measured against that pool.
        bench.observe(1, Outcome::Failed, 10);
        assert!(bench.count(1_000)[1] < 60, "seed {SEED}");
    }
}
