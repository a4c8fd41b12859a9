//! What runs, and how it changes while it runs.
//!
//! [`Live`] is the one writer of all that workers read. A change is prepared whole (files opened,
//! addresses bound, tables built) before anything of it is seen; then one store publishes it. What
//! fails before that leaves everything as it was.

mod fleet;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

use crate::base::clock::{Clock, Nanos};
use crate::base::tls::CertificateError;
use crate::config::units::format_duration;
use crate::config::{self, Config, Name, OnDown};
use crate::fleet::facts::Flaw;
use crate::guard::breaker::{self, State};
use crate::guard::outlier::Trip;
use crate::health::agent::Heard;
use crate::health::checker::{Ask, Found, Target, Targets, Verdict};
use crate::health::duty::Role;
use crate::listener::BindError;
use crate::listener::handover::Entry;
use crate::proxy::snapshot::{Published, Snapshot};
use crate::telemetry::history::{Cause, Timeline, What};
use crate::telemetry::metrics::registry::{Object, Registry};
use crate::upstream::overrides::{
    AdminState, Applied, Change, Overrides, Reconciled, Refused, SaveError, Store, changed_parts,
    effective_members,
};
use crate::upstream::{Admits, Endpoint, Health, Signal, Since, Upstream};

use super::access::{self, Access};
use super::certificates::{self, CertificateWatch};
use super::compile::{Compiler, FromFiles, Known, UNROUTED, Wanted};
use super::ejections::{Ejections, Verdict as Sentenced};
use super::fleet::Fleet;
use super::fleet_keys::{self, FleetKeyError};
use super::leaving::Leaving;
use super::sockets::Sockets;
use super::sticky_keys::{StickyKeyError, StickyKeys};
use super::ticket_keys::{TicketKeyError, TicketKeyReader};
use super::worker::{Command, Heir};
use super::workers::Workers;

/// A running configuration. One thread at a time changes it: it lives behind a lock.
#[derive(Debug)]
pub struct Live {
    config: Arc<Config>,
    published: Arc<Published>,
    registry: Arc<Registry>,
    compiler: Compiler,
    sticky_keys: StickyKeys,
    ticket_keys: TicketKeyReader,
    certificates: CertificateWatch,
    sockets: Sockets,
    workers: Workers,
    access: Access,
    leaving: Leaving,
    ejections: Ejections,
    /// What operators say of endpoints, and where that is kept over a restart.
    overrides: Overrides,
    store: Option<Store>,
    /// The peers that this process acts as one with.
    fleet: Option<Fleet>,
    timeline: Timeline,
    /// Whom to check.
    targets: watch::Sender<Targets>,
    /// Replaced configurations: the last owner frees them, and that must not be a worker, which
    /// would stand still for the time it takes to free 10,000 routes.
    replaced: Vec<Arc<Snapshot>>,
    clock: Clock,
    /// It drains, or has ended: nothing changes any more.
    is_stopping: bool,
    is_frozen: bool,
}

/// Why a change was refused. The old configuration serves on, untouched.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The access log cannot be written.
    #[error("the access log cannot be opened: {0}")]
    AccessLog(#[source] io::Error),
    /// The secret of the fleet cannot be read.
    #[error(transparent)]
    Fleet(#[from] FleetKeyError),
    /// An address cannot be bound.
    #[error("listener `{name}`: {source}")]
    Listener {
        /// The listener.
        name: Name,
        /// Why.
        source: BindError,
    },
    /// A file that was cut off is more likely than a wish to serve nothing.
    #[error(
        "the new configuration has no listener, so nothing would be served: is the file complete? \
         to serve nothing, stop the process"
    )]
    NoListener,
    /// What sticky cookies are signed with cannot be read.
    #[error(transparent)]
    StickyKey(#[from] StickyKeyError),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopping,
    /// What session tickets are made with cannot be read.
    #[error(transparent)]
    TicketKey(#[from] TicketKeyError),
    /// A certificate, or what comes with it, cannot be served.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// The listener.
        listener: Name,
        /// Which file, and what is wrong with it.
        source: CertificateError,
    },
    /// A successor is starting with the configuration as it is.
    #[error("an upgrade is under way; try again when it is over")]
    Upgrading,
}

/// Endpoints by their identity.
type Stays = HashSet<*const Endpoint>;

/// How long, while draining, what is already on its way may arrive: the end of a handshake, the next
/// request on a connection in use. A round trip across a continent.
const LAST_CALL: Duration = Duration::from_millis(100);

