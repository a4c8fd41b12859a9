//! The receipt of a pick: counts the exchange on its endpoint and reports how it went.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::balance::{Member, Outcome};
use crate::base::clock::Nanos;

use super::LocalEndpoint;
use super::local::Generation;

/// Held from the pick to the end of the body (the question that ruins least-request balancers is
/// when a request ends). Dropped without a word it counts as cancelled: nobody's fault.
#[derive(Debug)]
pub struct Ticket {
    /// The endpoint's index in the generation that made the pick.
    pub index: usize,
    generation: Rc<Generation>,
}

// === impl Ticket ===

impl Ticket {
    /// Counts one more exchange in flight on the endpoint at `index`.
    pub(super) fn new(generation: Rc<Generation>, index: usize) -> Self {
        // Relaxed: a load is a hint for the next pick; nothing else is published through it.
        generation.members.loads[index]
            .in_flight
            .fetch_add(1, Ordering::Relaxed);
        Self { index, generation }
    }

    /// The endpoint picked.
    pub fn endpoint(&self) -> &Rc<LocalEndpoint> {
        &self.generation.endpoints[self.index]
    }

    /// The sticky cookie's value for this endpoint.
    pub fn member(&self) -> &Member {
        &self.generation.members.members[self.index]
    }

    /// Tells the policy how the attempt went; `elapsed` until the response head or the failure.
    pub fn observe(&self, outcome: Outcome, elapsed: Nanos, now: Nanos) {
        let members = &self.generation.members;
        members
            .balancer
            .observe(&members.loads[self.index], outcome, elapsed, now);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.generation.members.loads[self.index]
            .in_flight
            .fetch_sub(1, Ordering::Relaxed);
    }
}
