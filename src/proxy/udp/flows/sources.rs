//! The flows of each source, chained by kind. A flow keeps the number of its chain: whose it is need not be looked up
//! each time it is heard of.

use std::collections::HashMap;

use super::Slot;
use super::chain::{Kinds, Place};
use crate::proxy::udp::key::{Keyed, Source};

/// The chains of all sources that have flows.
#[derive(Debug)]
pub(super) struct Sources {
    numbers: HashMap<Source, u32, Keyed>,
    chains: Vec<Own>,
    /// Numbers that nobody has.
    free: Vec<u32>,
}

/// The flows of one source.
#[derive(Debug)]
struct Own {
    source: Source,
    kinds: Kinds,
}

// === impl Sources ===

impl Sources {
    /// None. `seed` keeps clients from aiming at places in the table.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            numbers: HashMap::with_hasher(Keyed::new(seed)),
            chains: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The flows of `source`.
    pub(super) fn find(&self, source: Source) -> Option<&Kinds> {
        let number = *self.numbers.get(&source)?;
        Some(&self.chains[number as usize].kinds)
    }

    /// Whose the chain `number` is.
    pub(super) fn source(&self, number: u32) -> Source {
        self.chains[number as usize].source
    }

    /// The flow at `index` is one of `source` from now on; the number of its chain.
    pub(super) fn join<F>(
        &mut self,
        slots: &mut [Slot<F>],
        source: Source,
        is_proven: bool,
        index: u32,
    ) -> u32 {
        let number = *self.numbers.entry(source).or_insert_with(|| {
            let own = Own {
                source,
                kinds: Kinds::default(),
            };
            if let Some(number) = self.free.pop() {
                self.chains[number as usize] = own;
                number
            } else {
                self.chains.push(own);
                // There are no more of them than flows, which have 32 bits.
                (self.chains.len() - 1) as u32
            }
        });
        let kinds = &mut self.chains[number as usize].kinds;
        kinds.of(is_proven).push(slots, Place::Source, index);
        number
    }

    /// The flow at `index` leaves its chain.
    pub(super) fn leave<F>(
        &mut self,
        slots: &mut [Slot<F>],
        number: u32,
        is_proven: bool,
        index: u32,
    ) {
        let own = &mut self.chains[number as usize];
        own.kinds.of(is_proven).unlink(slots, Place::Source, index);
        if own.kinds.len() == 0 {
            self.numbers.remove(&own.source);
            self.free.push(number);
        }
    }

    /// Puts the flow at `index` at the loud end of the chain of its kind, which may be another now.
    #[inline]
    pub(super) fn move_up<F>(
        &mut self,
        slots: &mut [Slot<F>],
        number: u32,
        (was_proven, is_proven): (bool, bool),
        index: u32,
    ) {
        let kinds = &mut self.chains[number as usize].kinds;
        kinds.of(was_proven).unlink(slots, Place::Source, index);
        kinds.of(is_proven).push(slots, Place::Source, index);
    }
}