/// The parts that a server starts with.
#[derive(Debug)]
pub struct Parts {
    /// The configuration that is published.
    pub config: Arc<Config>,
    /// Where workers read it.
    pub published: Arc<Published>,
    /// The metrics.
    pub registry: Arc<Registry>,
    /// What compiled it.
    pub compiler: Compiler,
    /// What read the secrets of its cookies.
    pub sticky_keys: StickyKeys,
    /// What read the secrets of its session tickets.
    pub ticket_keys: TicketKeyReader,
    /// Its sockets.
    pub sockets: Sockets,
    /// The threads.
    pub workers: Workers,
    /// The access log.
    pub access: Access,
    /// What operators say of endpoints.
    pub overrides: Overrides,
    /// Where that is kept.
    pub store: Option<Store>,
    /// The peers that this process acts as one with.
    pub fleet: Option<Fleet>,
    /// What happened.
    pub timeline: Timeline,
}

/// Why an operator's change was not made.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// It cannot be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server is shutting down, or a successor is starting with things as they are.
    #[error("the server is draining or being upgraded; try again with its successor")]
    Busy,
    /// It could not be saved, and would be gone after a restart.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The fleet cannot be told, and what one peer alone says does not last.
    #[error("the fleet cannot be told, so nothing has changed: {why}; {}", next_step(*.why))]
    Untold {
        /// Why not.
        why: Flaw,
    },
}

// === impl Live ===

impl Live {
    /// What was started.
    pub fn new(parts: Parts) -> Self {
        let targets = checked(&parts.published.snapshot.load());
        let mut live = Self {
            targets: watch::Sender::new(targets.clone()),
            config: parts.config,
            published: parts.published,
            registry: parts.registry,
            compiler: parts.compiler,
            sticky_keys: parts.sticky_keys,
            ticket_keys: parts.ticket_keys,
            certificates: CertificateWatch::new(),
            sockets: parts.sockets,
            workers: parts.workers,
            access: parts.access,
            overrides: parts.overrides,
            store: parts.store,
            fleet: parts.fleet,
            timeline: parts.timeline,
            leaving: Leaving::default(),
            ejections: Ejections::default(),
            replaced: Vec::new(),
            clock: Clock::start(),
            is_stopping: false,
            is_frozen: false,
        };
        live.share(&targets);
        live
    }

    /// The configuration that is served.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// What operators say of endpoints.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The peers that this process acts as one with.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// What was removed and still runs.
    pub fn leaving(&self) -> &Leaving {
        &self.leaving
    }

    /// The listening sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// The worker threads.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Every endpoint of the configuration served, and those on their way out.
    pub fn endpoints(&self) -> Known {
        self.known(&self.published.snapshot.load())
    }

