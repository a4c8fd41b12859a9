//! What operators can ask of a running server, and what they are told. The admin socket, signals and
//! the file watch all end here.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::base::clock::{Clock, Nanos};
use crate::base::tls::CertificateFacts;
use crate::config::diff::{Change as ConfigChange, Diff, FieldChange, Object, Verbosity, diff};
use crate::config::effective::effective_toml;
use crate::config::{self, Config, Loaded, Problems};
use crate::fleet::id::PeerId;
use crate::guard::breaker::State;
use crate::health::duty::Role;
use crate::proxy::snapshot::{Published, Snapshot};
use crate::telemetry::history::{Cause, Page, Timeline, Trigger, What, hexadecimal};
use crate::telemetry::log::LevelSwitch;
use crate::telemetry::metrics::cells::{ConfigCells, EndpointOutcome};
use crate::upstream::overrides::{Applied, Change, Overrides, Reconciled, layers};
use crate::upstream::said::Said;
use crate::upstream::{Health, Members, Upstream};

use super::fleet::Fleet;
use super::live::{ChangeError, Live, ReloadError};
use super::readiness::Readiness;
use super::views::{
    CertificateView, ConfigView, EjectedView, EndpointView, FailureView, FleetDiffView, FleetView,
    LastCheckView, LeavingView, ListenerView, MemberView, Observed, SinceView, Status,
    UpstreamSummary, UpstreamView,
};

/// What operators can ask of a server; clones speak to the same one.
///
/// A call may block for as long as a reload takes to build its tables: not for a worker, nor for a
/// task of the control runtime.
#[derive(Clone, Debug)]
pub struct Operations(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    live: Arc<Mutex<Live>>,
    published: Arc<Published>,
    readiness: Arc<Readiness>,
    timeline: Timeline,
    cells: Arc<ConfigCells>,
    clock: Clock,
    started_at: Nanos,
    /// The configuration that the process started with: some of it only a restart changes.
    started: Arc<Config>,
    source: Mutex<Source>,
    orders: mpsc::Sender<Order>,
    are_orders_taken: AtomicBool,
}

/// Where the configuration comes from. Held for the whole of a reload: one at a time.
#[derive(Debug, Default)]
struct Source {
    path: Option<PathBuf>,
    files: Vec<PathBuf>,
    hash: u64,
    loaded_at_unix_ms: u64,
    last_error: Option<FailureView>,
    /// The program's own log follows the configuration, whoever asks for the reload.
    level: Option<LevelSwitch>,
    follower: Option<Follower>,
}

/// Hears of every reload that was made: the hash of what was read.
struct Follower(Box<dyn Fn(u64) + Send>);

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

/// What only the process itself can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain and end, as on SIGTERM.
    Drain,
    /// Replace the binary, as on SIGUSR2.
    Upgrade,
}

/// What a reload does, or would do.
#[derive(Clone, Debug, Serialize)]
pub struct PlanView {
    /// Object by object.
    pub diff: Diff,
    /// What the checker warns of.
    pub warnings: Vec<String>,
    /// What becomes of operators' overrides.
    pub overrides: Vec<Reconciled>,
    /// All of it for people.
    pub text: String,
    /// Hash of the files read.
    #[serde(serialize_with = "hexadecimal")]
    pub hash: u64,
    /// The files read, for whoever watches them.
    pub files: Vec<PathBuf>,
}

/// Why a configuration was not taken. The old one serves on.
#[derive(Debug, Error)]
pub enum ReloadFailure {
    /// The files are wrong, or cannot be read.
    #[error("{0}")]
    Invalid(Problems),
    /// The command line, or an embedding program, configures this server.
    #[error("nothing to reload: this server was not started from a configuration file")]
    NoFile,
    /// What it asks for cannot be had.
    #[error(transparent)]
    Unavailable(ReloadError),
}

/// Why an order was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    /// Another one is being followed.
    #[error("the process follows an earlier order; try again")]
    Busy,
    /// An embedding program does not follow orders.
    #[error("the program that embeds this server does not take this order")]
    NotTaken,
}

