//! The flows of each source, chained. A flow keeps the number of its chain: whose it is need not be looked up
//! each time it is heard of.

use std::collections::HashMap;

use super::Slot;
use super::chain::{Chain, Place};
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
    chain: Chain,
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
    pub(super) fn find(&self, source: Source) -> Option<&Chain> {
        let number = *self.numbers.get(&source)?;
        Some(&self.chains[number as usize].chain)
    }

    /// Whose the chain `number` is.
    pub(super) fn source(&self, number: u32) -> Source {
        self.chains[number as usize].source
    }

    /// The flow at `index` is one of `source` from now on; the number of its chain.
    pub(super) fn join<F>(&mut self, slots: &mut [Slot<F>], source: Source, index: u32) -> u32 {
        let number = *self.numbers.entry(source).or_insert_with(|| {
            let own = Own {
                source,
                chain: Chain::default(),
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
        let chain = &mut self.chains[number as usize].chain;
        chain.push(slots, Place::Source, index);
        number
    }

    /// The flow at `index` leaves its chain.
    pub(super) fn leave<F>(&mut self, slots: &mut [Slot<F>], number: u32, index: u32) {
        let own = &mut self.chains[number as usize];
        own.chain.unlink(slots, Place::Source, index);
        if own.chain.len == 0 {
            self.numbers.remove(&own.source);
            self.free.push(number);
        }
    }

    /// Puts the flow at `index` at the loud end of its chain.
    #[inline]
    pub(super) fn move_up<F>(&mut self, slots: &mut [Slot<F>], number: u32, index: u32) {
        let chain = &mut self.chains[number as usize].chain;
        chain.unlink(slots, Place::Source, index);
        chain.push(slots, Place::Source, index);
    }
}
