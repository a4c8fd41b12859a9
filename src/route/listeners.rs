//! Sets of listeners, each distinct set stored once: a rule's and a bucket's restriction.

use std::sync::Arc;

/// A set inside [`ListenerSets`]; [`ListenerSet::ALL`] is every listener, also future ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerSet(u32);

/// The sets of one table. One table serves all listeners, so that a thousand routes shared by ten
/// listeners are stored once; a restricted route costs one test of a bit.
#[derive(Clone, Debug)]
pub(super) struct ListenerSets {
    names: Box<[Arc<str>]>,
    /// Bitmaps by listener index; few, because most rules share a handful of sets.
    sets: Vec<Box<[u64]>>,
}

// === impl ListenerSet ===

impl ListenerSet {
    pub(super) const ALL: Self = Self(u32::MAX);
}

// === impl ListenerSets ===

impl ListenerSets {
    pub(super) fn new(names: &[Arc<str>]) -> Self {
        Self {
            names: names.into(),
            sets: Vec::new(),
        }
    }

    /// The set of a rule that names `listeners`. Unknown names are in no set: a rule that names
    /// only such matches nothing.
    pub(super) fn of_rule(&mut self, listeners: &[Arc<str>]) -> ListenerSet {
        if listeners.is_empty() {
            return ListenerSet::ALL;
        }
        let mut bits = vec![0; self.names.len().div_ceil(64)];
        for (index, name) in self.names.iter().enumerate() {
            if listeners.contains(name) {
                bits[index / 64] |= 1 << (index % 64);
            }
        }
        self.store(bits)
    }

    /// Every listener of both.
    pub(super) fn union(&mut self, a: ListenerSet, b: ListenerSet) -> ListenerSet {
        if a == b {
            return a;
        }
        let (Some(left), Some(right)) = (self.bits(a), self.bits(b)) else {
            return ListenerSet::ALL;
        };
        let bits = left.iter().zip(right).map(|(l, r)| l | r).collect();
        self.store(bits)
    }

    #[inline]
    pub(super) fn contains(&self, set: ListenerSet, listener: usize) -> bool {
        self.bits(set).is_none_or(|bits| {
            bits.get(listener / 64)
                .is_some_and(|word| word >> (listener % 64) & 1 == 1)
        })
    }

    /// `None` is [`ListenerSet::ALL`].
    #[inline]
    fn bits(&self, set: ListenerSet) -> Option<&[u64]> {
        if set == ListenerSet::ALL {
            return None;
        }
        self.sets.get(set.0 as usize).map(|bits| &**bits)
    }

    fn store(&mut self, bits: Vec<u64>) -> ListenerSet {
        let found = self.sets.iter().position(|known| **known == *bits);
        let index = found.unwrap_or_else(|| {
            self.sets.push(bits.into());
            self.sets.len() - 1
        });
        ListenerSet(index as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_their_listeners_only() {
        let names: Vec<Arc<str>> = (0..70).map(|i| Arc::from(format!("l{i}"))).collect();
        let mut sets = ListenerSets::new(&names);
        let a = sets.of_rule(&[names[0].clone(), names[69].clone()]);
        let b = sets.of_rule(&[names[1].clone(), Arc::from("unknown")]);
        let both = sets.union(a, b);
        let held = |set| {
            (0..200)
                .filter(|&i| sets.contains(set, i))
                .collect::<Vec<_>>()
        };
        assert_eq!(held(a), [0, 69]);
        assert_eq!(held(b), [1]);
        assert_eq!(held(both), [0, 1, 69]);
        assert_eq!(held(ListenerSet::ALL).len(), 200);
    }

    #[test]
    fn all_absorbs_and_equal_sets_are_stored_once() {
        let names = [Arc::from("a"), Arc::from("b")];
        let mut sets = ListenerSets::new(&names);
        let a = sets.of_rule(&names[..1]);
        assert_eq!(sets.of_rule(&[names[0].clone(), names[0].clone()]), a);
        assert_eq!(sets.union(a, ListenerSet::ALL), ListenerSet::ALL);
        assert_eq!(sets.of_rule(&[]), ListenerSet::ALL);
        let nowhere = sets.of_rule(&[Arc::from("x")]);
        assert!((0..3).all(|i| !sets.contains(nowhere, i)));
    }
}
