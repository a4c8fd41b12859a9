//! The breaker of an upstream: closed, open when too many attempts fail, half-open to try again.
//!
//! Nygard's circuit breaker ("Release It!", 2007) in the form of resilience4j: it opens by the
//! failure ratio of a sliding window, refuses for `open_for`, then lets a bounded number of trials
//! through, which decide. Departures:
//! - All trials must succeed and one failure reopens it: an upstream that fails half of them is not
//!   well, and trials are clients' requests.
//! - The trial that never reports (its task is gone, its client waits for ever) keeps its place for
//!   `open_for`, not for good. If it fails after that, that counts still.
//! - What was admitted before the last change of state says nothing about what is: the requests that
//!   hung in an outage and time out after it do not open the breaker again.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::clock::Nanos;
use crate::guard::window::{Counts, Ratio, Window};

/// The breaker of one upstream; shared by workers.
///
/// Closed, an attempt costs a load at its begin, and at its end a load and what [`Window::observe`]
/// costs; without a ratio nothing. Open, a refusal costs three loads. `Relaxed`: changes are made
/// under the lock, and a worker that sees one late admits or refuses a few requests more.
#[derive(Debug)]
pub struct Breaker {
    /// Goes up with each change but that to half-open; even = closed.
    era: AtomicU64,
    /// Until when it refuses everything. Beside `era`, so that refusing takes no lock either.
    until: AtomicU64,
    settings: Settings,
    phase: Mutex<Phase>,
    window: Option<Window>,
}

/// How a breaker behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Opens above it; `None` = never opens.
    pub ratio: Option<Ratio>,
    /// How long it refuses before it lets trials through, and how long a trial keeps its place.
    pub open_for: Nanos,
    /// Trials that must all succeed before it closes; no more are let through at once.
    pub trials: NonZeroU32,
}

/// The answer to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admit {
    /// Go on.
    Closed(Pass),
    /// Go on; others wait for how it ends. With the change, if this is the first trial.
    Trial(Pass, Option<Change>),
    /// Not now.
    Refused {
        /// When to ask again, in nanoseconds from now; at least 1. While trials run, when the first
        /// of them loses its place: by then there is a verdict, or room for another.
        retry_after: Nanos,
    },
}

/// What an admitted attempt reports with: [`Breaker::observe`] or [`Breaker::forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    era: u64,
    /// Of a trial; 0 = admitted while closed.
    place: u64,
}

/// A change of state, for the log and the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Closed to open, for what was counted.
    Opened(Counts),
    /// Open to half-open: the first trial goes.
    HalfOpened,
    /// Half-open to closed: all trials succeeded.
    Closed,
    /// Half-open to open: a trial failed.
    Reopened,
}

/// For the gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything goes.
    Closed = 0,
    /// Trials go, or the next attempt will be one.
    HalfOpen = 1,
    /// Nothing goes.
    Open = 2,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open,
    HalfOpen(Trials),
}

/// The trials since it was open.
#[derive(Debug)]
struct Trials {
    /// At most `Settings::trials`, together with those that succeeded.
    running: Vec<Trial>,
    succeeded: u32,
    /// The place of the last one.
    last_place: u64,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    place: u64,
    since: Nanos,
}

// === impl State ===

