//! An upstream and its published generation of members.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::balance::sticky::{Keyring, StickyIndex};
use crate::balance::{Factory, Member, PolicyKind};
use crate::base::clock::{Nanos, nanos};
use crate::base::load::Load;
use crate::config::{self, Name, WhenUnhealthy};
use crate::guard::breaker::State;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::UpstreamCells;
use crate::telemetry::metrics::registry::Registry;

use super::groups::{Group, Tier, groups};
use super::guarded::{Guard, Judges, Signals, judge_alike};
use super::said;
use super::{Endpoint, Health, Proof, Waiting};

/// A named set of endpoints with one policy.
#[derive(Debug)]
pub struct Upstream {
    /// The number of its name in this process: workers keep their views in a plain list.
    pub slot: usize,
    /// Counts the upstreams that were made: of two with the same name the later one holds.
    pub version: u64,
    /// What the file says.
    pub spec: config::Upstream,
    /// Where this process stands.
    pub zone: Option<Name>,
    /// Makes its balancers, if they are not those of `spec.policy`.
    pub custom: Option<Factory>,
    /// What its sticky cookies are signed with.
    pub keyring: Keyring,
    /// The current generation, replaced whole.
    pub members: ArcSwap<Members>,
    /// The generation last published: what a worker compares on each pick instead of loading the
    /// members. Stored after them with `Release`, read with `Acquire`: who sees the number sees
    /// the members.
    generation: AtomicU64,
    /// Its metrics.
    pub cells: Arc<PerWorker<UpstreamCells>>,
    /// Those who wait for an endpoint with room.
    pub waiting: Arc<Waiting>,
    /// What it is judged by.
    pub(super) judges: Judges,
    /// Whom to tell what is found out.
    pub(super) signals: Signals,
    /// Where its schedules begin.
    seed: u64,
}

/// One published generation: endpoints, their loads and the balancers over them, always in step.
#[derive(Debug)]
pub struct Members {
    /// In configured order.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// `loads[i]` belongs to `endpoints[i]`.
    pub loads: Box<[Arc<Load>]>,
    /// What policies know of each endpoint.
    pub members: Box<[Member]>,
    /// The weight of each, before it had its own say.
    weights: Box<[u32]>,
    /// Whom each serves, as operators want it.
    pub admits: Box<[Admits]>,
    /// After whom each is used.
    pub tiers: Box<[Tier]>,
    /// Which of them may be picked.
    pub ready: Box<[bool]>,
    /// No member is up, and `when_unhealthy` says to use them all the same.
    pub is_failing_open: bool,
    /// The way from sticky cookies to the endpoints that may still serve those who hold one.
    pub sticky: StickyIndex,
    /// The policy over each part of the members that has its own share; at least one.
    pub(super) groups: Box<[Group]>,
    /// Which group each member is in.
    pub(super) group_of: Box<[u8]>,
    /// How many exchanges each may have in flight; `None` = any number.
    pub(super) limits: Option<Box<[u32]>>,
    /// What each is judged by.
    pub(super) guards: Box<[Arc<Guard>]>,
    /// Until when some member gets less than its share.
    pub(super) ramps_until: Nanos,
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
    /// After whom it is used.
    pub tier: Tier,
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

/// What every generation of an upstream is made by.
#[derive(Clone, Copy, Debug)]
struct Frame<'a> {
    spec: &'a config::Upstream,
    custom: Option<&'a Factory>,
    keyring: &'a Keyring,
    seed: u64,
}

/// What makes an upstream beside its file.
#[derive(Debug)]
pub struct Making<'a> {
    /// [`Upstream::slot`] and [`Upstream::version`].
    pub number: (usize, u64),
    /// [`Upstream::custom`]
    pub custom: Option<Factory>,
    /// [`Upstream::keyring`]
    pub keyring: Keyring,
    /// [`Upstream::zone`]
    pub zone: Option<Name>,
    /// The upstream of the same name before: turns, tables and lines go on from there.
    pub previous: Option<&'a Upstream>,
    /// Where its metrics are.
    pub registry: &'a Registry,
    /// Whom to tell what is found out.
    pub signals: Signals,
    /// Decides where its schedules begin.
    pub seed: u64,
    /// The time.
    pub now: Nanos,
}

// === impl Upstream ===

