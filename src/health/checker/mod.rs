//! The shell of the checks: knows whom to ask, asks who is due, hands on what has changed.
//!
//! One task, one heap of due times, at most 4,096 questions at once; checks and agents alike. It runs
//! on the control runtime: no worker ever waits for a check, nor a check for a worker. In a fleet it asks only
//! whom it must, and what it finds of them are votes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Clock, Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::{AgentSpec, HealthSpec, Name};
use crate::upstream::Endpoint;

use super::agent;
use super::duty::{Duty, Role};
use super::probe::probe;
use super::schedule;

mod findings;
mod first_round;
mod orders;
mod watched;

pub use findings::{Findings, Found, Verdict, Vote};

use first_round::FirstRound;
use orders::{Orders, Told, told};
use watched::{Due, Outcome, Turn, Watched};

/// An endpoint to be asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its upstream.
    pub upstream: Name,
    /// The endpoint; it stays the same target while it is the same object.
    pub endpoint: Arc<Endpoint>,
    /// What it is asked.
    pub ask: Ask,
}

/// What an endpoint is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Its agent, what it says of itself.
    Agent(Arc<AgentSpec>),
    /// The endpoint, whether it is well.
    Check(Arc<HealthSpec>),
}

/// Everything to be asked, replaced whole.
pub type Targets = Arc<[Target]>;

/// The checks of one server.
#[derive(Debug)]
pub struct Checker {
    clock: Clock,
    rng: Rng,
    watched: HashMap<Id, Watched>,
    ids: HashMap<(Name, EndpointAddr, Kind), Id>,
    last_id: Id,
    /// When which endpoint is due; what is not watched any more is skipped.
    due: BinaryHeap<Reverse<(Nanos, Id)>>,
    running: JoinSet<Done>,
    findings: Findings,
    /// When findings may be handed on.
    hand_on_at: Nanos,
    first_round: FirstRound,
    fleet: Option<Orders>,
    /// Whose checks are run here.
    duty: Arc<Duty>,
}

/// A target under one spec: with another spec it is another.
type Id = u64;

/// Of one endpoint there is one target of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Agent,
    Check,
}

#[derive(Debug)]
struct Done {
    id: Id,
    /// When it began.
    at: Nanos,
    outcome: Outcome,
}

/// Checks that run at once. 2,000 a second (10,000 endpoints every 5 s), each silent for 2 s: then
/// later ones begin later. Each takes a descriptor, of which a proxy has tens of thousands.
const MAX_RUNNING: usize = 4096;

/// Findings of this time are handed on together: one generation of members for a rack that fails,
/// and at most 50 a second for endpoints that flap.
const GATHER: Duration = Duration::from_millis(20);

// === impl Checker ===

impl Checker {
    /// A checker that knows nobody yet; `seed` decides when endpoints are checked.
    pub fn new(seed: u64) -> Self {
        Self {
            clock: Clock::start(),
            rng: Rng::new(seed),
            watched: HashMap::new(),
            ids: HashMap::new(),
            last_id: 0,
            due: BinaryHeap::new(),
            running: JoinSet::new(),
            findings: Findings::default(),
            hand_on_at: 0,
            first_round: FirstRound::default(),
            fleet: None,
            duty: Arc::default(),
        }
    }

    /// The same, in a fleet: asks only whom `duty` says, and those of `at_once` now that it asks for others. When
    /// nobody says any more, it asks everybody.
    ///
    /// Whoever sends a duty in which endpoints are ruled must have what the fleet says of them in force by the next
    /// wait of this thread: then they count as known. A verdict from here says of an endpoint that is ruled only
    /// whether it is down for this process.
    #[must_use]
    pub fn sharing(
        mut self,
        duty: watch::Receiver<Arc<Duty>>,
        at_once: mpsc::Receiver<(Name, EndpointAddr)>,
    ) -> Self {
        self.fleet = Some(Orders { duty, at_once });
        self
    }

