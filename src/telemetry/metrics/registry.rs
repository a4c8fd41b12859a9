//! Which objects exist: name to cells, get-or-create, so that an object that stays across a reload
//! keeps its counters.
//!
//! The lock in here is taken when a configuration is compiled, when members change and at a scrape;
//! never by an exchange.

use std::collections::BTreeMap;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cell::PerWorker;
use super::cells::{
    ConfigCells, EndpointCells, EndpointOutcome, ListenerCells, LogWriterCells, RouteCells,
    UpstreamCells, WorkerCells,
};
use super::fleet::FleetCells;
use crate::base::load::Load;

/// All cells of one server.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    worker_cells: Arc<PerWorker<WorkerCells>>,
    log_writer: Arc<LogWriterCells>,
    config: Arc<ConfigCells>,
    objects: Mutex<Objects>,
}

/// An object as [`Registry::retain`] asks about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// An endpoint of an upstream.
    Endpoint {
        /// The upstream's name.
        upstream: &'a str,
        /// The endpoint's address, as its label shows it.
        endpoint: &'a str,
    },
    /// A listener.
    Listener(&'a str),
    /// A route.
    Route(&'a str),
    /// An upstream; its endpoints go with it and are not asked about.
    Upstream(&'a str),
}

/// The certificates that a listener serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// What each is called, once, and when it ends to hold, in seconds since 1970.
    pub expiries: Vec<(String, i64)>,
    /// Whether their files have changed and cannot be served.
    pub is_failing: bool,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    /// Of listeners that speak TLS.
    pub(super) certificates: ByName<Certificates>,
    pub(super) fleet: Option<Arc<FleetCells>>,
    pub(super) listeners: ByName<PerWorker<ListenerCells>>,
    pub(super) routes: ByName<PerWorker<RouteCells>>,
    pub(super) upstreams: BTreeMap<Arc<str>, Upstream>,
}

pub(super) type ByName<T> = BTreeMap<Arc<str>, Arc<T>>;

#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pub(super) cells: Arc<PerWorker<UpstreamCells>>,
    pub(super) endpoints: BTreeMap<Arc<str>, Endpoint>,
    /// Endpoints that went while exchanges with them were in flight: still counted in the sums of
    /// the upstream, no longer shown.
    pub(super) leaving: BTreeMap<Arc<str>, Endpoint>,
    /// What endpoints that are gone for good had counted: an upstream's counters never go down.
    pub(super) gone: [u64; EndpointOutcome::ALL.len()],
}

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) cells: Arc<PerWorker<EndpointCells>>,
    pub(super) load: Arc<Load>,
}

// === impl Registry ===

impl Registry {
    /// A registry for a server of `workers` workers and one control plane.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            worker_cells: Arc::new(PerWorker::new(workers)),
            log_writer: Arc::default(),
            config: Arc::default(),
            objects: Mutex::default(),
        }
    }

    /// How many workers there are (the control plane is not one).
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Cells of the workers themselves.
    pub fn worker_cells(&self) -> Arc<PerWorker<WorkerCells>> {
        Arc::clone(&self.worker_cells)
    }

    /// Cells of the access log's writer thread.
    pub fn log_writer(&self) -> Arc<LogWriterCells> {
        Arc::clone(&self.log_writer)
    }

    /// Cells of the configuration.
    pub fn config(&self) -> Arc<ConfigCells> {
        Arc::clone(&self.config)
    }

    /// Cells of the fleet, which are shown from the first call on.
    pub fn fleet(&self) -> Arc<FleetCells> {
        self.lock().fleet.get_or_insert_default().clone()
    }

    /// The cells of the listener of this name.
    pub fn listener(&self, name: &str) -> Arc<PerWorker<ListenerCells>> {
        entry(&mut self.lock().listeners, name, || {
            Arc::new(PerWorker::new(self.workers))
        })
        .clone()
    }

    /// What a listener serves by TLS; `None` = it speaks clear text.
    pub fn set_certificates(&self, listener: &str, certificates: Option<Certificates>) {
        let mut objects = self.lock();
        match certificates {
            None => objects.certificates.remove(listener),
            Some(all) => objects.certificates.insert(listener.into(), Arc::new(all)),
        };
    }

    /// The cells of the route of this name.
    pub fn route(&self, name: &str) -> Arc<PerWorker<RouteCells>> {
        entry(&mut self.lock().routes, name, || {
            Arc::new(PerWorker::new(self.workers))
        })
        .clone()
    }

    /// The cells of the upstream of this name.
    pub fn upstream(&self, name: &str) -> Arc<PerWorker<UpstreamCells>> {
        Arc::clone(&self.upstream_entry(&mut self.lock(), name).cells)
    }

    /// The cells of an endpoint; `load` is where its exchanges in flight are read.
    pub fn endpoint(
        &self,
        upstream: &str,
        endpoint: &str,
        load: &Arc<Load>,
    ) -> Arc<PerWorker<EndpointCells>> {
        let mut objects = self.lock();
        let upstream = self.upstream_entry(&mut objects, upstream);
        // One that comes back before its last exchange ended goes on counting where it was.
        if let Some((name, back)) = upstream.leaving.remove_entry(endpoint) {
            upstream.endpoints.insert(name, back);
        }
        let found = entry(&mut upstream.endpoints, endpoint, || Endpoint {
            cells: Arc::new(PerWorker::new(self.workers)),
            load: Arc::clone(load),
        });
        found.load = Arc::clone(load);
        Arc::clone(&found.cells)
    }

    /// Forgets every object that `keep` refuses: its series disappear from the next scrape. Cells
    /// still held by exchanges in flight stay valid, and an endpoint's go on being counted in its
    /// upstream.
    pub fn retain(&self, mut keep: impl FnMut(Object<'_>) -> bool) {
        let mut objects = self.lock();
        objects
            .listeners
            .retain(|name, _| keep(Object::Listener(name)));
        let Objects {
            certificates,
            listeners,
            ..
        } = &mut *objects;
        certificates.retain(|name, _| listeners.contains_key(name));
        objects.routes.retain(|name, _| keep(Object::Route(name)));
        objects.upstreams.retain(|name, upstream| {
            if !keep(Object::Upstream(name)) {
                return false;
            }
            upstream.retain(|endpoint| {
                keep(Object::Endpoint {
                    upstream: name,
                    endpoint,
                })
            });
            true
        });
    }

    /// Forgets one endpoint, as [`retain`](Self::retain) does.
    pub fn remove_endpoint(&self, upstream: &str, endpoint: &str) {
        if let Some(upstream) = self.lock().upstreams.get_mut(upstream) {
            upstream.retain(|name| name != endpoint);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Objects> {
        // A panic elsewhere leaves maps whose every entry is whole: go on with them.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upstream_entry<'a>(&self, objects: &'a mut Objects, name: &str) -> &'a mut Upstream {
        entry(&mut objects.upstreams, name, || Upstream {
            cells: Arc::new(PerWorker::new(self.workers)),
            endpoints: BTreeMap::new(),
            leaving: BTreeMap::new(),
            gone: Default::default(),
        })
    }
}

/// `BTreeMap::entry` that copies the name only when it is new.
fn entry<'a, T>(
    map: &'a mut BTreeMap<Arc<str>, T>,
    name: &str,
    new: impl FnOnce() -> T,
) -> &'a mut T {
    let key = match map.get_key_value(name) {
        Some((key, _)) => Arc::clone(key),
        None => Arc::from(name),
    };
    map.entry(key).or_insert_with(new)
}