    /// Replaces the configuration. All or nothing; nothing that is the same in both is touched.
    ///
    /// # Errors
    /// What cannot be had; then everything is as it was.
    pub fn reload(&mut self, config: Config) -> Result<Vec<Reconciled>, ReloadError> {
        if self.is_stopping {
            return Err(ReloadError::Stopping);
        }
        if self.is_frozen {
            return Err(ReloadError::Upgrading);
        }
        if config.listeners.is_empty() && !self.config.listeners.is_empty() {
            return Err(ReloadError::NoListener);
        }
        // 1 all that can fail
        let old = self.published.snapshot.load_full();
        let keyring = match (&self.fleet, &config.fleet) {
            (Some(_), Some(spec)) => Some(fleet_keys::keyring(spec)?),
            (None, _) | (_, None) => None,
        };
        let keyrings = self.sticky_keys.read(&config)?;
        let ticket_keys = self.ticket_keys.read(&config)?;
        let tls = certificates::prepare(&config, Some(&old), &ticket_keys)
            .map_err(|(listener, source)| ReloadError::Tls { listener, source })?;
        let files = FromFiles { keyrings, tls };
        let log = self
            .access
            .prepare(access::settings(&config), &self.registry)
            .map_err(ReloadError::AccessLog)?;
        let prepared = self
            .sockets
            .prepare(&config.listeners, self.workers.len(), None)
            .map_err(|(name, source)| ReloadError::Listener { name, source })?;
        // What nobody reads any more makes room for what comes.
        self.free();
        // 2 build
        let mut overrides = self.overrides.clone();
        let reconciled = overrides.reconcile(Some(&self.config), &config);
        let now = self.clock.now();
        let grace = config.process.grace;
        let known = self.known(&old);
        let next = self.compiler.compile(
            &config,
            &prepared.slots,
            Some(&old),
            &known,
            &files,
            |spec| wanted(spec, &overrides),
        );
        let next = Arc::new(next);
        for slot in &prepared.removed {
            if let Some((name, _)) = self.sockets.slot(*slot) {
                let name = name.clone();
                let own = old.listener(*slot).and_then(|plan| plan.spec.grace);
                let grace = own.unwrap_or(grace);
                self.leaving
                    .add_listener(*slot, name, old.clone(), now, grace);
            }
        }
        // Endpoints that come back, before they are picked: a cut one ends what it is given.
        let stays = members(&next);
        self.leaving
            .keep_endpoints(|endpoint| stays.contains(&Arc::as_ptr(endpoint)));
        // 3 the switch: whoever loads the configuration from here on sees the new one
        self.published
            .leaving
            .store(Arc::new(self.leaving.snapshots()));
        self.published.snapshot.store(next.clone());
        // 4 what follows from it
        let removed = prepared.removed.clone();
        let unwanted = self.sockets.commit(prepared, &self.workers);
        if !unwanted.is_empty() || !removed.is_empty() {
            let done = self.sockets.close(&unwanted);
            self.workers.tell(|_| Command::Close {
                sockets: unwanted.clone(),
                listeners: removed.clone(),
                last_call: LAST_CALL.min(grace / 4),
                done: done.clone(),
            });
        }
        self.access.switch(log, &self.workers);
        certificates::settle(&next, &ticket_keys, &self.registry);
        // Who reloads may have renewed certificates only.
        self.certificates
            .look(&next, &self.registry, &self.timeline);
        for upstream in &next.upstreams {
            upstream.call_waiting(now);
        }
        self.leave_endpoints(&old, &stays, now, grace);
        self.replaced.push(old);
        self.config = Arc::new(config);
        self.retain();
        self.tell_checker();
        if self.overrides != overrides {
            self.overrides = overrides;
            self.save();
        }
        if let (Some(fleet), Some(keyring)) = (&self.fleet, keyring) {
            fleet.set_keyring(keyring);
        }
        if let (Some(fleet), Some(spec)) = (&self.fleet, &self.config.fleet) {
            let upstreams = self.config.upstreams.iter().map(|u| u.name.clone());
            fleet.reconfigure(spec, &upstreams.collect());
        }
        self.heed_all();
        Ok(reconciled)
    }

    /// Does what an operator asks for: saved first, then in force, then answered.
    ///
    /// # Errors
    /// What cannot be, or cannot be saved; then nothing has changed.
    pub fn change(&mut self, change: Change) -> Result<Applied, ChangeError> {
        if self.is_stopping || self.is_frozen {
            return Err(ChangeError::Busy);
        }
        let cause = Cause::Operator {
            owner: change.owner.clone(),
            reason: change.reason.clone(),
        };
        let now = self.clock.unix_ms();
        let mut next = self.overrides.clone();
        let applied = next.apply(change, &self.config, now)?;
        let (upstream, endpoint) = (&applied.upstream, &applied.endpoint);
        let parts = changed_parts(&self.overrides, &next, upstream, endpoint);
        if let Some(fleet) = &self.fleet {
            // What the others never hear of would end here with the next thing that they say.
            fleet
                .could_say(upstream, endpoint, &parts)
                .map_err(|why| ChangeError::Untold { why })?;
        }
        if let Some(store) = &self.store {
            store.save(&next)?;
        }
        self.overrides = next;
        self.republish(&applied.upstream);
        if let Some(fleet) = &self.fleet {
            fleet.say(upstream, endpoint, parts);
        }
        let what = What::of_override(&applied.upstream, &applied.endpoint);
        tracing::info!("{}", applied.text);
        self.timeline.record(now, cause, what, applied.text.clone());
        Ok(applied)
    }

    /// Ends overrides whose time is over.
    fn expire(&mut self) {
        // They are the successor's then, in the place where they are kept too.
        if self.is_stopping || self.is_frozen {
            return;
        }
        let now = self.clock.unix_ms();
        if self.overrides.next_expiry().is_none_or(|at| at > now) {
            return;
        }
        let expired = self.overrides.expire(now);
        self.save();
        for ended in expired {
            self.republish(&ended.upstream);
            let what = What::of_override(&ended.upstream, &ended.endpoint);
            tracing::info!("{}", ended.text);
            self.timeline.record(now, Cause::Expiry, what, ended.text);
        }
    }