    /// Asks whom `targets` says, for ever. `hand_on` takes findings out, all or none: what it leaves
    /// is offered again with what has come since. `known` is called once, as soon as it is known of
    /// the first targets what they are. Dropping the future ends all checks.
    pub async fn run(
        mut self,
        mut targets: watch::Receiver<Targets>,
        mut hand_on: impl FnMut(&mut Findings),
        known: impl FnOnce(),
    ) {
        let mut known = Some(known);
        let mut fleet = self.fleet.take();
        if let Some(orders) = &mut fleet {
            self.duty = orders.duty.borrow_and_update().clone();
        }
        let first = targets.borrow_and_update().clone();
        self.follow(&first);
        let unknown = self.watched.iter().filter(|(_, w)| !w.role.is_ruled());
        self.first_round = FirstRound::new(unknown.map(|(id, _)| *id), self.clock.now());
        loop {
            if self.findings.is_empty()
                && self.first_round.is_over(self.clock.now())
                && let Some(known) = known.take()
            {
                known();
            }
            let wake = self.wake_after();
            // Each arm may be dropped: `changed`, `told` and `join_next` are cancel-safe.
            tokio::select! {
                changed = targets.changed() => {
                    if changed.is_err() {
                        // Nobody says any more what to check: the server ends.
                        return std::future::pending().await;
                    }
                    // First, as new targets have their roles in it.
                    self.heed(&mut fleet);
                    let now = targets.borrow_and_update().clone();
                    self.follow(&now);
                }
                told = told(&mut fleet) => match told {
                    Told::AskAtOnce(upstream, endpoint) => self.ask_at_once(upstream, endpoint),
                    Told::Duty(duty) => self.take_duty(duty),
                    Told::NoMore => {
                        fleet = None;
                        self.take_duty(Arc::default());
                    }
                },
                Some(done) = self.running.join_next() => self.finish(done),
                () = sleep(wake) => {}
            }
            while let Some(done) = self.running.try_join_next() {
                self.finish(done);
            }
            self.heed(&mut fleet);
            self.start_due();
            if !self.findings.is_empty() && self.clock.now() >= self.hand_on_at {
                let began = self.clock.now();
                hand_on(&mut self.findings);
                let now = self.clock.now();
                // Members of a large upstream take milliseconds to build: at most a fifth of the time.
                let took = now.saturating_sub(began);
                self.hand_on_at = now.saturating_add(nanos(GATHER).max(4 * took));
            }
        }
    }

    /// How long nothing has to be done, if no check ends.
    fn wake_after(&self) -> Duration {
        /// Nothing is due: something will be told.
        const IDLE: Duration = Duration::from_secs(3600);
        let due = match self.due.peek() {
            Some(Reverse((at, _))) if self.running.len() < MAX_RUNNING => Some(*at),
            _ => None,
        };
        let hand_on = (!self.findings.is_empty()).then_some(self.hand_on_at);
        let times = [due, hand_on, self.first_round.ends_at()];
        times.into_iter().flatten().min().map_or(IDLE, |at| {
            Duration::from_nanos(at.saturating_sub(self.clock.now()))
        })
    }

    /// Takes over whom to ask from now on; whoever stays keeps his state.
    fn follow(&mut self, targets: &Targets) {
        let verdicts = &self.findings.verdicts;
        let pending: HashSet<_> = verdicts.iter().map(|v| of(&v.endpoint)).collect();
        let mut before = std::mem::take(&mut self.watched);
        let old_ids = std::mem::take(&mut self.ids);
        let mut fresh = Vec::new();
        for target in targets.iter() {
            let kind = target.ask.kind();
            let name = (target.upstream.clone(), target.endpoint.addr.clone(), kind);
            let same = old_ids.get(&name).and_then(|id| {
                let old = before.remove(id)?;
                Arc::ptr_eq(&old.target.endpoint, &target.endpoint).then_some((*id, old))
            });
            let is_pending = pending.contains(&of(&target.endpoint));
            let role = match kind {
                Kind::Agent => Role::Alone,
                Kind::Check => self.duty.role(&target.upstream, &target.endpoint.addr),
            };
            let (id, watched) = match same {
                Some((id, old)) if old.goes_on(target, is_pending) => (id, old),
                old => {
                    self.last_id += 1;
                    if role.asks() {
                        fresh.push(self.last_id);
                    }
                    let old = old.map(|(_, old)| old);
                    (self.last_id, Watched::new(target, role, old, is_pending))
                }
            };
            self.ids.insert(name, id);
            self.watched.insert(id, watched);
        }
        self.begin(&fresh);
        // What was found of those who are gone is nobody's concern, not even if they come back.
        let asked = |kind| {
            let of_kind = self
                .watched
                .values()
                .filter(move |w| w.target.ask.kind() == kind);
            of_kind
                .map(|w| of(&w.target.endpoint))
                .collect::<HashSet<_>>()
        };
        let (checked, heard) = (asked(Kind::Check), asked(Kind::Agent));
        let Findings {
            verdicts,
            heard: lines,
            votes,
        } = &mut self.findings;
        verdicts.retain(|v| checked.contains(&of(&v.endpoint)));
        votes.retain(|v| checked.contains(&of(&v.endpoint)));
        lines.retain(|h| heard.contains(&of(&h.endpoint)));
        self.first_round.retain(|id| self.watched.contains_key(&id));
    }