// === impl Upstream ===

impl Upstream {
    fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let leaving = &mut self.leaving;
        self.endpoints.retain(|name, endpoint| {
            let stays = keep(name);
            if !stays {
                leaving.insert(Arc::clone(name), endpoint.clone());
            }
            stays
        });
        self.settle();
    }

    /// Takes over the counts of endpoints that nobody else holds any more.
    pub(super) fn settle(&mut self) {
        let gone = &mut self.gone;
        self.leaving.retain(|_, endpoint| {
            if Arc::strong_count(&endpoint.cells) > 1 {
                return true;
            }
            // Pairs with the release of the last other holder's drop: its counts are seen here.
            fence(Ordering::Acquire);
            for (sum, outcome) in gone.iter_mut().zip(EndpointOutcome::ALL) {
                *sum += endpoint.cells.sum(|c| c.requests(outcome).value());
            }
            false
        });
    }

    /// Attempts with this outcome at all endpoints, gone ones included.
    pub(super) fn requests(&self, outcome: EndpointOutcome) -> u64 {
        let held = self.endpoints.values().chain(self.leaving.values());
        let held: u64 = held
            .map(|e| e.cells.sum(|c| c.requests(outcome).value()))
            .sum();
        self.gone[outcome as usize] + held
    }

    /// Exchanges in flight at all endpoints, those leaving included.
    pub(super) fn in_flight(&self) -> u64 {
        let held = self.endpoints.values().chain(self.leaving.values());
        held.map(|e| u64::from(e.load.in_flight.load(Ordering::Relaxed)))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(registry: &Registry) -> u64 {
        let mut objects = registry.lock();
        let upstream = objects.upstreams.get_mut("app").unwrap();
        upstream.settle();
        upstream.requests(EndpointOutcome::Ok)
    }

    #[test]
    fn object_that_stays_keeps_its_cells() {
        let registry = Registry::new(2);
        registry.route("a").worker(0).in_flight.inc();
        registry.listener("web").worker(1).accepts.add(7);
        registry.retain(|object| object != Object::Route("b"));
        assert_eq!(registry.route("a").worker(0).in_flight.value(), 1);
        assert_eq!(registry.listener("web").sum(|c| c.accepts.value()), 7);
        registry.retain(|object| object != Object::Route("a"));
        assert_eq!(
            registry.route("a").worker(0).in_flight.value(),
            0,
            "gone, then new"
        );
    }

    #[test]
    fn upstream_sum_survives_endpoints_that_go() {
        let registry = Registry::new(2);
        let load = Arc::new(Load::default());
        let held = registry.endpoint("app", "10.0.0.1:80", &load);
        held.worker(0).requests(EndpointOutcome::Ok).add(5);
        let other = registry.endpoint("app", "10.0.0.2:80", &load);
        other.worker(1).requests(EndpointOutcome::Ok).add(2);
        drop(other);
        registry.retain(|object| !matches!(object, Object::Endpoint { .. }));
        assert!(registry.lock().upstreams["app"].endpoints.is_empty());
        assert_eq!(
            registry.lock().upstreams["app"].leaving.len(),
            1,
            "one is still held"
        );
        held.worker(1).requests(EndpointOutcome::Ok).inc();
        assert_eq!(requests(&registry), 8);
        drop(held);
        assert_eq!(requests(&registry), 8);
        assert!(registry.lock().upstreams["app"].leaving.is_empty());
    }

    #[test]
    fn endpoint_that_comes_back_in_time_goes_on_counting() {
        let registry = Registry::new(1);
        let load = Arc::new(Load::default());
        let held = registry.endpoint("app", "10.0.0.1:80", &load);
        held.worker(0).requests(EndpointOutcome::Ok).add(5);
        registry.remove_endpoint("app", "10.0.0.1:80");
        let again = registry.endpoint("app", "10.0.0.1:80", &load);
        assert!(Arc::ptr_eq(&held, &again));
        assert_eq!(requests(&registry), 5);
    }
}
