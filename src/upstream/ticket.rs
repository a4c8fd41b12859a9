//! The receipt of a pick: counts the exchange on its endpoint and reports how it went.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::balance::Outcome;
use crate::balance::sticky::CookieValue;
use crate::base::clock::Nanos;

use super::local::Generation;
use super::{LocalEndpoint, Signal, Upstream, Waiting};

/// Held from the pick to the end of the body (the question that ruins least-request balancers is
/// when a request ends). Dropped without a word it counts as cancelled: nobody's fault.
#[derive(Debug)]
pub struct Ticket {
    /// The endpoint's index in the generation that made the pick.
    pub index: usize,
    generation: Rc<Generation>,
    /// Who is told that there is room again.
    waiting: Option<Arc<Waiting>>,
}

/// How an attempt went, as far as the endpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A response came that is no server error, however late.
    Answered,
    /// The client went away, or this process could not go on: nobody's fault. The elapsed time is
    /// still evidence for policies that learn.
    Cancelled,
    /// The endpoint failed: a server error, a reset, silence.
    Failed,
    /// Our own patience ended before the endpoint answered: slow, which is not broken.
    Late,
    /// No connection came about.
    Unconnected,
}

// === impl Seen ===

impl Seen {
    /// What policies make of it.
    const fn outcome(self) -> Outcome {
        match self {
            Self::Answered => Outcome::Ok,
            Self::Cancelled => Outcome::Cancelled,
            Self::Failed | Self::Late | Self::Unconnected => Outcome::Failed,
        }
    }
}

// === impl Ticket ===

impl Ticket {
    /// Counts one more exchange in flight on the endpoint at `index`.
    pub(super) fn new(generation: Rc<Generation>, index: usize) -> Self {
        // Relaxed: a load is a hint for the next pick; nothing else is published through it.
        generation.members.loads[index]
            .in_flight
            .fetch_add(1, Ordering::Relaxed);
        Self {
            index,
            generation,
            waiting: None,
        }
    }

    /// The same where the endpoint has room under its limit: exact, whatever other workers do.
    pub(super) fn within_limit(
        generation: &Rc<Generation>,
        index: usize,
        waiting: &Arc<Waiting>,
    ) -> Option<Self> {
        let members = &generation.members;
        let limit = members.limit(index);
        let in_flight = &members.loads[index].in_flight;
        // SeqCst: see `Waiting::pending`.
        in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                (n < limit).then_some(n + 1)
            })
            .ok()?;
        Some(Self {
            index,
            generation: generation.clone(),
            waiting: Some(waiting.clone()),
        })
    }

    /// The endpoint picked.
    pub fn endpoint(&self) -> &Rc<LocalEndpoint> {
        &self.generation.endpoints[self.index]
    }

    /// The sticky cookie's value for this endpoint, where the upstream has such cookies.
    pub fn cookie(&self) -> Option<CookieValue> {
        self.generation.members.sticky.value(self.index)
    }

    /// Hands on what the endpoint says of itself with a response, if that is news.
    pub fn hear(&self, upstream: &Upstream, line: &[u8]) {
        let endpoint = &self.generation.members.endpoints[self.index];
        if !endpoint.is_news(line) {
            return;
        }
        let is_sent = upstream.signals.send(Signal::Said {
            upstream: upstream.spec.name.clone(),
            endpoint: endpoint.clone(),
            line: line.into(),
        });
        if is_sent {
            endpoint.heard(line);
        }
    }

    /// Tells the policy how the attempt went; `elapsed` until the response head or the failure, `None` =
    /// the client's own time was in it.
    pub fn observe(&self, seen: Seen, elapsed: Option<Nanos>, now: Nanos) {
        let Some(elapsed) = elapsed else { return };
        let members = &self.generation.members;
        if let (Some(gradient), Seen::Answered) = (&members.guards[self.index].gradient, seen) {
            let in_flight = members.loads[self.index].in_flight.load(Ordering::Relaxed);
            gradient.observe(elapsed, in_flight, now);
        }
        let group = usize::from(members.group_of[self.index]);
        members.groups[group].balancer.observe(
            &members.loads[self.index],
            seen.outcome(),
            elapsed,
            now,
        );
    }

    /// The endpoint was connected: connects that failed before were no row.
    pub fn connected(&self) {
        self.generation.members.guards[self.index].connected();
    }

    /// Counts the attempt for or against the endpoint, once it is over.
    pub fn judge(&self, upstream: &Upstream, seen: Seen, now: Nanos) {
        let members = &self.generation.members;
        if let Some(trip) = members.guards[self.index].observe(seen, now) {
            upstream.signals.send(Signal::Tripped {
                upstream: upstream.spec.name.clone(),
                endpoint: members.endpoints[self.index].clone(),
                trip,
            });
        }
        if seen == Seen::Answered && upstream.spec.health.as_ref().is_some_and(|h| h.traffic) {
            members.endpoints[self.index].proved_well(now);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let in_flight = &self.generation.members.loads[self.index].in_flight;
        match &self.waiting {
            None => {
                in_flight.fetch_sub(1, Ordering::Relaxed);
            }
            Some(waiting) => {
                in_flight.fetch_sub(1, Ordering::SeqCst);
                if waiting.is_busy() {
                    waiting.call(0);
                }
            }
        }
    }
}