/// Why two peers cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FleetDiffError {
    /// The server asked is no peer.
    #[error("this server has no [fleet]")]
    NoFleet,
    /// It is the peer that is asked itself.
    #[error("`{0}` is this peer itself")]
    Own(String),
    /// Nobody of this name.
    #[error("there is no peer `{0}`; `isobar fleet members` shows them")]
    UnknownPeer(String),
    /// It does not answer.
    #[error("peer {peer} at {address} does not answer: {why}")]
    Unreached {
        /// Who.
        peer: String,
        /// Where.
        address: String,
        /// What went wrong.
        why: String,
    },
}

/// What [`Operations::new`] needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) live: Arc<Mutex<Live>>,
    pub(crate) published: Arc<Published>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) timeline: Timeline,
    pub(crate) cells: Arc<ConfigCells>,
    pub(crate) orders: mpsc::Sender<Order>,
}

// === impl Operations ===

impl Operations {
    /// Operations on what is live.
    pub(crate) fn new(parts: Parts) -> Self {
        let clock = Clock::start();
        let live = parts.live.lock().unwrap_or_else(PoisonError::into_inner);
        let started = live.config().clone();
        drop(live);
        let source = Source {
            loaded_at_unix_ms: clock.unix_ms(),
            ..Source::default()
        };
        parts.cells.succeeded(source.loaded_at_unix_ms);
        Self(Arc::new(Shared {
            live: parts.live,
            published: parts.published,
            readiness: parts.readiness,
            timeline: parts.timeline,
            cells: parts.cells,
            clock,
            started_at: clock.now(),
            started,
            source: Mutex::new(source),
            orders: parts.orders,
            are_orders_taken: AtomicBool::new(false),
        }))
    }

    /// When the server started, in milliseconds since 1970.
    pub fn started_unix_ms(&self) -> u64 {
        let ago = self.0.clock.now().saturating_sub(self.0.started_at);
        self.0.clock.unix_ms().saturating_sub(ago / 1_000_000)
    }

    /// The configuration served was loaded from here; reloads read it again.
    pub fn set_source(&self, loaded: &Loaded) {
        let mut source = self.source();
        source.path = loaded.files.first().cloned();
        source.files.clone_from(&loaded.files);
        source.hash = loaded.hash;
        drop(source);
        if let Some(fleet) = self.fleet() {
            fleet.serves(loaded.hash);
        }
    }

    /// Lets `log.level` of the configuration served set the level of the program's own log.
    pub fn follow_level(&self, level: LevelSwitch) {
        self.source().level = Some(level);
    }

    /// Calls `hear` after every reload, whoever asked for it, with the hash of what was read. It must
    /// not call back.
    pub fn follow_reloads(&self, hear: impl Fn(u64) + Send + 'static) {
        self.source().follower = Some(Follower(Box::new(hear)));
    }

