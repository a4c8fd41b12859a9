//! An upstream and its published generation of members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::balance::sticky::StickyIndex;
use crate::balance::{self, Balancer, Factory, Member};
use crate::base::load::Load;
use crate::config;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::UpstreamCells;
use crate::telemetry::metrics::registry::Registry;

use super::{Endpoint, IdleLimit};

/// A named set of endpoints with one policy.
#[derive(Debug)]
pub struct Upstream {
    /// Its number in this process: never reused, so that workers keep their view in a plain list.
    pub slot: usize,
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
    /// Which of them may be picked.
    pub ready: Box<[bool]>,
    /// The way from sticky cookies to ready endpoints.
    pub sticky: StickyIndex,
    /// The policy over this very list.
    pub balancer: Arc<dyn Balancer>,
    /// Counts publications.
    pub generation: u64,
}

// === impl Upstream ===

impl Upstream {
    /// An upstream whose endpoints are all ready; `custom` makes its balancers in the place of
    /// `spec.policy`.
    pub fn new(
        slot: usize,
        spec: config::Upstream,
        custom: Option<Factory>,
        registry: &Registry,
        seed: u64,
    ) -> Self {
        let cells = registry.upstream(&spec.name);
        let endpoints: Box<[Arc<Endpoint>]> = spec
            .endpoints
            .iter()
            .map(|e| {
                let name: Box<str> = e.addr.to_string().into();
                let load = Arc::new(Load::default());
                let cells = registry.endpoint(&spec.name, &name, &load);
                Arc::new(Endpoint {
                    name,
                    addr: e.addr.clone(),
                    load,
                    idle_limit: IdleLimit::default(),
                    cells,
                })
            })
            .collect();
        let members = spec
            .endpoints
            .iter()
            .zip(&endpoints)
            .map(|(e, shared)| Member {
                name: shared.name.clone(),
                weight: e.weight,
            })
            .collect();
        let members = Members::new(
            endpoints,
            members,
            &spec.policy,
            custom.as_ref(),
            None,
            seed,
        );
        Self {
            slot,
            spec,
            custom,
            generation: AtomicU64::new(members.generation),
            members: ArcSwap::from_pointee(members),
            cells,
        }
    }

    /// The number of the generation last published.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

// === impl Members ===

impl Members {
    fn new(
        endpoints: Box<[Arc<Endpoint>]>,
        members: Box<[Member]>,
        policy: &balance::Policy,
        custom: Option<&Factory>,
        previous: Option<&Members>,
        seed: u64,
    ) -> Self {
        let ready: Box<[bool]> = vec![true; members.len()].into();
        let balancer = match custom {
            Some(custom) => custom.build(&members, &ready),
            None => balance::build(
                policy,
                &members,
                &ready,
                previous.map(|p| &p.balancer),
                seed,
            ),
        };
        Self {
            loads: endpoints.iter().map(|e| e.load.clone()).collect(),
            sticky: StickyIndex::new(&members, &ready),
            endpoints,
            members,
            ready,
            balancer,
            generation: previous.map_or(1, |p| p.generation + 1),
        }
    }
}
