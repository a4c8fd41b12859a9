//! `rendezvous`: the highest random weight wins, slot by slot.
//!
//! D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998; weights by
//! the logarithmic method (J. Resch, "New Hashing Algorithms for Data Storage", SDC 2015): the member
//! with the smallest -ln(h) / w, h in (0, 1) from slot and member, which is the greatest
//! -w / ln(h).
//!
//! Scoring every member for every key is O(n): 2 us among 1,000. Here keys fall into 2^18 slots and
//! the scores are compared once per slot, when the table is built. Slot by slot it is plain
//! rendezvous hashing: a member that comes, goes or changes weight moves the slots it wins or loses
//! and no other, at any size, and a slot of an unready owner goes to the best score among the ready.
//! The price is granularity: a share of n equal members varies by sqrt(n / 2^18), 2 % among 100 and
//! 6 % among 1,000, where the per-key form has none. The number of slots is fixed, because a change
//! of it would move every key. (No need for a prime: slots are taken from the high bits of a hash.)

use std::collections::HashMap;
use std::sync::Arc;

use super::hashed::{Entry, Table};
use super::maglev::spread;
use super::ready::Ready;
use crate::base::hash::{hash, mix};

/// 1 MiB of owners. Building for 1,000 members takes about half a second on the writer's thread the
/// first time; a change compares only what changed.
const SLOTS: usize = 1 << 18;

/// The winners by slot.
#[derive(Debug)]
pub(super) struct Rendezvous {
    owners: Arc<[u32]>,
    /// By member index; weight 0 = not in the table.
    contenders: Box<[Contender]>,
}

/// What scores are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Contender {
    index: u32,
    weight: u32,
    seed: u64,
}

/// The best score so far of one slot.
struct Race {
    slot: u64,
    best: f64,
    winner: u32,
}

// === impl Rendezvous ===