    /// Says when those are asked first who begin to be asked.
    fn begin(&mut self, fresh: &[Id]) {
        let now = self.clock.now();
        for id in fresh {
            let Some(watched) = self.watched.get_mut(id) else {
                continue;
            };
            let interval = watched.target.ask.interval();
            let first = schedule::first(interval, fresh.len(), &mut self.rng);
            let at = now.saturating_add(first);
            watched.due = Due::At { at, later: None };
            self.due.push(Reverse((at, *id)));
        }
    }

    /// Takes in what the fleet has said since.
    fn heed(&mut self, fleet: &mut Option<Orders>) {
        if let Some(orders) = fleet
            && orders.duty.has_changed().unwrap_or(false)
        {
            let duty = orders.duty.borrow_and_update().clone();
            self.take_duty(duty);
        }
    }

    /// Takes over whose checks are run here from now on.
    fn take_duty(&mut self, duty: Arc<Duty>) {
        self.duty = duty;
        let verdicts = &self.findings.verdicts;
        let pending: HashSet<_> = verdicts.iter().map(|v| of(&v.endpoint)).collect();
        let mut fresh = Vec::new();
        for (name, id) in &self.ids {
            let (upstream, endpoint, kind) = name;
            let Some(watched) = self.watched.get_mut(id) else {
                continue;
            };
            let role = self.duty.role(upstream, endpoint);
            if *kind == Kind::Agent || watched.role == role {
                continue;
            }
            let is_pending = pending.contains(&of(&watched.target.endpoint));
            if watched.play(role, is_pending, &mut self.findings.votes) == Turn::Begins {
                fresh.push(*id);
            }
            if role.is_ruled() {
                self.first_round.knows(*id);
            }
        }
        self.begin(&fresh);
        let Findings {
            verdicts, votes, ..
        } = &mut self.findings;
        // What others find holds, and is in force.
        verdicts.retain(|v| self.duty.role(&v.upstream, &v.endpoint.addr).asks());
        votes.retain(|v| self.duty.role(&v.upstream, &v.endpoint.addr).votes());
    }

    /// Asks an endpoint out of turn.
    fn ask_at_once(&mut self, upstream: Name, endpoint: EndpointAddr) {
        let now = self.clock.now();
        let id = self.ids.get(&(upstream, endpoint, Kind::Check));
        let Some((id, watched)) = id.and_then(|id| Some((*id, self.watched.get_mut(id)?))) else {
            return;
        };
        if watched.role.votes() && watched.doubt(now) {
            self.due.push(Reverse((now, id)));
        }
    }

    /// Asks who is due.
    fn start_due(&mut self) {
        let now = self.clock.now();
        while self.running.len() < MAX_RUNNING
            && let Some(Reverse((at, id))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(watched) = self.watched.get_mut(&id) else {
                continue;
            };
            // What was due at another time has an entry of its own.
            let Due::At { at: due, later } = watched.due else {
                continue;
            };
            if due != at {
                continue;
            }
            watched.due = Due::Now {
                later,
                is_doubted: false,
            };
            // Who is doubted must show it.
            if later.is_none() && watched.is_proved(now) {
                self.take(Done {
                    id,
                    at: now,
                    outcome: Outcome::Proved,
                });
                continue;
            }
            let ask = watched.target.ask.clone();
            let addr = watched.target.endpoint.addr.clone();
            self.running.spawn(async move {
                let outcome = match ask {
                    Ask::Agent(spec) => Outcome::Agent(agent::ask(&spec, &addr).await),
                    Ask::Check(spec) => Outcome::Check(probe(&spec, &addr).await),
                };
                Done {
                    id,
                    at: now,
                    outcome,
                }
            });
        }
    }

    fn finish(&mut self, done: Result<Done, JoinError>) {
        // Nobody aborts a check; one that panics would have been reported, and is not known here.
        if let Ok(done) = done {
            self.take(done);
        }
    }

    /// Counts a check that has ended, judges, and says when the next one is due.
    fn take(&mut self, Done { id, at, outcome }: Done) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let now = self.clock.now();
        watched.note(&outcome, self.clock.unix_ms(), now.saturating_sub(at));
        watched.judge(outcome, &mut self.findings);
        if watched.is_known() {
            self.first_round.knows(id);
        }
        let clock = self.clock;
        let unix = || clock.unix_offset().wrapping_add(at);
        let next = at.saturating_add(watched.wait(unix, &mut self.rng));
        if let Some(next) = watched.next(next, now) {
            self.due.push(Reverse((next, id)));
        }
    }
}

// === impl Ask ===

impl Ask {
    fn kind(&self) -> Kind {
        match self {
            Self::Agent(_) => Kind::Agent,
            Self::Check(_) => Kind::Check,
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Agent(spec) => spec.interval,
            Self::Check(spec) => spec.interval,
        }
    }
}

/// Which object it is.
fn of(endpoint: &Arc<Endpoint>) -> *const Endpoint {
    Arc::as_ptr(endpoint)
}

#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
