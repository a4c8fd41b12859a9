//! What the exchanges of an upstream and its endpoints are judged by: passive detection, the breaker,
//! the budget for retries. Workers feed them; what they conclude goes to the control plane, which is
//! the one that changes anything.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::base::clock::{Nanos, nanos};
use crate::config::{self, Mode, Name};
use crate::guard::breaker::{self, Admit, Breaker, Change, Pass};
use crate::guard::budget::Budget;
use crate::guard::gradient::Gradient;
use crate::guard::outlier::{self, Record, Trip};
use crate::guard::window::Ratio;

use super::{Endpoint, Seen, Upstream};

/// What a worker found out, for the control plane.
#[derive(Debug)]
pub enum Signal {
    /// The breaker of an upstream changed its state.
    Breaker {
        /// The upstream.
        upstream: Name,
        /// How.
        change: Change,
    },
    /// An endpoint said something of itself in a response.
    Said {
        /// Its upstream.
        upstream: Name,
        /// The endpoint.
        endpoint: Arc<Endpoint>,
        /// The field's value.
        line: Box<[u8]>,
    },
    /// There is enough evidence against an endpoint.
    Tripped {
        /// Its upstream.
        upstream: Name,
        /// The endpoint.
        endpoint: Arc<Endpoint>,
        /// What it did.
        trip: Trip,
    },
}

/// The way from workers to the control plane. Bounded: what does not fit is lost, and the evidence
/// comes again.
#[derive(Clone, Debug)]
pub struct Signals(mpsc::Sender<Signal>);

/// What one endpoint is judged by in one upstream.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) record: Record,
    /// How much the endpoint bears, where that is learnt.
    pub(super) gradient: Option<Gradient>,
}

/// What one upstream is judged by as a whole; goes on over reloads while its settings stay.
#[derive(Debug)]
pub(super) struct Judges {
    budget: Arc<Budget>,
    breaker: Option<Arc<Breaker>>,
}

/// An exchange that the breaker has let in. Dropped without [`Admission::end`] it says nothing.
#[derive(Debug)]
pub struct Admission {
    upstream: Arc<Upstream>,
    pass: Option<Pass>,
}

/// When to come again if something is full: it empties as exchanges end, within a second as a rule.
pub const SOON: Nanos = 1_000_000_000;

/// Signals on their way. Each is a change of state, of which there are few; 1,000 endpoints that fail
/// at once fit.
const SIGNALS: usize = 1024;

// === impl Signals ===

impl Signals {
    /// A way, and its end.
    pub fn channel() -> (Self, mpsc::Receiver<Signal>) {
        let (sender, receiver) = mpsc::channel(SIGNALS);
        (Self(sender), receiver)
    }

    /// Tells the control plane; whether there was room.
    pub fn send(&self, signal: Signal) -> bool {
        self.0.try_send(signal).is_ok()
    }
}

// === impl Guard ===

impl Guard {
    /// A guard without evidence.
    pub(super) fn new(spec: &config::Upstream, seed: u64) -> Self {
        let settings = outlier::Settings {
            failures: spec.outlier.consecutive_failures,
            connects: spec.outlier.consecutive_connect_failures,
            ratio: spec.outlier.failure_ratio.as_ref().map(ratio),
        };
        Self {
            record: Record::new(settings),
            gradient: spec
                .adaptive
                .map(|a| Gradient::new(a.min.get(), a.max.get(), seed)),
        }
    }

    /// Takes in that a connection came about.
    #[inline]
    pub(super) fn connected(&self) {
        self.record.connected();
    }

    /// Takes in how an attempt went.
    #[inline]
    pub(super) fn observe(&self, seen: Seen, now: Nanos) -> Option<Trip> {
        let observed = match seen {
            Seen::Answered => outlier::Observed::Ok,
            Seen::Failed => outlier::Observed::Failed,
            Seen::Unconnected => outlier::Observed::ConnectFailed,
            Seen::Cancelled | Seen::Late => return None,
        };
        self.record.observe(observed, now)
    }
}

/// Whether guards made for one of these serve the other too.
pub(super) fn judge_alike(a: &config::Upstream, b: &config::Upstream) -> bool {
    a.outlier == b.outlier && a.adaptive == b.adaptive
}

fn ratio(spec: &config::FailureRatio) -> Ratio {
    Ratio {
        above: spec.above,
        min_requests: spec.min_requests,
        window: nanos(spec.window),
    }
}

// === impl Judges ===

