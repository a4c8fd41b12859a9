//! One worker's view of an upstream: its endpoints of the current generation and their pools.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::guard::quantile::Quantile;

use super::{Admits, Endpoint, Health, Links, Members, Pool, Ticket, Tried, Upstream};

/// An upstream as one worker sees it.
#[derive(Debug)]
pub struct LocalUpstream {
    /// The shared upstream.
    pub shared: Arc<Upstream>,
    /// `keepalive.idle_timeout`.
    pub idle_timeout: Nanos,
    current: RefCell<Rc<Generation>>,
    /// How long responses take, once somebody asks.
    learnt: RefCell<Option<Box<Learnt>>>,
}

/// What a pick came to.
#[derive(Debug)]
pub enum Picked {
    /// This endpoint.
    One(Ticket),
    /// Endpoints are ready, and all have their most.
    Full,
    /// No endpoint is ready.
    Nobody,
}

/// Draws from the policy before every endpoint is looked at for room.
const DRAWS: usize = 3;

/// What is learnt of responses.
#[derive(Debug, Default)]
struct Learnt {
    latencies: Quantile,
    /// How many were seen, and how many of them taken for late.
    seen: u64,
    late: u64,
}

/// Responses that are remembered: at 1,000 a second, of the last ten to twenty seconds.
const LEARNT: u64 = 20_000;

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
    /// This worker's connections of HTTP/2 to it.
    pub links: Links,
}

// === impl LocalUpstream ===

impl LocalUpstream {
    /// A worker's view. `before` is its view of the same name before a reload: endpoints that stay
    /// keep their pools.
    pub fn new(shared: Arc<Upstream>, before: Option<&Self>) -> Self {
        // What was agreed on with other words, or in clear text, is not what is asked for now.
        let speaks_alike = |b: &&Self| {
            let (old, new) = (&b.shared.spec, &shared.spec);
            (old.protocol, &old.tls) == (new.protocol, &new.tls)
        };
        let before = before.filter(speaks_alike);
        let before = before.map(|b| b.current.borrow().clone());
        let known = before.as_ref().map_or(&[][..], |g| &g.endpoints);
        let generation = Generation::adopt(shared.members.load_full(), known);
        Self {
            idle_timeout: nanos(shared.spec.keepalive.idle_timeout),
            current: RefCell::new(Rc::new(generation)),
            learnt: RefCell::default(),
            shared,
        }
    }

    /// Picks an endpoint. Who was not `called` waits behind those who wait.
    pub fn pick(
        &self,
        key: Option<&[u8]>,
        tried: &Tried,
        is_called: bool,
        now: Nanos,
        rng: &mut Rng,
    ) -> Picked {
        let generation = self.refreshed();
        let members = &generation.members;
        if members.is_plain(now) {
            let tried = tried.indices(&generation);
            return match members.pick(key, &tried, now, rng) {
                Some(index) => Picked::One(Ticket::new(generation, index)),
                None => Picked::Nobody,
            };
        }
        if members.limits.is_some() && !is_called && self.shared.waiting.is_busy() {
            return Picked::Full;
        }
        self.pick_with_care(generation, key, tried, now, rng)
    }

    /// The endpoint that a sticky cookie names, while it may serve who holds one; [`Picked::Full`]
    /// while it has no room. Who was not `called` waits behind those who wait.
    pub fn pick_sticky(&self, cookie: &[u8], is_called: bool) -> Picked {
        let generation = self.refreshed();
        let Some(index) = generation.members.sticky.lookup(cookie) else {
            return Picked::Nobody;
        };
        if generation.members.limits.is_some() {
            if !is_called && self.shared.waiting.is_busy() {
                return Picked::Full;
            }
            let ticket = Ticket::within_limit(&generation, index, &self.shared.waiting);
            return ticket.map_or(Picked::Full, Picked::One);
        }
        Picked::One(Ticket::new(generation, index))
    }

    /// Whether who is with the ticket's endpoint may stay there: it is a member still, operators have not
    /// taken it out, and checks do not find it down.
    pub fn keeps(&self, ticket: &Ticket) -> bool {
        let generation = self.refreshed();
        let members = &generation.members;
        let endpoint = &ticket.endpoint().shared;
        let mut places = members.endpoints.iter();
        places
            .position(|e| Arc::ptr_eq(e, endpoint))
            .is_some_and(|index| {
                let is_down = endpoint.health() == Health::Down && !members.is_failing_open;
                members.admits[index] != Admits::Nobody && !is_down
            })
    }

    /// Whether somebody is ready who was not tried.
    pub fn has_other(&self, tried: &Tried) -> bool {
        let generation = self.refreshed();
        let tried = tried.indices(&generation);
        let eligible = |i: usize| generation.members.is_open(i);
        (0..generation.endpoints.len()).any(|i| eligible(i) && !tried.contains(&i))
    }

