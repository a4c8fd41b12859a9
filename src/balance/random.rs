//! `random`: independent draws in proportion to the weights; no state at all between workers.

use super::alias::Alias;
use super::ready::Ready;
use super::{Ask, Balancer, Member};

/// Weighted random.
#[derive(Debug)]
pub(super) struct Random {
    ready: Ready,
    alias: Alias,
}

// === impl Random ===

impl Random {
    /// Draws among the ready members.
    pub(super) fn new(members: &[Member], ready: &[bool]) -> Self {
        let ready = Ready::new(members, ready);
        Self {
            alias: Alias::new(ready.weights()),
            ready,
        }
    }
}

impl Balancer for Random {
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        let position = self
            .ready
            .draw(ask.tried, ask.rng, |rng| self.alias.draw(rng))?;
        Some(self.ready.index(position))
    }
}