    /// Saves the overrides where there is a place for them. What cannot be saved still holds.
    fn save(&self) {
        if let Some(store) = &self.store
            && let Err(error) = store.save(&self.overrides)
        {
            tracing::error!(%error, "overrides hold, but would be lost by a restart");
        }
    }

    /// Publishes the members that file and operators now ask for.
    fn republish(&mut self, upstream: &str) {
        self.reseat(upstream);
        self.after_publishing();
    }

    /// The same, of one of several upstreams; [`after_publishing`](Self::after_publishing) is called after the last.
    fn reseat(&mut self, upstream: &str) {
        let config = self.config.clone();
        if let Some(spec) = config.upstreams.iter().find(|u| &*u.name == upstream) {
            let wanted = wanted(spec, &self.overrides);
            self.publish(upstream, &wanted);
        }
    }

    /// Takes the time of all endpoints.
    fn after_publishing(&mut self) {
        self.retain();
        self.tell_checker();
    }

    /// Publishes members of an upstream without touching anything else.
    fn publish(&mut self, upstream: &str, wanted: &[Wanted]) {
        let snapshot = self.published.snapshot.load_full();
        let Some(upstream) = snapshot
            .upstreams
            .iter()
            .find(|u| &*u.spec.name == upstream)
        else {
            return;
        };
        let name = &upstream.spec.name;
        let known = self.known(&snapshot);
        let seats = self
            .compiler
            .seats(&upstream.spec, upstream.zone.as_ref(), &known, wanted);
        let now = self.clock.now();
        let grace = self.config.process.grace;
        let own = self.published.snapshot.load().grace_of(name);
        let grace = own.map_or(grace, |own| own.max(grace));
        let stays: Stays = seats.iter().map(|s| Arc::as_ptr(&s.endpoint)).collect();
        self.leaving
            .keep_endpoints(|endpoint| stays.contains(&Arc::as_ptr(endpoint)));
        let before = upstream.publish(&seats, now);
        for endpoint in &before.endpoints {
            if !stays.contains(&Arc::as_ptr(endpoint)) {
                self.leaving
                    .add_endpoint(name.clone(), endpoint.clone(), now, grace);
            }
        }
    }

    /// Takes in what checks have found: however many endpoints changed, each upstream publishes once.
    pub fn judge(&mut self, verdicts: Vec<Verdict>) {
        let now = self.clock.unix_ms();
        let snapshot = self.published.snapshot.load_full();
        let mut by_upstream: BTreeMap<Name, Vec<Verdict>> = BTreeMap::new();
        for verdict in verdicts {
            let of_upstream = by_upstream.entry(verdict.upstream.clone()).or_default();
            of_upstream.push(verdict);
        }
        for upstream in &snapshot.upstreams {
            let Some(verdicts) = by_upstream.remove(&upstream.spec.name) else {
                continue;
            };
            // It may have left, or nobody may check it any more, since the check began.
            if upstream.spec.health.is_none() {
                continue;
            }
            let members = upstream.members.load_full();
            let members: HashSet<_> = members.endpoints.iter().map(Arc::as_ptr).collect();
            let changes: Vec<_> = verdicts
                .iter()
                .filter(|v| members.contains(&Arc::as_ptr(&v.endpoint)) && self.note(v, now))
                .collect();
            for change in changes.iter().filter(|c| c.health == Health::Up) {
                upstream.forget(&change.endpoint);
            }
            if changes.is_empty() {
                continue;
            }
            upstream.publish_health(self.clock.now());
            if upstream.spec.on_down == OnDown::Close {
                let down = changes.iter().filter(|c| c.health == Health::Down);
                down.for_each(|change| change.endpoint.disconnect());
                self.workers.tell(|_| Command::Wake);
            }
            let changed = changes.iter().map(|change| &change.endpoint.addr);
            self.heed_held(&upstream.spec.name, changed);
        }
    }

    /// Takes in what was found of an endpoint; whether it is something else now.
    fn note(&mut self, verdict: &Verdict, now: u64) -> bool {
        let endpoint = &verdict.endpoint;
        let before = endpoint.health();
        if verdict.health == Health::Up {
            endpoint.found_up();
        }
        let mut why = verdict.told();
        let (cause, role) = match &verdict.by {
            Found::Fleet(peers) => {
                let peers = peers.clone();
                (Cause::Fleet { peers }, None)
            }
            Found::Here => {
                let role = self.role(&verdict.upstream, endpoint);
                // Others ask by now.
                if !role.asks() {
                    return false;
                }
                if role.is_ruled() {
                    why.push_str(" (found by this peer, and for itself alone)");
                }
                (Cause::Probe, Some(role))
            }
        };
        let since = Since {
            at_unix_ms: now,
            why: why.clone(),
        };
        let is_down = verdict.health == Health::Down;
        if role.is_some() && is_down != endpoint.is_down_here() {
            endpoint.set_down_here(is_down.then(|| since.clone()));
            if endpoint.health() == Health::Up {
                endpoint.set_since(since.clone());
            }
        }
        if role.is_none_or(Role::judges) && endpoint.verdict() != verdict.health {
            endpoint.set_health(verdict.health);
            endpoint.set_since(since);
        }
        self.note_health(&verdict.upstream, endpoint, before, (cause, &why))
    }

