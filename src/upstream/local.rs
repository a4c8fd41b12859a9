//! One worker's view of an upstream: its endpoints of the current generation and their pools.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::Ask;
use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;

use super::{Endpoint, Health, Members, Pool, Ticket, Upstream};

/// An upstream as one worker sees it.
#[derive(Debug)]
pub struct LocalUpstream {
    /// The shared upstream.
    pub shared: Arc<Upstream>,
    /// `keepalive.idle_timeout`.
    pub idle_timeout: Nanos,
    current: RefCell<Rc<Generation>>,
}

/// One generation of members beside this worker's pools. Behind an `Rc`, so that a pick costs no
/// atomic reference count that all workers would fight for.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) members: Arc<Members>,
    pub(super) endpoints: Vec<Rc<LocalEndpoint>>,
}

/// An endpoint as one worker sees it.
#[derive(Debug)]
pub struct LocalEndpoint {
    /// The shared endpoint.
    pub shared: Arc<Endpoint>,
    /// This worker's idle connections to it.
    pub pool: Pool,
}

// === impl LocalUpstream ===

impl LocalUpstream {
    /// A worker's view. `before` is its view of the same name before a reload: endpoints that stay
    /// keep their pools.
    pub fn new(shared: Arc<Upstream>, before: Option<&Self>) -> Self {
        let before = before.map(|b| b.current.borrow().clone());
        let known = before.as_ref().map_or(&[][..], |g| &g.endpoints);
        let generation = Generation::adopt(shared.members.load_full(), known);
        Self {
            idle_timeout: nanos(shared.spec.keepalive.idle_timeout),
            current: RefCell::new(Rc::new(generation)),
            shared,
        }
    }

    /// Picks an endpoint; `None` = none is ready.
    pub fn pick(
        &self,
        key: Option<&[u8]>,
        tried: &[usize],
        now: Nanos,
        rng: &mut Rng,
    ) -> Option<Ticket> {
        let generation = self.refreshed();
        let members = &generation.members;
        let mut ask = Ask {
            loads: &members.loads,
            key,
            tried,
            now,
            rng,
        };
        let index = members.balancer.pick(&mut ask)?;
        Some(Ticket::new(generation, index))
    }

    /// The endpoint that a sticky cookie names, while it is ready.
    pub fn pick_sticky(&self, cookie: &[u8]) -> Option<Ticket> {
        let generation = self.refreshed();
        let members = &generation.members;
        let index = members.sticky.lookup(cookie)?;
        Some(Ticket::new(generation, index))
    }

    /// Closes idle connections that are dead or too old.
    pub fn sweep(&self, now: Nanos, worker: usize) {
        let generation = self.refreshed();
        let cells = self.shared.cells.worker(worker);
        for (e, ready) in generation.endpoints.iter().zip(&generation.members.ready) {
            // While failing open it is used, and what is idle there with it.
            if !ready && e.shared.health() == Health::Down {
                e.pool.abandon(&e.shared, worker, cells);
                continue;
            }
            e.pool
                .sweep(&e.shared, self.idle_timeout, now, worker, cells);
        }
    }

    /// How many endpoints it has.
    pub fn len(&self) -> usize {
        self.current.borrow().endpoints.len()
    }

    /// Whether it has no endpoint.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes every idle connection.
    pub fn clear(&self) {
        for endpoint in &self.current.borrow().endpoints {
            endpoint.pool.clear();
        }
    }

    /// Takes over a new generation if one was published; endpoints that stay keep their pools.
    #[inline]
    fn refreshed(&self) -> Rc<Generation> {
        let current = self.current.borrow().clone();
        if current.members.generation == self.shared.generation() {
            return current;
        }
        let next = Generation::adopt(self.shared.members.load_full(), &current.endpoints);
        let next = Rc::new(next);
        *self.current.borrow_mut() = next.clone();
        next
    }
}

// === impl Generation ===

impl Generation {
    fn adopt(members: Arc<Members>, before: &[Rc<LocalEndpoint>]) -> Self {
        let kept: HashMap<*const Endpoint, &Rc<LocalEndpoint>> =
            before.iter().map(|e| (Arc::as_ptr(&e.shared), e)).collect();
        let endpoints = members
            .endpoints
            .iter()
            .map(|shared| match kept.get(&Arc::as_ptr(shared)) {
                Some(local) => Rc::clone(local),
                None => Rc::new(LocalEndpoint {
                    shared: shared.clone(),
                    pool: Pool::default(),
                }),
            })
            .collect();
        Self { members, endpoints }
    }
}