impl Table for Rendezvous {
    fn build(entries: &[Entry<'_>], members: usize, previous: Option<&Self>) -> Self {
        let mut contenders = vec![Contender::default(); members];
        for entry in entries {
            let index = entry.index;
            contenders[index as usize] = Contender {
                index,
                weight: entry.weight,
                seed: entry.seed(),
            };
        }
        // In the order of the entries, that is of names: decides ties alike whatever the order.
        let all: Vec<Contender> = entries
            .iter()
            .map(|e| contenders[e.index as usize])
            .collect();
        let owners = match previous {
            _ if all.is_empty() => Arc::default(),
            Some(previous) if !previous.owners.is_empty() => previous.contest(&all),
            _ => (0..SLOTS)
                .map(|slot| best(slot, all.iter().copied()))
                .collect(),
        };
        Self {
            owners,
            contenders: contenders.into(),
        }
    }

    fn owners(&self) -> &Arc<[u32]> {
        &self.owners
    }

    #[inline]
    fn slot(&self, key: &[u8]) -> usize {
        spread(hash(key), self.owners.len())
    }

    fn resolve(&self, ready: &Ready, is_candidate: &[bool]) -> Arc<[u32]> {
        if self
            .owners
            .iter()
            .all(|&owner| is_candidate[owner as usize])
        {
            return Arc::clone(&self.owners);
        }
        let mut left: Vec<Contender> = ready
            .indices()
            .iter()
            .map(|&i| self.contenders[i as usize])
            .collect();
        // As in `build`, so that ties fall alike on every proxy.
        left.sort_by_key(|c| c.seed);
        self.owners
            .iter()
            .enumerate()
            .map(|(slot, &owner)| {
                if is_candidate[owner as usize] {
                    owner
                } else {
                    best(slot, left.iter().copied())
                }
            })
            .collect()
    }
}

impl Rendezvous {
    /// The owners among `all`, comparing only what differs from this table.
    fn contest(&self, all: &[Contender]) -> Arc<[u32]> {
        let identity = |c: &Contender| (c.seed, c.weight);
        let now: HashMap<(u64, u32), u32> = all.iter().map(|c| (identity(c), c.index)).collect();
        let before: HashMap<(u64, u32), u32> = self
            .contenders
            .iter()
            .filter(|c| c.weight > 0)
            .map(|c| (identity(c), c.index))
            .collect();
        let changed: Vec<Contender> = all
            .iter()
            .filter(|c| !before.contains_key(&identity(c)))
            .copied()
            .collect();
        self.owners
            .iter()
            .enumerate()
            .map(|(slot, &owner)| {
                let old = &self.contenders[owner as usize];
                match now.get(&identity(old)) {
                    // It beat all that stayed as they were: only the changed can beat it.
                    Some(&index) => {
                        let holder = Contender { index, ..*old };
                        best(slot, std::iter::once(holder).chain(changed.iter().copied()))
                    }
                    None => best(slot, all.iter().copied()),
                }
            })
            .collect()
    }
}

/// The winner of a slot; the first of equals.
fn best(slot: usize, contenders: impl Iterator<Item = Contender>) -> u32 {
    let mut race = Race {
        slot: mix(slot as u64 + 1),
        best: f64::INFINITY,
        winner: 0,
    };
    for contender in contenders {
        race.enter(contender);
    }
    race.winner
}

// === impl Race ===

impl Race {
    #[inline]
    fn enter(&mut self, contender: Contender) {
        // v = 1 - h in [0, 1), with 53 bits: h is never 0, and h = 1 is the score 0.
        let v = (mix(self.slot ^ contender.seed) >> 11) as f64 / (1u64 << 53) as f64;
        let weight = f64::from(contender.weight);
        // -ln(1 - v) >= v: most lose already here, without the logarithm.
        if v < self.best * weight {
            let score = -(-v).ln_1p() / weight;
            if score < self.best {
                self.best = score;
                self.winner = contender.index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(names: &[String], weights: &[u32]) -> Vec<(String, u32)> {
        names.iter().cloned().zip(weights.iter().copied()).collect()
    }

    fn table(list: &[(String, u32)], previous: Option<&Rendezvous>) -> Rendezvous {
        let entries: Vec<Entry<'_>> = list
            .iter()
            .enumerate()
            .map(|(i, (name, weight))| Entry {
                index: i as u32,
                name,
                ordinal: 0,
                weight: *weight,
            })
            .collect();
        Rendezvous::build(&entries, list.len(), previous)
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.0.0.{i}:80")).collect()
    }

    #[test]
    fn shares_are_the_weights() {
        let weights = [1, 2, 3, 4];
        let table = table(&entries(&names(4), &weights), None);
        let mut slots = [0u32; 4];
        for &owner in table.owners.iter() {
            slots[owner as usize] += 1;
        }
        for (slots, weight) in slots.iter().zip(weights) {
            let expected = SLOTS as f64 * f64::from(weight) / 10.0;
            // Four standard deviations of a binomial count.
            let slack = 4.0 * (expected * (1.0 - f64::from(weight) / 10.0)).sqrt();
            assert!(
                (f64::from(*slots) - expected).abs() < slack,
                "{slots} {expected}"
            );
        }
    }

    #[test]
    fn a_table_made_from_another_equals_one_made_afresh() {
        let old = table(
            &entries(&names(12), &[1, 2, 3, 1, 1, 1, 5, 1, 1, 1, 1, 1]),
            None,
        );
        // One gone, one new, one heavier, one lighter, and another order.
        let mut list = entries(&names(13), &[1, 2, 3, 1, 1, 4, 2, 1, 1, 1, 1, 1, 2]);
        list.remove(3);
        list.rotate_left(5);
        assert_eq!(table(&list, Some(&old)).owners, table(&list, None).owners);
    }

    #[test]
    fn the_shortcut_gives_what_the_formula_gives() {
        let contenders: Vec<Contender> = (0..9)
            .map(|i| Contender {
                index: i,
                weight: 1 + i * i,
                seed: hash(&[i as u8]),
            })
            .collect();
        for slot in 0..20_000 {
            let score = |c: &Contender| {
                let v = (mix(mix(slot as u64 + 1) ^ c.seed) >> 11) as f64 / (1u64 << 53) as f64;
                -f64::from(c.weight) / (1.0 - v).ln()
            };
            let by_formula = contenders
                .iter()
                .max_by(|a, b| score(a).total_cmp(&score(b)))
                .unwrap()
                .index;
            assert_eq!(best(slot, contenders.iter().copied()), by_formula);
        }
    }
}
