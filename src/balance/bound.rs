//! Bounded load: no endpoint above a multiple of the mean, so that one hot key cannot sink one.
//!
//! V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016: with m
//! exchanges in flight, the one to be placed included, a member of weight w takes at most
//! ceil(c m w / W); a key whose member is full goes on to the next in its order.
//!
//! The total of more than [`BATCH`] members is not summed at each pick (1,000 cache lines). Every pick
//! re-reads a few members in rotation, corrects a running total by what has changed at them, and
//! adds itself. So exchanges that ended may be counted for up to `n / BATCH` picks, which makes the
//! cap a little generous; those that began are counted at once. Nothing is written with a locked
//! instruction, of which each costs as much as the rest of a pick: where two workers write at the
//! same moment the total is off by one of them until the rotation has come round, when it is summed
//! anew.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::ready::{Ready, in_flight};
use crate::base::load::Load;

/// Members re-read at each pick, each a cache line of its own. Fewer make the rotation longer, in which
/// exchanges that ended still count.
const BATCH: usize = 4;

/// The bound and the running total of exchanges in flight.
#[derive(Debug)]
pub(super) struct Bound {
    /// `factor * weight / W` by member index.
    share: Box<[f64]>,
    /// What was last seen in flight, by member index; `tally.total` is their sum.
    seen: Box<[AtomicU32]>,
    tally: Tally,
}

#[derive(Debug)]
#[repr(align(128))]
struct Tally {
    total: AtomicU64,
    /// Next position to re-read; [`UNREAD`] before the first pick.
    next: AtomicU32,
}

/// The first pick of a generation reads all members, once.
const UNREAD: u32 = u32::MAX;

/// What one pick has seen. Must be settled: the changes it found are in no total yet.
#[derive(Debug)]
#[must_use = "changes that are not settled are lost to the total"]
pub(super) struct Look {
    /// Exchanges in flight over all candidates.
    pub(super) total: u64,
    /// What `total` is above the shared one; `None` where all were read and no total is kept.
    change: Option<u64>,
}

// === impl Bound ===

impl Bound {
    /// A factor at or below 1 would leave no room for the last exchange; it counts as 1.
    pub(super) fn new(factor: f64, ready: &Ready, members: usize) -> Self {
        // `max` also turns a NaN into 1.
        let factor = factor.max(1.0);
        let mut share = vec![0.0; members];
        for (&index, &weight) in ready.indices().iter().zip(ready.weights()) {
            share[index as usize] = factor * f64::from(weight) / ready.total_weight() as f64;
        }
        Self {
            share: share.into(),
            seen: (0..members).map(|_| AtomicU32::new(0)).collect(),
            tally: Tally {
                total: AtomicU64::new(0),
                next: AtomicU32::new(UNREAD),
            },
        }
    }

    /// Looks at the next few candidates.
    #[inline]
    pub(super) fn look(&self, ready: &Ready, loads: &[Arc<Load>]) -> Look {
        let n = ready.len();
        if n <= BATCH {
            let counts = ready.indices().iter();
            let total = counts.map(|&index| u64::from(in_flight(loads, index as usize)));
            return Look {
                total: total.sum(),
                change: None,
            };
        }
        let (start, looks) = match self.tally.next.load(Relaxed) {
            UNREAD => (0, n),
            next => (next as usize, BATCH),
        };
        let end = (start + looks).min(n);
        let change = (start..end).fold(0, |change: u64, position| {
            let index = ready.index(position);
            change.wrapping_add(self.note(index, in_flight(loads, index)))
        });
        if end < n {
            self.tally.next.store(end as u32, Relaxed);
            let total = self.tally.total.load(Relaxed).wrapping_add(change);
            return Look {
                total,
                change: Some(change),
            };
        }
        // The end of a lap: what was miscounted during it, because two workers noted one change,
        // is forgotten.
        self.tally.next.store(0, Relaxed);
        let seen = self.seen.iter().map(|seen| u64::from(seen.load(Relaxed)));
        let total = seen.sum();
        self.tally.total.store(total, Relaxed);
        Look {
            total,
            change: Some(0),
        }
    }

    /// Ends a look with the member that was picked, which will have `count` in flight.
    #[inline]
    pub(super) fn settle(&self, look: &Look, picked: usize, count: u32) {
        let Some(change) = look.change else { return };
        let change = change.wrapping_add(self.note(picked, count));
        let total = self.tally.total.load(Relaxed).wrapping_add(change);
        self.tally.total.store(total, Relaxed);
    }