    /// Says what became of an endpoint that was something else `before`, and by whom and why; whether it did.
    fn note_health(
        &mut self,
        upstream: &Name,
        endpoint: &Arc<Endpoint>,
        before: Health,
        (cause, why): (Cause, &str),
    ) -> bool {
        let health = endpoint.health();
        if before == health {
            return false;
        }
        let (from, to) = (before.as_str(), health.as_str());
        let text = format!(
            "endpoint {} of upstream `{upstream}`: {from} -> {to}: {why}",
            endpoint.name
        );
        if health == Health::Up {
            // What checks find is newer than what requests said.
            self.ejections.pardon(endpoint, self.clock.now());
        }
        match health {
            Health::Down => tracing::warn!("{text}"),
            Health::Unchecked | Health::Up => tracing::info!("{text}"),
        }
        let what = What::Endpoint {
            upstream: upstream.to_string(),
            endpoint: endpoint.name.to_string(),
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let now = self.clock.unix_ms();
        self.timeline.record(now, cause, what, text);
        true
    }

    /// What this process does about the health of an endpoint.
    fn role(&self, upstream: &str, endpoint: &Endpoint) -> Role {
        let fleet = self.fleet.as_ref();
        fleet.map_or(Role::Alone, |fleet| fleet.role(upstream, &endpoint.addr))
    }

    /// Takes in what endpoints say of themselves: however many do, each upstream publishes once.
    pub fn hear(&mut self, heard: &[Heard]) {
        let now = self.clock.unix_ms();
        let snapshot = self.published.snapshot.load_full();
        let mut by_upstream: BTreeMap<&str, Vec<&Heard>> = BTreeMap::new();
        for heard in heard {
            let of_upstream = by_upstream.entry(&*heard.upstream).or_default();
            of_upstream.push(heard);
        }
        for upstream in &snapshot.upstreams {
            let Some(heard) = by_upstream.remove(&*upstream.spec.name) else {
                continue;
            };
            // It may have left, or nobody may listen to it any more, since it spoke.
            if upstream.spec.agent.is_none() {
                continue;
            }
            let members = upstream.members.load_full();
            let members: HashSet<_> = members.endpoints.iter().map(Arc::as_ptr).collect();
            let news = heard
                .iter()
                .filter(|h| members.contains(&Arc::as_ptr(&h.endpoint)) && self.note_said(h, now));
            if news.count() > 0 {
                upstream.publish_health(self.clock.now());
            }
        }
    }

    /// Notes what an endpoint says of itself; whether that is news.
    fn note_said(&self, heard: &Heard, now: u64) -> bool {
        let before = heard.endpoint.said();
        let said = before.with(&heard.words);
        if before == said {
            return false;
        }
        heard.endpoint.set_said(said);
        let (from, to) = (before.to_string(), said.to_string());
        let text = format!(
            "endpoint {} of upstream `{}` says of itself: {from} -> {to}: {}",
            heard.endpoint.name, heard.upstream, heard.why
        );
        if said.is_down {
            tracing::warn!("{text}");
        } else {
            tracing::info!("{text}");
        }
        let what = What::Endpoint {
            upstream: heard.upstream.to_string(),
            endpoint: heard.endpoint.name.to_string(),
            from,
            to,
        };
        self.timeline.record(now, Cause::Agent, what, text);
        true
    }

    /// Takes in what workers have found out.
    pub fn heed(&mut self, signals: Vec<Signal>) {
        let snapshot = self.published.snapshot.load_full();
        let find = |name: &Name| snapshot.upstreams.iter().find(|u| u.spec.name == *name);
        let mut said = Vec::new();
        let mut changed: Vec<&Arc<Upstream>> = Vec::new();
        for signal in signals {
            match signal {
                Signal::Breaker { upstream, change } => {
                    if let Some(upstream) = find(&upstream) {
                        self.note_breaker(upstream, change);
                    }
                }
                Signal::Said {
                    upstream,
                    endpoint,
                    line,
                } => said.push((Heard::in_response(upstream, endpoint, &line), line)),
                Signal::Tripped {
                    upstream,
                    endpoint,
                    trip,
                } => {
                    if let Some(upstream) = find(&upstream)
                        && self.convict(upstream, &endpoint, trip)
                        && !changed.iter().any(|c| Arc::ptr_eq(c, upstream))
                    {
                        changed.push(upstream);
                    }
                }
            }
        }
        // Once for each: a rack that fails is one generation, not one for each machine in it.
        for upstream in changed {
            upstream.publish_health(self.clock.now());
        }
        let (heard, lines): (Vec<_>, Vec<_>) = said.into_iter().unzip();
        self.hear(&heard);
        for (heard, line) in heard.iter().zip(lines) {
            heard.endpoint.heard(&line);
        }
    }

    fn note_breaker(&self, upstream: &Upstream, change: breaker::Change) {
        let cells = upstream.cells.control();
        let (from, to, state) = match change {
            breaker::Change::Opened(_) => ("closed", "open", State::Open),
            breaker::Change::HalfOpened => ("open", "half-open", State::HalfOpen),
            breaker::Change::Closed => ("half-open", "closed", State::Closed),
            breaker::Change::Reopened => ("half-open", "open", State::Open),
        };
        cells.breaker.set(state as u64);
        if state == State::Open {
            cells.breaker_opened.inc();
        }
        let name = &upstream.spec.name;
        let text = format!("breaker of upstream `{name}`: {from} -> {change}");
        if state == State::Open {
            tracing::warn!("{text}");
        } else {
            tracing::info!("{text}");
        }
        let what = What::Upstream {
            upstream: name.to_string(),
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let now = self.clock.unix_ms();
        self.timeline.record(now, Cause::Breaker, what, text);
    }

    /// Judges an endpoint by the evidence of requests; whether that changed anything.
    fn convict(&mut self, upstream: &Upstream, endpoint: &Arc<Endpoint>, trip: Trip) -> bool {
        let verdict = self.ejections.convict(
            upstream,
            endpoint,
            &trip,
            (self.clock.now(), self.clock.unix_ms()),
        );
        let subject = format!(
            "endpoint {} of upstream `{}`",
            endpoint.name, upstream.spec.name
        );
        let text = match verdict {
            Sentenced::Moot => return false,
            Sentenced::Ejected(length) => {
                let length = format_duration(Duration::from_nanos(length));
                format!("{subject}: ready -> ejected for {length}: {trip}")
            }
            Sentenced::Observed => {
                format!("{subject}: would be ejected (mode is \"observe\"): {trip}")
            }
            Sentenced::Spared => {
                format!("{subject}: not ejected, for want of others that are ready: {trip}")
            }
        };
        let is_ejected = matches!(verdict, Sentenced::Ejected(_));
        if is_ejected {
            tracing::warn!("{text}");
            let what = What::Endpoint {
                upstream: upstream.spec.name.to_string(),
                endpoint: endpoint.name.to_string(),
                from: "ready".to_owned(),
                to: "ejected".to_owned(),
            };
            let now = self.clock.unix_ms();
            self.timeline.record(now, Cause::Outlier, what, text);
        } else {
            tracing::info!("{text}");
        }
        is_ejected
    }

    /// Ends ejections whose time is over.
    fn release(&mut self) {
        let now = self.clock.now();
        let released = self.ejections.release(now);
        if released.is_empty() {
            return;
        }
        let snapshot = self.published.snapshot.load_full();
        for upstream in &snapshot.upstreams {
            let name = &upstream.spec.name;
            let mut is_changed = false;
            for (_, endpoint) in released.iter().filter(|(of, _)| of == name) {
                is_changed = true;
                upstream.forget(endpoint);
                let text = format!(
                    "endpoint {} of upstream `{name}`: ejected -> ready: its time is over",
                    endpoint.name
                );
                tracing::info!("{text}");
                let what = What::Endpoint {
                    upstream: name.to_string(),
                    endpoint: endpoint.name.to_string(),
                    from: "ejected".to_owned(),
                    to: "ready".to_owned(),
                };
                let at = self.clock.unix_ms();
                self.timeline.record(at, Cause::Outlier, what, text);
            }
            if is_changed {
                upstream.publish_health(now);
            }
        }
    }

    /// Whom to check, as it changes.
    pub fn targets(&self) -> watch::Receiver<Targets> {
        self.targets.subscribe()
    }

    /// Says whom to check from now on.
    fn tell_checker(&mut self) {
        let targets = checked(&self.published.snapshot.load());
        // First, so that the checker knows of new ones whether it asks them.
        self.share(&targets);
        self.targets.send_if_modified(|before| {
            // Most servers check nobody.
            let is_news = !(before.is_empty() && targets.is_empty());
            *before = targets;
            is_news
        });
    }

    /// Housekeeping, a few times a second: ends what has drained, cuts what has had its time, frees
    /// what nobody reads any more.
    pub fn advance(&mut self) {
        self.access.tidy();
        self.expire();
        self.release();
        if self.certificates.is_due() {
            let snapshot = self.published.snapshot.load_full();
            self.certificates
                .look(&snapshot, &self.registry, &self.timeline);
        }
        let now = self.clock.now();
        for upstream in &self.published.snapshot.load().upstreams {
            upstream.note_exchanges(now);
            // What was told of a change may have been lost, or have been of the breaker before a reload.
            if let Some(state) = upstream.breaker_state(now) {
                upstream.cells.control().breaker.set(state as u64);
            }
        }
        self.free();
        if self.leaving.is_empty() {
            return;
        }
        let sockets = &self.sockets;
        let due = self
            .leaving
            .advance(now, |slot| sockets.slot(slot).map_or(0, |(_, open)| open));
        for slot in due.cut {
            self.cut_listener(slot);
        }
        if due.wake {
            self.workers.tell(|_| Command::Wake);
        }
        if due.ended {
            self.published
                .leaving
                .store(Arc::new(self.leaving.snapshots()));
            self.retain();
        }
    }

    /// Frees configurations that no worker reads any more.
    fn free(&mut self) {
        self.replaced
            .retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// The listening sockets for a successor, each with copies of its descriptors.
    ///
    /// # Errors
    /// There are no descriptors left for the copies.
    pub fn handles(&self) -> io::Result<Vec<(Entry, Vec<OwnedFd>)>> {
        let handles = self.sockets.handles();
        handles
            .map(|(entry, fds)| {
                let copies = fds.iter().map(BorrowedFd::try_clone_to_owned);
                Ok((entry, copies.collect::<io::Result<_>>()?))
            })
            .collect()
    }

    /// Whether nothing may change for now: a successor is starting with what is.
    pub fn freeze(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
        if let Some(fleet) = &self.fleet {
            fleet.freeze(is_frozen);
        }
    }

    /// Stops accepting and lets what is in flight end; see [`crate::server::Server::drain`].
    pub fn drain(&mut self, heir: Heir) {
        // Nobody new finds the files; a connection made in the instant of closing would be reset.
        self.sockets.close_all(heir == Heir::Successor);
        self.is_stopping = true;
        let last_call = LAST_CALL.min(self.config.process.grace / 4);
        self.workers.tell(|_| Command::Drain { last_call, heir });
    }

    /// How long the connections of each listener may take to end, by slot.
    pub fn graces(&self) -> Vec<(usize, Duration)> {
        let snapshot = self.published.snapshot.load();
        let plans = snapshot.listeners.iter().enumerate();
        let plans = plans.filter_map(|(slot, plan)| Some((slot, plan.as_ref()?)));
        plans
            .map(|(slot, plan)| {
                let grace = self.config.process.grace;
                (slot, plan.spec.grace.unwrap_or(grace))
            })
            .collect()
    }

    /// How long listeners that were removed may still go on.
    pub fn leaving_for(&self) -> Duration {
        Duration::from_nanos(self.leaving.longest(self.clock.now()))
    }

    /// Ends what is left of the listener in `slot`.
    pub fn cut_listener(&self, slot: usize) {
        self.workers.tell(|_| Command::CutListener { slot });
    }

    /// Ends everything now: cuts what is left, joins the workers, writes the last log lines.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        self.sockets.close_all(false);
        self.workers.tell(|_| Command::Cut);
        self.workers.join();
        std::mem::take(&mut self.access).shutdown();
    }

    /// Opens the access log's file anew (after a rotation).
    pub fn reopen_logs(&self) {
        self.access.reopen();
    }

    /// Endpoints that are alive: those of `snapshot`, and those on their way out.
    fn known(&self, snapshot: &Snapshot) -> Known {
        let mut known = Known::new();
        for (upstream, endpoint) in self.leaving.endpoints() {
            known.insert((upstream.clone(), endpoint.addr.clone()), endpoint.clone());
        }
        for upstream in &snapshot.upstreams {
            for endpoint in &upstream.members.load().endpoints {
                let key = (upstream.spec.name.clone(), endpoint.addr.clone());
                known.insert(key, endpoint.clone());
            }
        }
        known
    }

    /// Endpoints of `old` that are not among those that stay drain.
    fn leave_endpoints(&mut self, old: &Snapshot, stays: &Stays, now: Nanos, grace: Duration) {
        for upstream in &old.upstreams {
            for endpoint in &upstream.members.load().endpoints {
                if !stays.contains(&Arc::as_ptr(endpoint)) {
                    let name = upstream.spec.name.clone();
                    let grace = old.grace_of(&name).map_or(grace, |own| own.max(grace));
                    self.leaving
                        .add_endpoint(name, endpoint.clone(), now, grace);
                }
            }
        }
    }

    /// Forgets the metrics of what is gone. What is leaving keeps its series until it has left.
    fn retain(&self) {
        let snapshot = self.published.snapshot.load();
        let mut endpoints = HashSet::new();
        let mut names = HashSet::new();
        for upstream in &snapshot.upstreams {
            names.insert(upstream.spec.name.clone());
            for endpoint in &upstream.members.load().endpoints {
                endpoints.insert((upstream.spec.name.clone(), endpoint.name.clone()));
            }
        }
        for (upstream, endpoint) in self.leaving.endpoints() {
            names.insert(upstream.clone());
            endpoints.insert((upstream.clone(), endpoint.name.clone()));
        }
        let routes: HashSet<&str> = snapshot.plans.iter().map(|p| &*p.name).collect();
        let listeners: HashSet<&str> = snapshot
            .listeners
            .iter()
            .flatten()
            .map(|l| &*l.spec.name)
            .collect();
        self.registry.retain(|object| match object {
            Object::Endpoint { upstream, endpoint } => {
                endpoints.contains(&(upstream.into(), endpoint.into()))
            }
            Object::Listener(name) => listeners.contains(name) || self.leaving.has_listener(name),
            Object::Route(name) => name == UNROUTED || routes.contains(name),
            Object::Upstream(name) => names.contains(name),
        });
    }
}

/// Every endpoint of `snapshot`.
fn members(snapshot: &Snapshot) -> Stays {
    let mut stays = Stays::new();
    for upstream in &snapshot.upstreams {
        stays.extend(upstream.members.load().endpoints.iter().map(Arc::as_ptr));
    }
    stays
}

/// The members that are checked, and those whose agents are asked.
fn checked(snapshot: &Snapshot) -> Targets {
    let mut targets = Vec::new();
    for upstream in &snapshot.upstreams {
        let checks = upstream.spec.health.iter().cloned().map(Ask::Check);
        let agents = upstream.spec.agent.iter().filter(|a| a.port.is_some());
        let asks: Vec<Ask> = checks.chain(agents.cloned().map(Ask::Agent)).collect();
        if asks.is_empty() {
            continue;
        }
        let members = upstream.members.load_full();
        for endpoint in &members.endpoints {
            targets.extend(asks.iter().map(|ask| Target {
                upstream: upstream.spec.name.clone(),
                endpoint: endpoint.clone(),
                ask: ask.clone(),
            }));
        }
    }
    targets.into()
}

/// What whoever asked for a change can do that the fleet cannot be told.
fn next_step(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Address => {
            "name the endpoint by an address that is the same at every peer, without a zone (`%eth0`)"
        }
        Flaw::Quota => "take back here what is no longer needed, or say it at another peer",
        Flaw::Full => {
            "take back what is no longer needed; `isobar fleet status` shows what there is, and it is forgotten a day \
             after it was taken back"
        }
        Flaw::TooLong => "give a shorter reason",
        Flaw::Ahead
        | Flaw::ControlCharacter
        | Flaw::Name
        | Flaw::NoOwner
        | Flaw::Origin
        | Flaw::Ttl
        | Flaw::Value
        | Flaw::Weight => "say something that a file could say",
    }
}

/// The members that the file and operators together ask for.
pub fn wanted(spec: &config::Upstream, overrides: &Overrides) -> Vec<Wanted> {
    effective_members(spec, overrides)
        .into_iter()
        .map(|member| Wanted {
            addr: member.addr,
            weight: member.weight,
            zone: member.zone,
            is_unproven: member.is_unproven,
            admits: match member.state {
                None => Admits::All,
                Some(AdminState::Disable) => Admits::Nobody,
                Some(AdminState::Drain) => Admits::Sticky,
            },
        })
        .collect()
}
