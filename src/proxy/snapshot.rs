//! The compiled configuration that requests read: replaced whole, never changed.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, StatusCode};

use crate::base::clock::{Nanos, nanos};
use crate::base::tls::TlsServer;
use crate::config::{self, HeaderEdits, Name, Passthrough, Retry, Rewrite};
use crate::http1::Limits;
use crate::route::RouteTable;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::{ListenerCells, RouteCells};
use crate::upstream::Upstream;

use super::limit::RouteLimits;

/// What the workers read: the configuration of now, and what is left of earlier ones.
#[derive(Debug)]
pub struct Published {
    /// The configuration of now.
    pub snapshot: ArcSwap<Snapshot>,
    /// Listeners that a reload removed and whose connections drain: the slot, and the last
    /// configuration that had it. Stored before the snapshot that lacks them, so that no
    /// connection finds its listener in neither.
    pub leaving: ArcSwap<Vec<(usize, Arc<Snapshot>)>>,
}

/// One compiled configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts compilations.
    pub version: u64,
    /// By slot; a slot whose listener went is empty.
    pub listeners: Vec<Option<Arc<ListenerPlan>>>,
    /// Which route answers: its index in `plans`.
    pub routes: RouteTable<()>,
    /// Every route.
    pub plans: Vec<RoutePlan>,
    /// Where requests are counted that no route answers.
    pub unrouted: Arc<PerWorker<RouteCells>>,
    /// Every upstream, for sweeps and status.
    pub upstreams: Vec<Arc<Upstream>>,
}

/// A listener as requests see it.
#[derive(Debug)]
pub struct ListenerPlan {
    /// What the file says.
    pub spec: config::Listener,
    /// Its index in the route table's list of listeners.
    pub route_index: usize,
    /// What speaks TLS with its clients; `None` = clear text.
    pub tls: Option<Arc<TlsServer>>,
    /// Bounds of a request head.
    pub limits: Limits,
    /// `header_timeout`
    pub header_timeout: Nanos,
    /// `keepalive_timeout`
    pub keepalive_timeout: Nanos,
    /// `idle_timeout`
    pub idle_timeout: Nanos,
    /// Whom connections and datagrams go to that are not looked into.
    pub layer4: Layer4,
    /// Its metrics.
    pub cells: Arc<PerWorker<ListenerCells>>,
}

/// Where a listener passes things on as they are.
#[derive(Debug, Default)]
pub struct Layer4 {
    /// What comes by a listener of TCP or UDP; `None` = it names nobody.
    pub upstream: Option<Arc<Upstream>>,
    /// TLS that is not opened here, in the order of the file.
    pub passthrough: Vec<(Passthrough, Arc<Upstream>)>,
    /// What is neither TLS nor HTTP.
    pub other: Option<Arc<Upstream>>,
    /// How often whom it serves.
    pub limits: Option<Arc<RouteLimits>>,
}

/// A route as requests see it.
#[derive(Debug)]
pub struct RoutePlan {
    /// Its name.
    pub name: Name,
    /// What to do.
    pub action: Plan,
    /// Total deadline of the exchange.
    pub timeout: Option<Nanos>,
    /// Changes to the target and Host.
    pub rewrite: Rewrite,
    /// Edits of the request head.
    pub request_headers: HeaderEdits,
    /// Edits of the response head.
    pub response_headers: HeaderEdits,
    /// What is tried again.
    pub retry: Retry,
    /// How much it takes, if it has limits.
    pub limits: Option<Arc<RouteLimits>>,
    /// Its metrics.
    pub cells: Arc<PerWorker<RouteCells>>,
}

/// What a route does, resolved.
#[derive(Debug)]
pub enum Plan {
    /// Answer with a redirect.
    Redirect {
        /// Template of Location (see [`config::Action::Redirect`]).
        to: String,
        /// The status.
        status: StatusCode,
    },
    /// Answer with this.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body.
        body: Box<[u8]>,
        /// Content-Type.
        content_type: HeaderValue,
    },
    /// To one of these, by weight.
    Split {
        /// Upstreams with their weights.
        to: Vec<(Arc<Upstream>, u32)>,
        /// Sum of the weights, above 0.
        total: u64,
    },
    /// To this upstream.
    Upstream(Arc<Upstream>),
}

/// A snapshot as one worker holds it: behind an `Rc`, so that an exchange keeps it without touching
/// the count that all workers share.
#[derive(Debug)]
pub struct Held(pub Arc<Snapshot>);

// === impl Held ===

impl Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

// === impl Published ===

impl Published {
    /// The first configuration.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            leaving: ArcSwap::default(),
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The plan of the listener in `slot`.
    #[inline]
    pub fn listener(&self, slot: usize) -> Option<&ListenerPlan> {
        self.listeners.get(slot)?.as_deref()
    }

    /// The longest grace that listeners have of their own which pass things on to `upstream`.
    pub fn grace_of(&self, upstream: &str) -> Option<Duration> {
        let plans = self.listeners.iter().flatten();
        let leading = plans.filter(|plan| plan.layer4.leads_to(upstream));
        leading.filter_map(|plan| plan.spec.grace).max()
    }

    /// The plan of the listener in `slot`, to be kept.
    pub fn kept_listener(&self, slot: usize) -> Option<Arc<ListenerPlan>> {
        self.listeners.get(slot)?.clone()
    }
}

// === impl Layer4 ===

impl Layer4 {
    /// Whether something is passed on to `upstream`.
    fn leads_to(&self, upstream: &str) -> bool {
        let passthrough = self.passthrough.iter().map(|(_, to)| to);
        let mut all = passthrough.chain(&self.upstream).chain(&self.other);
        all.any(|to| &*to.spec.name == upstream)
    }
}

// === impl ListenerPlan ===

impl ListenerPlan {
    /// The plan of `spec`.
    pub fn new(
        spec: config::Listener,
        route_index: usize,
        tls: Option<Arc<TlsServer>>,
        layer4: Layer4,
        cells: Arc<PerWorker<ListenerCells>>,
    ) -> Self {
        Self {
            limits: Limits {
                max_head_bytes: spec.max_header_bytes,
                max_fields: spec.max_headers,
                // A target may fill its head: a limit of its own would only be one more key.
                max_target_bytes: spec.max_header_bytes,
            },
            header_timeout: nanos(spec.header_timeout),
            keepalive_timeout: nanos(spec.keepalive_timeout),
            idle_timeout: nanos(spec.idle_timeout),
            route_index,
            tls,
            layer4,
            cells,
            spec,
        }
    }
}
