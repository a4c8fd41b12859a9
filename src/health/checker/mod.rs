//! The shell of the checks: knows whom to check, runs what is due, hands on what has changed.
//!
//! One task, one heap of due times, at most 4,096 checks at once. It runs on the control
//! runtime: no worker ever waits for a check, nor a check for a worker.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Clock, Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::{HealthSpec, Name};
use crate::telemetry::metrics::cells::CheckResult;
use crate::upstream::{Endpoint, Health};

use super::probe::{Failure, probe};
use super::schedule;
use super::threshold::{Evidence, Threshold};

/// An endpoint to be checked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its upstream.
    pub upstream: Name,
    /// The endpoint; it stays the same target while it is the same object.
    pub endpoint: Arc<Endpoint>,
    /// How it is checked.
    pub spec: Arc<HealthSpec>,
}

/// Everything to be checked, replaced whole.
pub type Targets = Arc<[Target]>;

/// An endpoint is no longer what it was.
#[derive(Debug)]
pub struct Verdict {
    /// Its upstream.
    pub upstream: Name,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What it is now.
    pub health: Health,
    /// Why, for people.
    pub why: String,
}

/// The checks of one server.
#[derive(Debug)]
pub struct Checker {
    clock: Clock,
    rng: Rng,
    watched: HashMap<Id, Watched>,
    ids: HashMap<(Name, EndpointAddr), Id>,
    last_id: Id,
    /// When which endpoint is due; what is not watched any more is skipped.
    due: BinaryHeap<Reverse<(Nanos, Id)>>,
    running: JoinSet<Done>,
    /// Verdicts to be handed on, oldest first, and when.
    verdicts: Vec<Verdict>,
    hand_on_at: Nanos,
}

/// A target under one spec: with another spec it is another.
type Id = u64;

#[derive(Debug)]
struct Watched {
    target: Target,
    threshold: Threshold,
    /// Results of the same kind in a row.
    row: u32,
    last: Option<Evidence>,
}

#[derive(Debug)]
struct Done {
    id: Id,
    /// When it began.
    at: Nanos,
    result: Result<(), Failure>,
}

/// Checks that run at once. 2,000 a second (10,000 endpoints every 5 s), each silent for 2 s: then
/// later ones begin later. Each takes a descriptor, of which a proxy has tens of thousands.
const MAX_RUNNING: usize = 4096;