impl Upstream {
    /// An upstream of `seats`.
    pub fn new(spec: config::Upstream, seats: &[Seat], making: Making<'_>) -> Self {
        let cells = making.registry.upstream(&spec.name);
        let previous = making.previous.map(|p| p.members.load_full());
        let custom = making.custom;
        let keyring = making.keyring;
        let alike = making.previous.filter(|p| judge_alike(&p.spec, &spec));
        let guards = alike.and(previous.as_deref());
        let same_keys = making.previous.filter(|p| p.keyring == keyring);
        let cookies = same_keys.and(previous.as_deref());
        let frame = Frame {
            spec: &spec,
            custom: custom.as_ref(),
            keyring: &keyring,
            seed: making.seed,
        };
        let members = Members::new(
            seats,
            frame,
            previous.as_deref(),
            guards,
            cookies,
            making.now,
        );
        announce(&spec.name, &cells, previous.as_deref(), &members);
        let waiting = making.previous.map(|p| p.waiting.clone());
        let judges = Judges::new(&spec, making.previous);
        if !making.previous.is_some_and(|p| judges.has_breaker_of(p)) {
            // A new breaker is closed, whatever the one before it was.
            cells.control().breaker.set(State::Closed as u64);
        }
        let (slot, version) = making.number;
        Self {
            slot,
            version,
            custom,
            keyring,
            zone: making.zone,
            generation: AtomicU64::new(members.generation),
            members: ArcSwap::from_pointee(members),
            cells,
            waiting: waiting.unwrap_or_default(),
            judges,
            signals: making.signals,
            seed: making.seed,
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
    pub fn publish(&self, seats: &[Seat], now: Nanos) -> Arc<Members> {
        let previous = self.members.load_full();
        let frame = Frame {
            spec: &self.spec,
            custom: self.custom.as_ref(),
            keyring: &self.keyring,
            seed: self.seed,
        };
        let before = Some(&*previous);
        let next = Members::new(seats, frame, before, before, before, now);
        let next = Arc::new(next);
        self.members.store(next.clone());
        self.generation.store(next.generation, Ordering::Release);
        // Once it is so, for whoever goes by what he is told.
        announce(&self.spec.name, &self.cells, Some(&previous), &next);
        self.call_waiting(now);
        previous
    }

    /// There may be room that was not there before, for those who wait.
    pub fn call_waiting(&self, now: Nanos) {
        if self.waiting.is_busy() {
            self.waiting.call(now);
        }
    }

    /// Publishes the same members with the health that they have now.
    pub fn publish_health(&self, now: Nanos) -> Arc<Members> {
        let seats = self.members.load_full().seats();
        self.publish(&seats, now)
    }

    /// Forgets the evidence against an endpoint: its ejection has ended, or a check found it up.
    pub fn forget(&self, endpoint: &Endpoint) {
        let members = self.members.load();
        let mut places = members.endpoints.iter();
        if let Some(index) = places.position(|e| std::ptr::eq(Arc::as_ptr(e), endpoint)) {
            members.guards[index].record.reset();
        }
    }
}

// === impl Members ===

impl Members {
    /// `guards` and `cookies` are the previous generation, if what it made of its endpoints still
    /// holds.
    fn new(
        seats: &[Seat],
        frame: Frame<'_>,
        previous: Option<&Members>,
        guards: Option<&Members>,
        cookies: Option<&Members>,
        now: Nanos,
    ) -> Self {
        let Frame {
            spec,
            custom,
            keyring,
            seed,
        } = frame;
        let own: Vec<_> = seats
            .iter()
            .map(|s| (s.weight, s.endpoint.said()))
            .collect();
        let members: Box<[Member]> = seats
            .iter()
            .zip(said::weights(&own))
            .map(|(seat, weight)| Member {
                name: seat.endpoint.name.clone(),
                weight,
            })
            .collect();
        let admits = |s: &Seat| match s.endpoint.said().admits(s.admits) {
            Admits::All if s.endpoint.proof() == Proof::Awaited => Admits::Sticky,
            admits => admits,
        };
        // Weight 0 stops new clients, unless it says nothing because all have it.
        let all_zero = seats
            .iter()
            .zip(&own)
            .all(|(s, (weight, _))| admits(s) != Admits::All || *weight == 0);
        let admitted = |s: &Seat| admits(s) == Admits::All && (s.weight > 0 || all_zero);
        let is_up = |s: &Seat| s.health != Health::Down;
        let is_well = |s: &Seat| is_up(s) && !s.endpoint.is_ejected();
        let any = |is: &dyn Fn(&Seat) -> bool| seats.iter().any(|s| admitted(s) && is(s));
        // What requests say of an endpoint weighs less than that there is no other: the last resort
        // is whoever checks find up.
        let has_well = any(&is_well);
        let has_up = any(&is_up);
        let is_failing_open =
            spec.when_unhealthy == WhenUnhealthy::FailOpen && !has_up && any(&|_| true);
        let may_serve = |s: &Seat| is_failing_open || if has_well { is_well(s) } else { is_up(s) };
        let eligible: Vec<bool> = seats.iter().map(|s| admitted(s) && may_serve(s)).collect();
        let tiers: Box<[Tier]> = seats.iter().map(|s| s.tier).collect();
        let (groups, group_of) = groups(
            &members,
            &tiers,
            |i| admitted(&seats[i]),
            &eligible,
            |group, ready| match custom {
                Some(custom) => custom.build(&members, ready),
                None => crate::balance::build(
                    &spec.policy,
                    &members,
                    ready,
                    previous.and_then(|p| p.balancer_of(group)),
                    seed,
                ),
            },
        );
        let ready: Box<[bool]> = (0..seats.len())
            .map(|i| eligible[i] && groups[usize::from(group_of[i])].has_share())
            .collect();
        let sticky = if spec.sticky.is_some() {
            let ready: Vec<bool> = seats
                .iter()
                .map(|s| admits(s) != Admits::Nobody && may_serve(s))
                .collect();
            let before = cookies.map(|p| (&p.sticky, &*p.members));
            StickyIndex::new(keyring, &spec.name, &members, &ready, before)
        } else {
            StickyIndex::default()
        };
        let ramps_until = ramp(seats, &ready, spec, previous, now);
        Self {
            endpoints: seats.iter().map(|s| s.endpoint.clone()).collect(),
            loads: seats.iter().map(|s| s.endpoint.load.clone()).collect(),
            sticky,
            admits: seats.iter().map(|s| s.admits).collect(),
            limits: limits(seats, spec),
            weights: seats.iter().map(|s| s.weight).collect(),
            guards: guards_of(seats, spec, guards, seed),
            members,
            tiers,
            ready,
            is_failing_open,
            groups,
            group_of,
            ramps_until,
            generation: previous.map_or(1, |p| p.generation + 1),
        }
    }

    /// What it was built of, with the health of now.
    fn seats(&self) -> Vec<Seat> {
        (0..self.endpoints.len())
            .map(|i| Seat {
                endpoint: self.endpoints[i].clone(),
                weight: self.weights[i],
                admits: self.admits[i],
                health: self.endpoints[i].health(),
                tier: self.tiers[i],
            })
            .collect()
    }

    /// The balancer over `tier`, which goes on where it stood.
    fn balancer_of(&self, tier: Tier) -> Option<&Arc<dyn crate::balance::Balancer>> {
        let group = self.groups.iter().find(|g| g.tier == tier)?;
        Some(&group.balancer)
    }
}

/// How many exchanges each may have in flight; `None` = nobody has a limit.
fn limits(seats: &[Seat], spec: &config::Upstream) -> Option<Box<[u32]>> {
    let limit = |s: &Seat| s.endpoint.said().limit(spec.max_connections);
    let has_limits = spec.adaptive.is_some() || seats.iter().any(|s| limit(s).is_some());
    let list = || {
        seats
            .iter()
            .map(|s| limit(s).map_or(u32::MAX, NonZeroU32::get))
    };
    has_limits.then(|| list().collect())
}

/// The guards of `seats`: those of `previous` go on.
fn guards_of(
    seats: &[Seat],
    spec: &config::Upstream,
    previous: Option<&Members>,
    seed: u64,
) -> Box<[Arc<Guard>]> {
    let known: HashMap<*const Endpoint, &Arc<Guard>> = previous.map_or_else(HashMap::new, |p| {
        let endpoints = p.endpoints.iter().map(Arc::as_ptr);
        endpoints.zip(&*p.guards).collect()
    });
    let guard = |(i, seat): (usize, &Seat)| match known.get(&Arc::as_ptr(&seat.endpoint)) {
        Some(guard) => Arc::clone(guard),
        None => Arc::new(Guard::new(spec, seed.wrapping_add(i as u64))),
    };
    seats.iter().enumerate().map(guard).collect()
}

/// Notes who has just become ready, and says until when the last of them ramps up.
fn ramp(
    seats: &[Seat],
    ready: &[bool],
    spec: &config::Upstream,
    previous: Option<&Members>,
    now: Nanos,
) -> Nanos {
    let (Some(slow_start), Some(previous)) = (spec.slow_start.map(nanos), previous) else {
        return 0;
    };
    let shares = !matches!(
        spec.policy.kind,
        PolicyKind::First | PolicyKind::Maglev | PolicyKind::Rendezvous | PolicyKind::RingHash
    );
    // A key has its place, and a place is taken or not.
    if !shares {
        return 0;
    }
    // Where nobody was ready everybody is new: all the same, and nobody to spare them.
    if !previous.ready.iter().any(|ready| *ready) {
        return 0;
    }
    let before: HashMap<*const Endpoint, bool> = previous
        .endpoints
        .iter()
        .zip(&previous.ready)
        .map(|(e, ready)| (Arc::as_ptr(e), *ready))
        .collect();
    let mut until = 0;
    for (seat, _) in seats.iter().zip(ready).filter(|(_, ready)| **ready) {
        let was_ready = before.get(&Arc::as_ptr(&seat.endpoint)).copied();
        if !was_ready.unwrap_or(false) {
            seat.endpoint.became_ready(now);
        }
        let since = seat.endpoint.ready_since();
        if since > 0 && since.saturating_add(slow_start) > now {
            until = until.max(since.saturating_add(slow_start));
        }
    }
    until
}

/// Says once when an upstream begins or ends to use endpoints that are down, or to have none to use.
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
    let is_closed = |m: &Members| !m.endpoints.is_empty() && !m.ready.contains(&true);
    cells
        .control()
        .failing_closed
        .set(u64::from(is_closed(next)));
    // What begins closed (endpoints taken for down until checked) is no news.
    match (previous.map(is_closed), is_closed(next)) {
        (Some(false), true) => tracing::warn!(
            upstream = name,
            "failing closed: none of {} endpoints is ready, requests are answered 503",
            next.endpoints.len()
        ),
        (Some(true), false) => tracing::warn!(upstream = name, "failing closed has ended"),
        _ => {}
    }
}