    /// The server at a glance.
    pub fn status(&self) -> Status {
        let shared = &*self.0;
        let config = self.config_view();
        let snapshot = shared.published.snapshot.load_full();
        let live = self.live();
        let (listeners, endpoints) = live.leaving().counts();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: (shared.clock.now().saturating_sub(shared.started_at)) / 1_000_000_000,
            state: shared.readiness.state().as_str(),
            workers: live.workers().len(),
            config,
            listeners: live
                .config()
                .listeners
                .iter()
                .map(|listener| ListenerView {
                    name: listener.name.to_string(),
                    protocol: listener.serves.as_str(),
                    upstream: listener.serves.upstream().map(ToString::to_string),
                    addresses: live.sockets().texts(&listener.name),
                    connections: live.sockets().connections(&listener.name).unwrap_or(0),
                    certificates: certificates(&snapshot, &listener.name),
                })
                .collect(),
            upstreams: snapshot
                .upstreams
                .iter()
                .map(|upstream| {
                    let members = upstream.members.load();
                    UpstreamSummary {
                        name: upstream.spec.name.to_string(),
                        endpoints: members.endpoints.len(),
                        ready: members.ready.iter().filter(|ready| **ready).count(),
                        down: members
                            .endpoints
                            .iter()
                            .filter(|e| e.health() == Health::Down)
                            .count(),
                        failing_open: members.is_failing_open,
                        in_flight: members.endpoints.iter().map(|e| e.in_flight()).sum(),
                    }
                })
                .collect(),
            overrides: live.overrides().len(),
            leaving: LeavingView {
                listeners,
                endpoints,
            },
        }
    }

    /// The configuration served, every default filled in, as TOML; secrets are masked.
    pub fn config(&self) -> String {
        let config = self.live().config().clone();
        effective_toml(&config)
    }

    /// Every upstream with its endpoints.
    pub fn upstreams(&self) -> Vec<UpstreamView> {
        let (overrides, fleet) = self.said();
        let snapshot = self.0.published.snapshot.load_full();
        let upstreams = snapshot.upstreams.iter();
        upstreams
            .map(|u| upstream_view(u, &overrides, fleet.as_ref()))
            .collect()
    }

    /// One upstream.
    pub fn upstream(&self, name: &str) -> Option<UpstreamView> {
        let (overrides, fleet) = self.said();
        let snapshot = self.0.published.snapshot.load_full();
        let found = snapshot.upstreams.iter().find(|u| &*u.spec.name == name)?;
        Some(upstream_view(found, &overrides, fleet.as_ref()))
    }

    fn said(&self) -> (Overrides, Option<Fleet>) {
        let live = self.live();
        (live.overrides().clone(), live.fleet().cloned())
    }

    /// What a reload of the files would do.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn plan(&self) -> Result<PlanView, ReloadFailure> {
        let path = self.source().path.clone().ok_or(ReloadFailure::NoFile)?;
        self.plan_file(&path)
    }

    /// What it would do to serve this file instead.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn plan_file(&self, path: &Path) -> Result<PlanView, ReloadFailure> {
        let loaded = config::load(path).map_err(ReloadFailure::Invalid)?;
        let live = self.live();
        Ok(plan(&live, &loaded))
    }

    /// Reads the files again and serves what they say. Waits for a reload that is under way.
    ///
    /// # Errors
    /// What is wrong with them, or cannot be had; the old configuration serves on, and `status`
    /// keeps the reason.
    pub fn reload(&self, trigger: Trigger) -> Result<PlanView, ReloadFailure> {
        let mut source = self.source();
        let Some(path) = source.path.clone() else {
            tracing::warn!("{}", ReloadFailure::NoFile);
            return Err(ReloadFailure::NoFile);
        };
        let tried = config::load(&path)
            .map_err(ReloadFailure::Invalid)
            .and_then(|loaded| self.switch(loaded));
        let now = self.0.clock.unix_ms();
        match tried {
            Ok(plan) => {
                source.files.clone_from(&plan.files);
                source.hash = plan.hash;
                source.loaded_at_unix_ms = now;
                source.last_error = None;
                if let Some(level) = &source.level {
                    level.set(self.live().config().log.level);
                }
                if let Some(Follower(hear)) = &source.follower {
                    hear(plan.hash);
                }
                if let Some(fleet) = self.fleet() {
                    fleet.serves(plan.hash);
                }
                self.0.cells.succeeded(now);
                let cause = Cause::Reload {
                    trigger,
                    hash: plan.hash,
                };
                let counts = plan.diff.summary();
                tracing::info!(
                    hash = format_args!("{:016x}", plan.hash),
                    "reloaded: {counts}"
                );
                let what = What::Config {
                    counts: counts.clone(),
                };
                self.0.timeline.record(now, cause.clone(), what, counts);
                for said in &plan.overrides {
                    if !said.fate.is_kept() {
                        tracing::warn!("{}", said.text);
                    }
                    let what = What::of_override(&said.upstream, &said.endpoint);
                    self.0
                        .timeline
                        .record(now, cause.clone(), what, said.text.clone());
                }
                Ok(plan)
            }
            Err(failure) => {
                let text = match &failure {
                    ReloadFailure::Invalid(problems @ Problems::Io { source, .. }) => {
                        format!("{problems}: {source}")
                    }
                    ReloadFailure::Invalid(Problems::Invalid(_))
                    | ReloadFailure::NoFile
                    | ReloadFailure::Unavailable(_) => failure.to_string(),
                };
                tracing::error!(
                    "the configuration was not reloaded, the old one serves on\n{text}"
                );
                source.last_error = Some(FailureView {
                    at_unix_ms: now,
                    text: text.clone(),
                });
                self.0.cells.failed();
                // The hash of files that cannot be read is that of nothing.
                let cause = Cause::Reload { trigger, hash: 0 };
                self.0
                    .timeline
                    .record(now, cause, What::ConfigRefused, text);
                Err(failure)
            }
        }
    }

    /// Keeps in mind that a successor did not take over, and why.
    pub fn upgrade_failed(&self, why: &str) {
        let what = What::Process {
            state: "serving".to_owned(),
        };
        let text = format!("not upgraded: {why}; this process serves on");
        let now = self.0.clock.unix_ms();
        self.0.timeline.record(now, Cause::Upgrade, what, text);
    }

    /// Does what an operator asks for an endpoint.
    ///
    /// # Errors
    /// What cannot be, or cannot be saved; nothing has changed.
    pub fn change(&self, change: Change) -> Result<Applied, ChangeError> {
        self.live().change(change)
    }

    /// The fleet as this peer knows it; `None` = this server has no `[fleet]`.
    pub fn fleet_status(&self) -> Option<FleetView> {
        self.fleet().map(|fleet| fleet.view())
    }

    /// The peers of the fleet, this one first; `None` = this server has no `[fleet]`.
    pub fn fleet_members(&self) -> Option<Vec<MemberView>> {
        self.fleet().map(|fleet| fleet.member_views())
    }

    /// What this peer and another, named by its id or its address, know differently. Asks the other.
    ///
    /// # Errors
    /// There is no fleet, no such peer, or no answer.
    pub fn fleet_diff(&self, peer: &str) -> Result<FleetDiffView, FleetDiffError> {
        let fleet = self.fleet().ok_or(FleetDiffError::NoFleet)?;
        fleet.diff(peer)
    }

    /// The lock is not held while the fleet is asked: another peer may have to answer.
    fn fleet(&self) -> Option<Fleet> {
        self.live().fleet().cloned()
    }

    /// What happened after event `since`, at most `limit` events.
    pub fn history(&self, since: u64, limit: usize) -> Page {
        self.0.timeline.since(since, limit)
    }

    /// The last `limit` events.
    pub fn latest(&self, limit: usize) -> Page {
        self.0.timeline.latest(limit)
    }

    /// Asks the process itself.
    ///
    /// # Errors
    /// Nobody takes orders there.
    pub fn order(&self, order: Order) -> Result<(), OrderError> {
        if !self.takes_orders() {
            return Err(OrderError::NotTaken);
        }
        self.0.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OrderError::Busy,
            mpsc::error::TrySendError::Closed(_) => OrderError::NotTaken,
        })
    }

    /// Whether the process takes orders.
    pub fn takes_orders(&self) -> bool {
        // Relaxed: the flag guards nothing but itself.
        self.0.are_orders_taken.load(Ordering::Relaxed) && !self.0.orders.is_closed()
    }

    /// Somebody takes orders from now on.
    pub(crate) fn orders_are_taken(&self) {
        self.0.are_orders_taken.store(true, Ordering::Relaxed);
    }

    /// Serves a configuration that was loaded and checked.
    fn switch(&self, loaded: Loaded) -> Result<PlanView, ReloadFailure> {
        let mut live = self.live();
        let mut plan = plan(&live, &loaded);
        plan.overrides = live
            .reload(loaded.config)
            .map_err(ReloadFailure::Unavailable)?;
        Ok(plan)
    }

    fn config_view(&self) -> ConfigView {
        let source = self.source();
        let version = self.0.published.snapshot.load().version;
        let config = self.live().config().clone();
        let needs_restart = diff(&self.0.started, &config)
            .items
            .iter()
            .filter_map(|item| match &item.change {
                ConfigChange::NeedsRestart { what } => {
                    Some(what.iter().map(move |field| restart(&item.object, field)))
                }
                _ => None,
            })
            .flatten()
            .collect();
        ConfigView {
            files: source
                .files
                .iter()
                .map(|f| f.display().to_string())
                .collect(),
            hash: format!("{:016x}", source.hash),
            version,
            loaded_at_unix_ms: source.loaded_at_unix_ms,
            last_error: source.last_error.clone(),
            needs_restart,
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic while it was held leaves a configuration that is published whole: go on with it.
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.0.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `process.workers: 2 -> 4`
fn restart(object: &Object, field: &FieldChange) -> String {
    let table = match object {
        Object::Admin => "admin",
        Object::Fleet => "fleet",
        Object::Log => "log",
        _ => "process",
    };
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
    let (old, new) = (shown(&field.old), shown(&field.new));
    format!("{table}.{}: {old} -> {new}", field.path)
}

/// What serving `loaded` would do now.
fn plan(live: &Live, loaded: &Loaded) -> PlanView {
    let mut diff = diff(live.config(), &loaded.config);
    let endpoints = live.endpoints();
    diff.with_connections(&mut |object| match object {
        Object::Listener { name } => live.sockets().connections(name).map(|n| n as u64),
        Object::Endpoint { upstream, address } => endpoints
            .get(&(upstream.clone(), address.clone()))
            .map(|endpoint| endpoint.in_flight()),
        Object::Upstream { .. }
        | Object::Process
        | Object::Admin
        | Object::Log
        | Object::Fleet
        | Object::RouteOrder
        | Object::Route { .. } => None,
    });
    let overrides = live
        .overrides()
        .clone()
        .reconcile(Some(live.config()), &loaded.config);
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let mut text = diff.render(Verbosity::Changes).to_string();
    for said in &overrides {
        text.push_str("\n  ");
        text.push_str(&said.text);
    }
    PlanView {
        diff,
        warnings,
        overrides,
        text,
        hash: loaded.hash,
        files: loaded.files.clone(),
    }
}

fn certificates(snapshot: &Snapshot, listener: &str) -> Vec<CertificateView> {
    let mut plans = snapshot.listeners.iter().flatten();
    let plan = plans.find(|plan| &*plan.spec.name == listener);
    let Some(tls) = plan.and_then(|plan| plan.tls.as_ref()) else {
        return Vec::new();
    };
    let renewal_failing = tls.is_failing();
    let view = |facts: &CertificateFacts| CertificateView {
        names: facts.names.clone(),
        subject: facts.subject.clone(),
        key: facts.kind.as_str(),
        not_after_unix_ms: facts.not_after.saturating_mul(1000),
        fingerprint: facts.fingerprint_hex(),
        renewal_failing,
    };
    tls.facts().iter().map(view).collect()
}

fn upstream_view(
    upstream: &Upstream,
    overrides: &Overrides,
    fleet: Option<&Fleet>,
) -> UpstreamView {
    let members = upstream.members.load_full();
    UpstreamView {
        name: upstream.spec.name.to_string(),
        policy: upstream.spec.policy.kind.as_str().to_owned(),
        dynamic: upstream.spec.dynamic,
        generation: members.generation,
        failing_open: members.is_failing_open,
        breaker: upstream
            .breaker_state(Clock::start().now())
            .map(State::as_str),
        waiting: upstream.waiting.len(),
        endpoints: layers(&upstream.spec, overrides)
            .into_iter()
            .map(|layers| {
                let place = members
                    .endpoints
                    .iter()
                    .position(|e| e.addr == layers.endpoint);
                EndpointView {
                    observed: place.map(|place| {
                        let endpoint = &members.endpoints[place];
                        let shared = fleet.map(|fleet| fleet.shares(&upstream.spec.name, endpoint));
                        observed(&members, place, shared.unwrap_or_default())
                    }),
                    layers,
                }
            })
            .collect(),
    }
}

/// `shared`: what this process does about the endpoint's health, and who checks it in a fleet.
fn observed(members: &Members, place: usize, shared: (Role, Vec<PeerId>)) -> Observed {
    let (role, probers) = shared;
    let endpoint = &members.endpoints[place];
    let said = endpoint.said();
    Observed {
        ready: members.ready[place],
        health: endpoint.health().as_str(),
        since: endpoint.since().map(|since| SinceView {
            at_unix_ms: since.at_unix_ms,
            why: since.why.clone(),
        }),
        // What was found before others came to check it is not how the last check went.
        last_check: endpoint
            .last_check()
            .filter(|_| role.asks())
            .map(|check| LastCheckView {
                at_unix_ms: check.at_unix_ms,
                result: check.result.as_str(),
                text: check.text.clone(),
                took_ms: check.took_ms,
            }),
        checked_by: probers.iter().map(ToString::to_string).collect(),
        ejected: endpoint.ejection().map(|ejection| EjectedView {
            until_unix_ms: ejection.until_unix_ms,
            why: ejection.why.clone(),
        }),
        says: (said != Said::default()).then(|| said.to_string()),
        in_flight: endpoint.in_flight(),
        connections: endpoint.cells.iter().map(|c| c.connections.value()).sum(),
        requests: EndpointOutcome::ALL
            .iter()
            .map(|outcome| {
                let count = endpoint.cells.sum(|c| c.requests(*outcome).value());
                (outcome.as_str(), count)
            })
            .collect(),
    }
}