/// Verdicts of this time are handed on together: one generation of members for a rack that fails,
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
            verdicts: Vec::new(),
            hand_on_at: 0,
        }
    }

    /// Checks what `targets` says, for ever. `hand_on` takes verdicts out of the list, all or none:
    /// what it leaves is offered again with what has come since. Dropping the future ends all checks.
    pub async fn run(
        mut self,
        mut targets: watch::Receiver<Targets>,
        mut hand_on: impl FnMut(&mut Vec<Verdict>),
    ) {
        let first = targets.borrow_and_update().clone();
        self.follow(&first);
        loop {
            let wake = self.wake_after();
            // Each arm may be dropped: `changed` and `join_next` are cancel-safe.
            tokio::select! {
                changed = targets.changed() => {
                    if changed.is_err() {
                        // Nobody says any more what to check: the server ends.
                        return std::future::pending().await;
                    }
                    let now = targets.borrow_and_update().clone();
                    self.follow(&now);
                }
                Some(done) = self.running.join_next() => self.finish(done),
                () = sleep(wake) => {}
            }
            while let Some(done) = self.running.try_join_next() {
                self.finish(done);
            }
            self.start_due();
            if !self.verdicts.is_empty() && self.clock.now() >= self.hand_on_at {
                let began = self.clock.now();
                hand_on(&mut self.verdicts);
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
        let hand_on = (!self.verdicts.is_empty()).then_some(self.hand_on_at);
        let at = due.into_iter().chain(hand_on).min();
        at.map_or(IDLE, |at| {
            Duration::from_nanos(at.saturating_sub(self.clock.now()))
        })
    }

    /// Takes over what is to be checked from now on; whoever stays keeps his state.
    fn follow(&mut self, targets: &Targets) {
        let now = self.clock.now();
        let pending: HashSet<_> = self.verdicts.iter().map(|v| of(&v.endpoint)).collect();
        let mut before = std::mem::take(&mut self.watched);
        let old_ids = std::mem::take(&mut self.ids);
        for target in targets.iter() {
            let name = (target.upstream.clone(), target.endpoint.addr.clone());
            let same = old_ids.get(&name).and_then(|id| {
                let old = before.remove(id)?;
                Arc::ptr_eq(&old.target.endpoint, &target.endpoint).then_some((*id, old))
            });
            let (id, watched) = match same {
                // That it is something else than what was found, and nobody is about to be told so:
                // it was without checks for a moment.
                Some((id, old))
                    if old.target.spec == target.spec
                        && (old.threshold.health() == target.endpoint.health()
                            || pending.contains(&of(&target.endpoint))) =>
                {
                    (id, old)
                }
                Some((_, old)) => {
                    // What it is it stays; what it takes to change that is counted anew.
                    let health = if pending.contains(&of(&target.endpoint)) {
                        old.threshold.health()
                    } else {
                        target.endpoint.health()
                    };
                    let threshold = Threshold::kept(&target.spec, health);
                    (self.enlist(target, now), Watched::new(target, threshold))
                }
                None => {
                    let fresh = Threshold::new(&target.spec);
                    let health = target.endpoint.health();
                    let threshold = if fresh.health() == health {
                        fresh
                    } else {
                        // It was known before it became a target (again).
                        Threshold::kept(&target.spec, health)
                    };
                    (self.enlist(target, now), Watched::new(target, threshold))
                }
            };
            self.ids.insert(name, id);
            self.watched.insert(id, watched);
        }
        // What was found of those who are gone is nobody's concern, not even if they come back.
        let current: HashSet<_> = self
            .watched
            .values()
            .map(|w| of(&w.target.endpoint))
            .collect();
        self.verdicts.retain(|v| current.contains(&of(&v.endpoint)));
    }

    /// A new id, with its first check due soon.
    fn enlist(&mut self, target: &Target, now: Nanos) -> Id {
        self.last_id += 1;
        let first = schedule::first(&target.spec, &mut self.rng);
        let at = now.saturating_add(first);
        self.due.push(Reverse((at, self.last_id)));
        self.last_id
    }

    /// Begins the checks that are due.
    fn start_due(&mut self) {
        let now = self.clock.now();
        while self.running.len() < MAX_RUNNING
            && let Some(Reverse((at, id))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(watched) = self.watched.get(&id) else {
                continue;
            };
            let spec = watched.target.spec.clone();
            let addr = watched.target.endpoint.addr.clone();
            self.running.spawn(async move {
                let result = probe(&spec, &addr).await;
                Done {
                    id,
                    at: now,
                    result,
                }
            });
        }
    }

    /// Counts a check that has ended, judges, and says when the next one is due.
    fn finish(&mut self, done: Result<Done, JoinError>) {
        // Nobody aborts a check; one that panics would have been reported, and is not known here.
        let Ok(Done { id, at, result }) = done else {
            return;
        };
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let class = match &result {
            Ok(()) => CheckResult::Ok,
            Err(failure) => failure.result(),
        };
        let cells = watched.target.endpoint.cells.control();
        cells.checks(class).inc();
        self.verdicts.extend(watched.judge(result));
        let wait = schedule::next(
            &watched.target.spec,
            watched.threshold.health(),
            &mut self.rng,
        );
        let next = at.saturating_add(wait).max(self.clock.now());
        self.due.push(Reverse((next, id)));
    }
}

// === impl Watched ===

impl Watched {
    fn new(target: &Target, threshold: Threshold) -> Self {
        Self {
            target: target.clone(),
            threshold,
            row: 0,
            last: None,
        }
    }

    /// Takes a result in; a verdict, if that changes what the endpoint is.
    fn judge(&mut self, result: Result<(), Failure>) -> Option<Verdict> {
        let evidence = match &result {
            Ok(()) => Evidence::Passed,
            Err(Failure::Local(_)) => return None,
            Err(_) => Evidence::Failed,
        };
        self.row = match self.last.replace(evidence) {
            Some(last) if last == evidence => self.row.saturating_add(1),
            Some(_) | None => 1,
        };
        let health = self.threshold.observe(evidence)?;
        let check = self.target.spec.check.as_str();
        let checks = match self.row {
            1 => format!("1 {check} check"),
            n => format!("{n} {check} checks in a row"),
        };
        let why = match result {
            Ok(()) => format!("{checks} passed"),
            Err(failure) => format!("{checks} failed, the last with: {failure}"),
        };
        Some(Verdict {
            upstream: self.target.upstream.clone(),
            endpoint: self.target.endpoint.clone(),
            health,
            why,
        })
    }
}

/// Which object it is.
fn of(endpoint: &Arc<Endpoint>) -> *const Endpoint {
    Arc::as_ptr(endpoint)
}

#[cfg(test)]
mod tests;
