//! What a change removed and what still runs on it: listeners and endpoints drain for the time of
//! `process.grace`, then what is left is cut.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::config::Name;
use crate::proxy::snapshot::Snapshot;
use crate::upstream::Endpoint;

/// Listeners and endpoints that are on their way out.
#[derive(Debug, Default)]
pub struct Leaving {
    listeners: Vec<LeavingListener>,
    endpoints: Vec<LeavingEndpoint>,
}

#[derive(Debug)]
struct LeavingListener {
    slot: usize,
    name: Name,
    /// The last configuration that had it.
    last: Arc<Snapshot>,
    /// No connection ends it before: what waits in the queues of its sockets is still accepted.
    not_before: Nanos,
    deadline: Nanos,
    is_cut: bool,
}

#[derive(Debug)]
struct LeavingEndpoint {
    upstream: Name,
    endpoint: Arc<Endpoint>,
    deadline: Nanos,
}

/// What [`Leaving::advance`] asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Listeners whose time is up.
    pub cut: Vec<usize>,
    /// Some listener has no connection left, or some endpoint no exchange.
    pub ended: bool,
    /// Exchanges must look whether their endpoint is cut.
    pub wake: bool,
}

/// Workers take a last call of 100 ms before they close a socket, and may be late: a listener is
/// not gone before, even if it has no connection now.
const SETTLE: Duration = Duration::from_secs(1);

// === impl Leaving ===

impl Leaving {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.endpoints.is_empty()
    }

    /// How many listeners and endpoints are.
    pub fn counts(&self) -> (usize, usize) {
        (self.listeners.len(), self.endpoints.len())
    }

    /// The listener in `slot` goes; `last` is the last configuration that had it.
    pub fn add_listener(
        &mut self,
        slot: usize,
        name: Name,
        last: Arc<Snapshot>,
        now: Nanos,
        grace: Duration,
    ) {
        self.listeners.push(LeavingListener {
            slot,
            name,
            last,
            not_before: now + nanos(SETTLE),
            deadline: now.saturating_add(nanos(grace)),
            is_cut: false,
        });
    }

    /// An endpoint goes.
    pub fn add_endpoint(
        &mut self,
        upstream: Name,
        endpoint: Arc<Endpoint>,
        now: Nanos,
        grace: Duration,
    ) {
        self.endpoints.push(LeavingEndpoint {
            upstream,
            endpoint,
            deadline: now.saturating_add(nanos(grace)),
        });
    }

    /// An endpoint that is on its way out, to be used again.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Name, &Arc<Endpoint>)> {
        self.endpoints.iter().map(|e| (&e.upstream, &e.endpoint))
    }

    /// Endpoints that came back before they were gone.
    pub fn keep_endpoints(&mut self, is_back: impl Fn(&Arc<Endpoint>) -> bool) {
        self.endpoints.retain(|leaving| {
            let is_back = is_back(&leaving.endpoint);
            if is_back {
                leaving.endpoint.set_cut(false);
            }
            !is_back
        });
    }

    /// The last configurations of the listeners that are leaving, by slot.
    pub fn snapshots(&self) -> Vec<(usize, Arc<Snapshot>)> {
        self.listeners
            .iter()
            .map(|l| (l.slot, l.last.clone()))
            .collect()
    }

    /// How long listeners may go on that are leaving.
    pub fn longest(&self, now: Nanos) -> Nanos {
        let left = self.listeners.iter();
        let left = left.map(|l| l.deadline.saturating_sub(now));
        left.max().unwrap_or(0)
    }

    /// Whether a listener of this name is leaving.
    pub fn has_listener(&self, name: &str) -> bool {
        self.listeners.iter().any(|l| &*l.name == name)
    }

    /// Moves on to `now`: forgets what has ended, cuts what has had its time. `connections` counts
    /// those of the listener in a slot.
    pub fn advance(&mut self, now: Nanos, connections: impl Fn(usize) -> usize) -> Due {
        let mut due = Due::default();
        self.listeners.retain_mut(|leaving| {
            if now >= leaving.not_before && connections(leaving.slot) == 0 {
                due.ended = true;
                return false;
            }
            if now >= leaving.deadline && !leaving.is_cut {
                leaving.is_cut = true;
                due.cut.push(leaving.slot);
            }
            true
        });
        self.endpoints.retain(|leaving| {
            if leaving.endpoint.in_flight() == 0 {
                due.ended = true;
                return false;
            }
            if now >= leaving.deadline && !leaving.endpoint.is_cut() {
                leaving.endpoint.set_cut(true);
                due.wake = true;
            }
            true
        });
        due
    }
}