impl Judges {
    /// Those of an upstream that is like `spec`; `previous` is the upstream of the same name before.
    pub(super) fn new(spec: &config::Upstream, previous: Option<&Upstream>) -> Self {
        let budget = previous
            .filter(|p| p.spec.retry_floor == spec.retry_floor)
            .map(|p| p.judges.budget.clone());
        let kept = previous.filter(|p| p.spec.breaker == spec.breaker);
        let breaker = spec.breaker.as_ref().map(|b| {
            let kept = kept.and_then(|p| p.judges.breaker.clone());
            kept.unwrap_or_else(|| {
                Arc::new(Breaker::new(breaker::Settings {
                    ratio: b.failure_ratio.as_ref().map(ratio),
                    open_for: nanos(b.open_for),
                    trials: b.trials,
                }))
            })
        });
        Self {
            budget: budget.unwrap_or_else(|| Arc::new(Budget::new(spec.retry_floor))),
            breaker,
        }
    }

    /// Whether what the breaker of `previous` found holds for this one.
    pub(super) fn has_breaker_of(&self, previous: &Upstream) -> bool {
        match (&self.breaker, &previous.judges.breaker) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, _) | (_, None) => false,
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// Takes one attempt from the budget for retries and hedges, which gets `ratio` of an attempt
    /// with each exchange; whether there was one.
    pub fn withdraw(&self, ratio: f64, now: Nanos) -> bool {
        let exchanges = self.cells.sum(|c| c.exchanges.value());
        self.judges.budget.withdraw(exchanges, ratio, now)
    }

    /// Tells the budget how many exchanges there have been, once a second or so.
    pub fn note_exchanges(&self, now: Nanos) {
        let exchanges = self.cells.sum(|c| c.exchanges.value());
        self.judges.budget.note(exchanges, now);
    }

    /// Whether the breaker lets an exchange of `worker` in.
    ///
    /// # Errors
    /// It does not, and when to ask again, in nanoseconds.
    #[inline]
    pub fn admit(self: &Arc<Self>, worker: usize, now: Nanos) -> Result<Option<Admission>, Nanos> {
        match (&self.spec.breaker, &self.judges.breaker) {
            (Some(spec), Some(breaker)) => self.admit_by(spec, breaker, worker, now),
            _ => Ok(None),
        }
    }

    /// The state of the breaker, if there is one.
    pub fn breaker_state(&self, now: Nanos) -> Option<breaker::State> {
        Some(self.judges.breaker.as_ref()?.state(now))
    }

    fn admit_by(
        self: &Arc<Self>,
        spec: &config::Breaker,
        breaker: &Breaker,
        worker: usize,
        now: Nanos,
    ) -> Result<Option<Admission>, Nanos> {
        let in_flight = || {
            let members = self.members.load();
            members.endpoints.iter().map(|e| e.in_flight()).sum::<u64>()
        };
        let is_full = spec
            .max_pending
            .is_some_and(|max| self.waiting.len() >= max.get() as usize)
            || spec
                .max_in_flight
                .is_some_and(|max| in_flight() >= u64::from(max.get()));
        let verdict = if is_full {
            Err(SOON)
        } else {
            match breaker.admit(now) {
                Admit::Closed(pass) => Ok(pass),
                Admit::Trial(pass, change) => {
                    self.tell(change);
                    Ok(pass)
                }
                Admit::Refused { retry_after } => Err(retry_after),
            }
        };
        let pass = match (verdict, spec.mode) {
            (Ok(pass), _) => Some(pass),
            (Err(_), Mode::Observe) => {
                self.cells.worker(worker).breaker_observed.inc();
                None
            }
            (Err(retry_after), Mode::Enforce) => return Err(retry_after),
        };
        Ok(Some(Admission {
            upstream: self.clone(),
            pass,
        }))
    }

    fn tell(&self, change: Option<Change>) {
        if let Some(change) = change {
            self.signals.send(Signal::Breaker {
                upstream: self.spec.name.clone(),
                change,
            });
        }
    }
}

// === impl Admission ===

impl Admission {
    /// How the exchange ended, all attempts taken together.
    pub fn end(mut self, seen: Seen, now: Nanos) {
        let failed = match seen {
            Seen::Answered => false,
            // Slow is no reason to leave one endpoint for another, and reason enough to give a whole
            // upstream a rest.
            Seen::Failed | Seen::Late | Seen::Unconnected => true,
            Seen::Cancelled => return,
        };
        if let (Some(pass), Some(breaker)) = (self.pass.take(), &self.upstream.judges.breaker) {
            let change = breaker.observe(pass, failed, now);
            self.upstream.tell(change);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let (Some(pass), Some(breaker)) = (self.pass.take(), &self.upstream.judges.breaker) {
            breaker.forget(pass);
        }
    }
}
