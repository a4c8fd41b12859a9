//! `maglev`: an even table of slots, one read per pick.
//!
//! D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4: each member has a permutation of the M slots, (offset + j * skip) mod M, and members
//! take turns at claiming the next slot of theirs that is still free. Shares differ by at most one
//! slot; a change moves little more than it must (measured in `tests/disruption.rs`).
//!
//! Weights are turns: a member takes one each time its credit, which grows by its weight in every
//! round, reaches the greatest weight. All take one in the first round, so nobody owns nothing.

use std::sync::Arc;

use super::hashed::{Entry, Table};
use crate::base::hash::{hash, mix};

/// The paper's small table, its large one, and Envoy's limit; all prime, so that every skip visits
/// every slot. The paper: 100 slots a member keep shares within 1 %.
const SIZES: [u32; 3] = [65_537, 655_373, 5_000_011];

/// Slots wanted per member.
const SLOTS_PER_MEMBER: usize = 100;

/// The filled table.
#[derive(Debug)]
pub(super) struct Maglev {
    owners: Arc<[u32]>,
}

// === impl Maglev ===

impl Maglev {
    /// Fills `size` slots (a prime).
    pub(super) fn with_size(entries: &[Entry<'_>], size: u32) -> Self {
        const FREE: u32 = u32::MAX;
        let m = u64::from(size);
        let greatest = entries
            .iter()
            .map(|entry| u64::from(entry.weight))
            .max()
            .unwrap_or(0);
        let mut turns: Vec<Turn> = entries
            .iter()
            .map(|entry| {
                let seed = entry.seed();
                Turn {
                    at: (seed % m) as u32,
                    skip: (mix(seed) % (m - 1) + 1) as u32,
                    credit: greatest - u64::from(entry.weight),
                }
            })
            .collect();
        let mut owners = vec![FREE; if entries.is_empty() { 0 } else { size as usize }];
        let mut free = owners.len();
        'fill: while free > 0 {
            for (entry, turn) in entries.iter().zip(&mut turns) {
                turn.credit += u64::from(entry.weight);
                if turn.credit < greatest {
                    continue;
                }
                turn.credit -= greatest;
                // Ends: a permutation meets every slot, and one is free.
                while owners[turn.at as usize] != FREE {
                    turn.step(size);
                }
                owners[turn.at as usize] = entry.index;
                turn.step(size);
                free -= 1;
                if free == 0 {
                    break 'fill;
                }
            }
        }
        Self {
            owners: owners.into(),
        }
    }
}

impl Table for Maglev {
    fn build(entries: &[Entry<'_>], members: usize, _previous: Option<&Self>) -> Self {
        Self::with_size(entries, table_size(members))
    }

    fn owners(&self) -> &Arc<[u32]> {
        &self.owners
    }

    #[inline]
    fn slot(&self, key: &[u8]) -> usize {
        spread(hash(key), self.owners.len())
    }
}

/// Where a member stands in its permutation.
struct Turn {
    at: u32,
    skip: u32,
    credit: u64,
}

impl Turn {
    fn step(&mut self, size: u32) {
        // Both are below `size`, which is far below 2^31: no overflow.
        self.at += self.skip;
        if self.at >= size {
            self.at -= size;
        }
    }
}

/// The smallest size with enough slots. Steps are far apart on purpose: crossing one moves most keys.
fn table_size(members: usize) -> u32 {
    let enough = |size: &u32| members.saturating_mul(SLOTS_PER_MEMBER) <= *size as usize;
    SIZES
        .into_iter()
        .find(enough)
        .unwrap_or(SIZES[SIZES.len() - 1])
}

/// A hash to a slot, by its high bits: one multiplication where the paper's modulus divides.
#[inline]
pub(super) fn spread(hash: u64, slots: usize) -> usize {
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n)
            .map(|i| format!("10.0.{}.{}:80", i / 250, i % 250))
            .collect()
    }

    fn shares(weights: &[u32], size: u32) -> Vec<u32> {
        let names = names(weights.len());
        let entries: Vec<Entry<'_>> = (0..weights.len())
            .map(|i| Entry {
                index: i as u32,
                name: &names[i],
                ordinal: 0,
                weight: weights[i],
            })
            .collect();
        let mut slots = vec![0; weights.len()];
        for &owner in Maglev::with_size(&entries, size).owners.iter() {
            slots[owner as usize] += 1;
        }
        slots
    }

    #[test]
    fn sizes_are_prime_and_grow_with_the_members() {
        for size in SIZES {
            assert!(
                (2..3_000)
                    .take_while(|d| d * d <= size)
                    .all(|d| size % d != 0),
                "{size}"
            );
        }
        assert_eq!(table_size(0), 65_537);
        assert_eq!(table_size(655), 65_537);
        assert_eq!(table_size(656), 655_373);
        assert_eq!(table_size(usize::MAX), 5_000_011);
    }

    #[test]
    fn a_thousand_endpoints_on_65537_slots_need_less_than_one_percent_more() {
        let slots = shares(&[1; 1000], 65_537);
        let over = f64::from(*slots.iter().max().unwrap()) / (65_537.0 / 1000.0) - 1.0;
        assert_eq!(
            (slots.iter().min(), slots.iter().max()),
            (Some(&65), Some(&66))
        );
        assert!(over < 0.01, "over-provision {:.2} %", over * 100.0);
    }

    #[test]
    fn weights_are_shares_and_nobody_is_left_out() {
        let weights = [5, 3, 1, 1];
        for (slots, weight) in shares(&weights, 65_537).iter().zip(weights) {
            let expected = 65_537.0 * f64::from(weight) / 10.0;
            assert!(
                (f64::from(*slots) - expected).abs() <= 2.0,
                "{slots} {expected}"
            );
        }
        assert_eq!(shares(&[u32::MAX, 1], 65_537)[1], 1);
    }
}
