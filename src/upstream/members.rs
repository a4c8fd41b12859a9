//! An upstream and its published generation of members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::balance::sticky::StickyIndex;
use crate::balance::{self, Balancer, Factory, Member};
use crate::base::load::Load;
use crate::config::{self, WhenUnhealthy};
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::UpstreamCells;
use crate::telemetry::metrics::registry::Registry;

use super::{Endpoint, Health};

/// A named set of endpoints with one policy.
#[derive(Debug)]
pub struct Upstream {
    /// The number of its name in this process: workers keep their views in a plain list.
    pub slot: usize,
    /// Counts the upstreams that were made: of two with the same name the later one holds.
    pub version: u64,
    /// What the file says.
    pub spec: config::Upstream,
    /// Makes its balancers, if they are not those of `spec.policy`.
    pub custom: Option<Factory>,
    /// The current generation, replaced whole.
    pub members: ArcSwap<Members>,
    /// The generation last published: what a worker compares on each pick instead of loading the
    /// members. Stored after them with `Release`, read with `Acquire`: who sees the number sees
    /// the members.
    generation: AtomicU64,
    /// Its metrics.
    pub cells: Arc<PerWorker<UpstreamCells>>,
    /// Where its schedules begin.
    seed: u64,
}

/// One published generation: endpoints, their loads and the balancer over them, always in step.
#[derive(Debug)]
pub struct Members {
    /// In configured order.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// `loads[i]` belongs to `endpoints[i]`.
    pub loads: Box<[Arc<Load>]>,
    /// For sticky look-ups: the identity of each endpoint.
    pub members: Box<[Member]>,
    /// Whom each serves, as operators want it.
    pub admits: Box<[Admits]>,
    /// Which of them may be picked.
    pub ready: Box<[bool]>,
    /// No member is up, and `when_unhealthy` says to use them all the same.
    pub is_failing_open: bool,
    /// The way from sticky cookies to the endpoints that may still serve those who hold one.
    pub sticky: StickyIndex,
    /// The policy over this very list.
    pub balancer: Arc<dyn Balancer>,
    /// Counts publications.
    pub generation: u64,
}

/// An endpoint in its place in an upstream: what the next generation is built of.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its weight, after operators had their say.
    pub weight: u32,
    /// Whether it takes exchanges.
    pub admits: Admits,
    /// Whether checks let it.
    pub health: Health,
}

/// Whom an endpoint serves, as operators want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Everybody.
    All,
    /// Nobody, not even who holds its sticky cookie.
    Nobody,
    /// Only who holds its sticky cookie: it drains.
    Sticky,
}

// === impl Upstream ===

impl Upstream {
    /// An upstream of `seats`; `custom` makes its balancers in the place of `spec.policy`.
    /// `previous` is the generation of the same name before: turns and tables go on from there.
    pub fn new(
        (slot, version): (usize, u64),
        spec: config::Upstream,
        custom: Option<Factory>,
        seats: &[Seat],
        previous: Option<&Members>,
        registry: &Registry,
        seed: u64,
    ) -> Self {
        let cells = registry.upstream(&spec.name);
        let members = Members::new(seats, &spec, custom.as_ref(), previous, seed);
        announce(&spec.name, &cells, previous, &members);
        Self {
            slot,
            version,
            custom,
            generation: AtomicU64::new(members.generation),
            members: ArcSwap::from_pointee(members),
            cells,
            seed,
            spec,
        }
    }

    /// The number of the generation last published.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Publishes a new generation. One writer at a time: the control plane's lock sees to that.
    /// What was replaced is returned, to be dropped where nobody waits for it.
    pub fn publish(&self, seats: &[Seat]) -> Arc<Members> {
        let previous = self.members.load_full();
        let next = Members::new(
            seats,
            &self.spec,
            self.custom.as_ref(),
            Some(&previous),
            self.seed,
        );
        announce(&self.spec.name, &self.cells, Some(&previous), &next);
        let generation = next.generation;
        self.members.store(Arc::new(next));
        self.generation.store(generation, Ordering::Release);
        previous
    }

    /// Publishes the same members with the health that they have now.
    pub fn publish_health(&self) -> Arc<Members> {
        let seats = self.members.load_full().seats();
        self.publish(&seats)
    }
}

// === impl Members ===

impl Members {
    fn new(
        seats: &[Seat],
        spec: &config::Upstream,
        custom: Option<&Factory>,
        previous: Option<&Members>,
        seed: u64,
    ) -> Self {
        let members: Box<[Member]> = seats
            .iter()
            .map(|seat| Member {
                name: seat.endpoint.name.clone(),
                weight: seat.weight,
            })
            .collect();
        let admitted = |s: &&Seat| s.admits == Admits::All;
        let is_failing_open = spec.when_unhealthy == WhenUnhealthy::FailOpen
            && seats.iter().any(|s| admitted(&s))
            && !seats
                .iter()
                .filter(admitted)
                .any(|s| s.health != Health::Down);
        let is_well = |s: &Seat| is_failing_open || s.health != Health::Down;
        let ready: Box<[bool]> = seats.iter().map(|s| admitted(&s) && is_well(s)).collect();
        let sticky: Vec<bool> = seats
            .iter()
            .map(|s| s.admits != Admits::Nobody && is_well(s))
            .collect();
        let balancer = match custom {
            Some(custom) => custom.build(&members, &ready),
            None => balance::build(
                &spec.policy,
                &members,
                &ready,
                previous.map(|p| &p.balancer),
                seed,
            ),
        };
        Self {
            endpoints: seats.iter().map(|s| s.endpoint.clone()).collect(),
            loads: seats.iter().map(|s| s.endpoint.load.clone()).collect(),
            sticky: StickyIndex::new(&members, &sticky),
            members,
            admits: seats.iter().map(|s| s.admits).collect(),
            ready,
            is_failing_open,
            balancer,
            generation: previous.map_or(1, |p| p.generation + 1),
        }
    }

    /// What it was built of, with the health of now.
    fn seats(&self) -> Vec<Seat> {
        let places = self.endpoints.iter().zip(&self.members).zip(&self.admits);
        places
            .map(|((endpoint, member), admits)| Seat {
                endpoint: endpoint.clone(),
                weight: member.weight,
                admits: *admits,
                health: endpoint.health(),
            })
            .collect()
    }
}

/// Says once when an upstream begins or ends to use endpoints that are down.
fn announce(
    name: &str,
    cells: &PerWorker<UpstreamCells>,
    previous: Option<&Members>,
    next: &Members,
) {
    let failing_open = &cells.control().failing_open;
    failing_open.set(u64::from(next.is_failing_open));
    let before = previous.is_some_and(|p| p.is_failing_open);
    match (before, next.is_failing_open) {
        (false, true) => tracing::warn!(
            upstream = name,
            "failing open: no endpoint is up, so all {} are used",
            next.endpoints.len()
        ),
        (true, false) => tracing::warn!(upstream = name, "failing open has ended"),
        (false, false) | (true, true) => {}
    }
}