impl State {
    /// The word in views and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

// === impl Breaker ===

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: Settings) -> Self {
        Self {
            era: AtomicU64::new(0),
            until: AtomicU64::new(0),
            settings,
            phase: Mutex::new(Phase::Closed),
            window: settings.ratio.map(|ratio| Window::new(ratio.window)),
        }
    }

    /// Whether an attempt may begin at `now`. Who is admitted reports once: [`Breaker::observe`], or
    /// [`Breaker::forget`] if there was nothing to learn.
    #[inline]
    pub fn admit(&self, now: Nanos) -> Admit {
        let era = self.era.load(Ordering::Relaxed);
        if is_closed(era) {
            return Admit::Closed(Pass { era, place: 0 });
        }
        self.admit_trial(now)
    }

    /// How an admitted attempt ended. Whether it failed is the caller's to say: an answer of the
    /// upstream that blames the client is no failure.
    #[inline]
    pub fn observe(&self, pass: Pass, failed: bool, now: Nanos) -> Option<Change> {
        if pass.is_trial() {
            return self.judge(pass, failed, now);
        }
        let (ratio, window) = (self.settings.ratio?, self.window.as_ref()?);
        if self.era.load(Ordering::Relaxed) != pass.era {
            return None;
        }
        window.observe(failed, now);
        // Judged at failures only: with a success the share falls.
        if !failed {
            return None;
        }
        let counts = window.counts(now);
        if !ratio.is_exceeded_by(counts) {
            return None;
        }
        self.open(pass.era, counts, now)
    }

    /// An admitted attempt ended without anything learnt about the upstream: its client left, it was
    /// never sent. The place of a trial is free again.
    #[inline]
    pub fn forget(&self, pass: Pass) {
        if pass.is_trial() {
            self.leave(pass);
        }
    }

    /// The state as the next attempt would find it.
    pub fn state(&self, now: Nanos) -> State {
        if is_closed(self.era.load(Ordering::Relaxed)) {
            State::Closed
        } else if now < self.until.load(Ordering::Relaxed) {
            State::Open
        } else {
            State::HalfOpen
        }
    }

    #[cold]
    fn admit_trial(&self, now: Nanos) -> Admit {
        // An old value is an earlier one, and then the lock decides.
        if let Some(refused) = self.refuse_until(now) {
            return refused;
        }
        let mut phase = self.lock();
        // It may have been reopened, or closed, in between. Both words change under the lock only.
        if let Some(refused) = self.refuse_until(now) {
            return refused;
        }
        let era = self.era.load(Ordering::Relaxed);
        match &mut *phase {
            Phase::Closed => Admit::Closed(Pass { era, place: 0 }),
            Phase::Open => {
                let first = Trial {
                    place: 1,
                    since: now,
                };
                *phase = Phase::HalfOpen(Trials {
                    running: vec![first],
                    succeeded: 0,
                    last_place: first.place,
                });
                Admit::Trial(first.pass(era), Some(Change::HalfOpened))
            }
            Phase::HalfOpen(trials) => self.admit_another(trials, era, now),
        }
    }

    fn admit_another(&self, trials: &mut Trials, era: u64, now: Nanos) -> Admit {
        let open_for = self.settings.open_for;
        trials.running.retain(|trial| !trial.is_over(open_for, now));
        let taken = trials.running.len() as u64 + u64::from(trials.succeeded);
        if taken < u64::from(self.settings.trials.get()) {
            trials.last_place += 1;
            let trial = Trial {
                place: trials.last_place,
                since: now,
            };
            trials.running.push(trial);
            return Admit::Trial(trial.pass(era), None);
        }
        let ends = trials
            .running
            .iter()
            .map(|t| t.since.saturating_add(open_for));
        let first = ends.min().unwrap_or(now);
        Admit::Refused {
            retry_after: first.saturating_sub(now).max(1),
        }
    }

    fn refuse_until(&self, now: Nanos) -> Option<Admit> {
        let until = self.until.load(Ordering::Relaxed);
        let is_open = now < until && !is_closed(self.era.load(Ordering::Relaxed));
        is_open.then(|| Admit::Refused {
            retry_after: until - now,
        })
    }

    /// Opens it, if it is still closed in the era that the evidence is of: exactly one caller does.
    #[cold]
    fn open(&self, era: u64, counts: Counts, now: Nanos) -> Option<Change> {
        let mut phase = self.lock();
        if self.era.load(Ordering::Relaxed) != era {
            return None;
        }
        *phase = Phase::Open;
        self.refuse_from(now);
        self.era.store(era + 1, Ordering::Relaxed);
        Some(Change::Opened(counts))
    }

    /// How a trial ended.
    #[cold]
    fn judge(&self, pass: Pass, failed: bool, now: Nanos) -> Option<Change> {
        let mut phase = self.lock();
        if self.era.load(Ordering::Relaxed) != pass.era {
            return None;
        }
        let Phase::HalfOpen(trials) = &mut *phase else {
            return None;
        };
        if failed {
            *phase = Phase::Open;
            self.refuse_from(now);
            self.era.store(pass.era + 2, Ordering::Relaxed);
            return Some(Change::Reopened);
        }
        let index = trials.running.iter().position(|t| t.place == pass.place)?;
        let trial = trials.running.swap_remove(index);
        if trial.is_over(self.settings.open_for, now) {
            return None;
        }
        trials.succeeded += 1;
        if trials.succeeded < self.settings.trials.get() {
            return None;
        }
        *phase = Phase::Closed;
        // What is still being added by who saw the era before it ended is at most one a worker.
        if let Some(window) = &self.window {
            window.reset();
        }
        self.era.store(pass.era + 1, Ordering::Relaxed);
        Some(Change::Closed)
    }

    #[cold]
    fn leave(&self, pass: Pass) {
        let mut phase = self.lock();
        if self.era.load(Ordering::Relaxed) != pass.era {
            return;
        }
        if let Phase::HalfOpen(trials) = &mut *phase {
            trials.running.retain(|trial| trial.place != pass.place);
        }
    }

    fn refuse_from(&self, now: Nanos) {
        let until = now.saturating_add(self.settings.open_for);
        self.until.store(until, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        // Nothing under the lock panics, and any phase is a valid one.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pass ===

impl Pass {
    /// Whether the attempt is a trial.
    #[inline]
    pub fn is_trial(self) -> bool {
        self.place != 0
    }
}

// === impl Trial ===

impl Trial {
    fn pass(self, era: u64) -> Pass {
        Pass {
            era,
            place: self.place,
        }
    }

    fn is_over(self, open_for: Nanos, now: Nanos) -> bool {
        now.saturating_sub(self.since) >= open_for
    }
}

// === impl Change ===

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(counts) => write!(f, "open: {counts} failed"),
            Self::HalfOpened => f.write_str("half-open: trials go"),
            Self::Closed => f.write_str("closed: all trials succeeded"),
            Self::Reopened => f.write_str("open: a trial failed"),
        }
    }
}

#[inline]
fn is_closed(era: u64) -> bool {
    era.is_multiple_of(2)
}

#[cfg(test)]
mod tests;
