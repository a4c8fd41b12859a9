//! Idle connections of one worker to one endpoint.
//!
//! LIFO: the connection used last is the least likely to have been closed, and the others grow old
//! together and are swept. A connection that is readable while idle (its end, or bytes nobody asked
//! for: the start of a response-splitting attack) is never handed out.

use std::cell::RefCell;
use std::sync::Arc;

use crate::base::clock::Nanos;
use crate::base::stream::Stream;
use crate::telemetry::metrics::cells::{EndpointCells, PoolClose, UpstreamCells};

use crate::http2::ClientStream;

use super::{Endpoint, IdleLimit};

/// The idle connections.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Vec<Idle>>,
}

/// One open connection to an endpoint; counted while it lives.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub stream: Stream,
    /// For how long it had been idle when it was last taken from the pool.
    idle_for: Nanos,
    endpoint: Arc<Endpoint>,
    /// The endpoint's when it was made.
    epoch: u32,
    /// `None` = a stream of a connection, which is counted by itself.
    counted: Option<Counted>,
}

/// Counts an open connection while it lives.
#[derive(Debug)]
pub(super) struct Counted {
    endpoint: Arc<Endpoint>,
    worker: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Nanos,
    /// When it was last looked at and found alive.
    alive: Nanos,
}

/// What the request to be sent allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It may be replayed should the connection turn out dead (RFC 9110 section 9.2.2).
    Repeatable,
    /// It must reach an endpoint at most once.
    Unrepeatable,
}

/// What a checkout found.
#[derive(Debug)]
pub struct Checkout {
    /// A live connection, or `None`: dial.
    pub connection: Option<Connection>,
    /// Dead ones discarded on the way.
    pub stale: u32,
}

// === impl Connection ===

impl Connection {
    /// Counts a new connection of `worker` to `endpoint`.
    pub fn new(stream: Stream, endpoint: Arc<Endpoint>, worker: usize) -> Self {
        Self {
            stream,
            idle_for: 0,
            counted: Some(Counted::new(endpoint.clone(), worker)),
            epoch: endpoint.epoch(),
            endpoint,
        }
    }

    /// A stream on a connection that others use too.
    pub fn shared(stream: Box<ClientStream>, endpoint: &Arc<Endpoint>) -> Self {
        Self {
            stream: Stream::Channel(stream),
            idle_for: 0,
            endpoint: endpoint.clone(),
            epoch: endpoint.epoch(),
            counted: None,
        }
    }

    /// Whether its endpoint was removed and has had its time to drain, or was disconnected: what is
    /// left ends now.
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.endpoint.is_cut() || self.endpoint.epoch() != self.epoch
    }

    /// It was taken from the pool and turned out to have been closed there.
    pub fn lost_the_race(&self, now: Nanos) {
        if self.counted.is_some() {
            self.endpoint.idle_limit.closed(self.idle_for, now);
        }
    }
}

// === impl Counted ===

impl Counted {
    /// A new connection of `worker` to `endpoint`.
    pub(super) fn new(endpoint: Arc<Endpoint>, worker: usize) -> Self {
        let cells = endpoint.cells.worker(worker);
        cells.connections.inc();
        cells.connects.inc();
        Self { endpoint, worker }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.endpoint.cells.worker(self.worker).connections.dec();
    }
}

// === impl Idle ===

impl Idle {
    /// Whether it is alive; tells the endpoint's limit.
    fn note(&mut self, limit: &IdleLimit, now: Nanos) -> bool {
        if self.connection.stream.is_stale() {
            limit.closed(self.alive.saturating_sub(self.since), now);
            return false;
        }
        limit.survived(now.saturating_sub(self.alive));
        true
    }
}

// === impl Pool ===

impl Pool {
    /// Takes the youngest connection that may carry the request. `configured` is the upstream's
    /// `keepalive.idle_timeout`.
    pub fn take(
        &self,
        reuse: Reuse,
        endpoint: &Endpoint,
        configured: Nanos,
        now: Nanos,
        worker: usize,
    ) -> Checkout {
        let mut idle = self.idle.borrow_mut();
        let limit = &endpoint.idle_limit;
        let mut stale = 0;
        let mut found = None;
        while let Some(mut top) = idle.pop() {
            let age = now.saturating_sub(top.since);
            let allowed = match reuse {
                Reuse::Repeatable => Some(limit.repeatable(configured, now)),
                Reuse::Unrepeatable => limit.unrepeatable(configured),
            };
            if allowed.is_none_or(|allowed| age > allowed) {
                // It and every older one below it are too old for this request; what is dead or
                // too old for any the sweep will close.
                idle.push(top);
                break;
            }
            if top.connection.is_cut() {
                stale += 1;
                continue;
            }
            let stream = &mut top.connection.stream;
            let dead = match reuse {
                Reuse::Repeatable => stream.is_stale(),
                // The kernel is asked itself: the reactor may not have told us of a close yet.
                Reuse::Unrepeatable => stream.is_stale_now(),
            };
            if dead {
                limit.closed(top.alive.saturating_sub(top.since), now);
                stale += 1;
                continue;
            }
            limit.survived(now.saturating_sub(top.alive));
            top.connection.idle_for = age;
            found = Some(top.connection);
            break;
        }
        endpoint
            .cells
            .worker(worker)
            .idle_connections
            .set(idle.len() as u64);
        Checkout {
            connection: found,
            stale,
        }
    }

    /// Gives a connection back; a stream of one is over. Above `max_idle` the oldest is closed. Whether all fitted.
    pub fn put(&self, connection: Connection, now: Nanos, max_idle: usize) -> bool {
        let Some(counted) = &connection.counted else {
            return true;
        };
        let mut idle = self.idle.borrow_mut();
        let fits = idle.len() < max_idle;
        if max_idle == 0 {
            return fits;
        }
        if !fits {
            // Its idle time counts too: where requests that no kept connection may carry push
            // through a full pool, nothing in it grows old enough for a sweep.
            let mut oldest = idle.remove(0);
            oldest.note(&connection.endpoint.idle_limit, now);
        }
        let cells = connection.endpoint.cells.worker(counted.worker);
        cells.idle_connections.set(idle.len() as u64 + 1);
        idle.push(Idle {
            connection,
            since: now,
            alive: now,
        });
        fits
    }

    /// Closes what is dead or too old.
    pub fn sweep(
        &self,
        endpoint: &Endpoint,
        configured: Nanos,
        now: Nanos,
        worker: usize,
        upstream: &UpstreamCells,
    ) {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return;
        }
        let limit = &endpoint.idle_limit;
        idle.retain_mut(|c| {
            if !c.note(limit, now) {
                upstream.pool_closes(PoolClose::Dead).inc();
                return false;
            }
            c.alive = now;
            let age = now.saturating_sub(c.since);
            let keep = age <= limit.repeatable(configured, now);
            if !keep {
                upstream.pool_closes(PoolClose::Expired).inc();
            }
            keep
        });
        let cells: &EndpointCells = endpoint.cells.worker(worker);
        cells.idle_connections.set(idle.len() as u64);
    }

    /// Closes all: the endpoint is down.
    pub fn abandon(&self, endpoint: &Endpoint, worker: usize, upstream: &UpstreamCells) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        if idle.is_empty() {
            return;
        }
        let closes = upstream.pool_closes(PoolClose::Removed);
        closes.add(idle.len() as u64);
        endpoint.cells.worker(worker).idle_connections.set(0);
    }

    /// Closes all.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}