    /// Records that `count` exchanges are in flight at a member; by how much the total changes.
    #[inline]
    fn note(&self, index: usize, count: u32) -> u64 {
        let seen = &self.seen[index];
        let before = seen.load(Relaxed);
        if before != count {
            seen.store(count, Relaxed);
        }
        u64::from(count).wrapping_sub(u64::from(before))
    }

    /// Whether a member with `count` in flight may take one more of `total` + 1: a whole number is
    /// below ceil(x) exactly when it is below x.
    #[inline]
    pub(super) fn has_room(&self, index: usize, count: u32, total: u64) -> bool {
        f64::from(count) < self.share[index] * (total as f64 + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::PolicyKind::{Maglev, Rendezvous, RingHash};
    use crate::balance::fixture::{Bench, members};
    use crate::base::rng::Rng;

    /// The cap of the paper, from exact counts.
    fn cap(c: f64, total: u32, weight: u32, weights: u32) -> u32 {
        (c * f64::from(total + 1) * f64::from(weight) / f64::from(weights)).ceil() as u32
    }

    #[test]
    fn no_endpoint_exceeds_its_cap_whatever_the_keys() {
        let weights = [1, 1, 2, 4];
        for kind in [RingHash, Maglev, Rendezvous] {
            let seed = 11;
            let mut rng = Rng::new(seed);
            let mut bench = Bench::bounded(kind, &weights, 1.25);
            let mut running: Vec<usize> = Vec::new();
            for step in 0..20_000 {
                if !running.is_empty() && rng.below(100) < 48 {
                    let done = running.swap_remove(rng.below(running.len()));
                    bench.load(done, bench.in_flight(done) - 1);
                    continue;
                }
                // Nine of ten have the same key.
                let key = if rng.below(10) < 9 {
                    0
                } else {
                    rng.below(1000) as u64
                };
                let picked = bench.pick_key(&key.to_le_bytes()).unwrap();
                let total = running.len() as u32;
                let after = bench.in_flight(picked) + 1;
                assert!(
                    after <= cap(1.25, total, weights[picked], 8),
                    "{kind:?} step {step} seed {seed}: {after} of {total} at {picked}"
                );
                bench.load(picked, after);
                running.push(picked);
            }
        }
    }

    #[test]
    fn among_a_thousand_the_hot_endpoint_stays_near_its_cap() {
        let mut bench = Bench::bounded(Maglev, &[1; 1000], 1.25);
        for n in 0..20_000u64 {
            let key = if n % 10 < 9 { 0 } else { n };
            let picked = bench.pick_key(&key.to_le_bytes()).unwrap();
            bench.load(picked, bench.in_flight(picked) + 1);
        }
        // Nothing ended, so the running total is exact: ceil(1.25 * 20).
        assert!((0..1000).all(|i| bench.in_flight(i) <= 25));
    }

    #[test]
    fn a_full_house_gives_the_least_loaded_and_ends() {
        for kind in [RingHash, Maglev, Rendezvous] {
            let mut bench = Bench::bounded(kind, &[1; 4], 1.0);
            // Two workers racing may see a total that lags the counts: everyone looks full.
            bench.pick_key(b"prime");
            for i in 0..4 {
                bench.load(i, if i == 2 { 50 } else { 60 });
            }
            let share = Bound::new(1.0, &Ready::new(&members(&[1; 4]), &[true; 4]), 4);
            assert!(!share.has_room(2, 50, 100));
            assert!(bench.pick_key(b"k").is_some());
            // Only the least loaded one has room: ceil(231 / 4) = 58.
            assert_eq!(bench.pick_key(b"k"), Some(2), "{kind:?}");
        }
    }

    #[test]
    fn a_key_stays_on_its_endpoint_while_there_is_room() {
        for kind in [RingHash, Maglev, Rendezvous] {
            let mut plain = Bench::new(kind, &[1; 10]);
            let mut bounded = Bench::bounded(kind, &[1; 10], 1.25);
            for key in 0..1000u64 {
                let key = key.to_le_bytes();
                assert_eq!(plain.pick_key(&key), bounded.pick_key(&key), "{kind:?}");
            }
        }
    }

    #[test]
    fn impossible_factors_count_as_one() {
        let ready = Ready::new(&members(&[1, 1]), &[true; 2]);
        for factor in [f64::NAN, -3.0, 0.0, 1.0] {
            let bound = Bound::new(factor, &ready, 2);
            assert!(bound.has_room(0, 4, 9) && !bound.has_room(0, 5, 9));
        }
    }
}