    /// Whether an endpoint has room, as far as limits go; in any tier, as who is called looks in all.
    pub fn has_room(&self) -> bool {
        let generation = self.refreshed();
        let members = &generation.members;
        (0..members.endpoints.len()).any(|i| members.is_open(i) && members.has_room(i))
    }

    /// Picks where endpoints have limits, or some ramp up.
    fn pick_with_care(
        &self,
        generation: Rc<Generation>,
        key: Option<&[u8]>,
        tried: &Tried,
        now: Nanos,
        rng: &mut Rng,
    ) -> Picked {
        let members = &generation.members;
        let mut avoid = tried.indices(&generation);
        let has_tried = avoid.len();
        let mut is_anybody_ready = false;
        let slow_start = self.shared.spec.slow_start.map_or(0, nanos);
        // Three draws find room as long as half of the endpoints have any; then every one is looked at.
        for draw in 0..DRAWS {
            let Some(index) = members.pick(key, &avoid, now, rng) else {
                break;
            };
            is_anybody_ready = true;
            let is_new = draw == 0
                && now < members.ramps_until
                && members.is_spared(index, slow_start, now, rng);
            if is_new {
                avoid.push(index);
                continue;
            }
            if members.limits.is_none() {
                return Picked::One(Ticket::new(generation, index));
            }
            // The policy knows nobody else.
            if avoid.contains(&index) {
                break;
            }
            if let Some(ticket) = Ticket::within_limit(&generation, index, &self.shared.waiting) {
                return Picked::One(ticket);
            }
            avoid.push(index);
        }
        if !is_anybody_ready {
            return Picked::Nobody;
        }
        // Tiers in the order in which they are used. Who was tried comes last, and only if nobody else
        // is ready: one that has no room now is worth the wait.
        let tried = &avoid[..has_tried];
        let is_ready = |index: usize| members.is_open(index);
        let has_other = (0..members.endpoints.len()).any(|i| is_ready(i) && !tried.contains(&i));
        for group in members.groups.iter().filter(|g| g.may_help()) {
            let start = rng.below(members.endpoints.len());
            let (before, after) = (0..start, start..members.endpoints.len());
            for index in after.chain(before) {
                if group.ready[index]
                    && tried.contains(&index) != has_other
                    && let Some(ticket) =
                        Ticket::within_limit(&generation, index, &self.shared.waiting)
                {
                    return Picked::One(ticket);
                }
            }
        }
        Picked::Full
    }

    /// Above which time one response in `100 - p` of a hundred is late; `None` = too few were seen.
    pub fn percentile(&self, p: u8) -> Option<Nanos> {
        self.learnt.borrow().as_ref()?.latencies.percentile(p)
    }

    /// A response took this long, from the first attempt to its head.
    pub fn learn(&self, latency: Nanos) {
        let mut learnt = self.learnt.borrow_mut();
        let learnt = learnt.get_or_insert_with(Box::default);
        learnt.latencies.observe(latency);
        learnt.seen += 1;
    }

    /// Whether one more may be taken for late above percentile `p`: no more than its share of all,
    /// however wrong the percentile has become (an upstream that grows slow makes all of them late).
    pub fn take_late(&self, p: u8) -> bool {
        let mut learnt = self.learnt.borrow_mut();
        let Some(learnt) = learnt.as_mut() else {
            return false;
        };
        let share = u64::from(100u8.saturating_sub(p));
        let is_granted = (learnt.late + 1) * 100 <= learnt.seen * share;
        learnt.late += u64::from(is_granted);
        // What is long past earns nothing any more.
        if learnt.seen >= LEARNT {
            learnt.seen /= 2;
            learnt.late /= 2;
        }
        is_granted
    }

    /// Closes idle connections that are dead or too old.
    pub fn sweep(&self, now: Nanos, worker: usize) {
        let generation = self.refreshed();
        // A limit that a reload brought, or raised: who went in before it calls nobody.
        if self.shared.waiting.is_busy() && self.has_room() {
            self.shared.waiting.call(now);
        }
        let cells = self.shared.cells.worker(worker);
        for (e, ready) in generation.endpoints.iter().zip(&generation.members.ready) {
            // While failing open it is used, and what is idle there with it.
            if !ready && e.shared.health() == Health::Down {
                e.pool.abandon(&e.shared, worker, cells);
                e.links.clear();
                continue;
            }
            e.pool
                .sweep(&e.shared, self.idle_timeout, now, worker, cells);
            e.links.sweep(self.idle_timeout, now);
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
            endpoint.links.clear();
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
                    links: Links::default(),
                }),
            })
            .collect();
        Self { members, endpoints }
    }
}
