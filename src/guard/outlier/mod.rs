//! Passive checks: an endpoint is judged by the requests it gets, and left alone when it fails.
//!
//! Envoy's outlier detection with `split_external_local_origin_errors`: what the endpoint did (5xx,
//! reset, silence) and connects that failed are counted apart, each in a row, and a share of both
//! over a time. Ejections grow as there, but doubling instead of by one base time each, and shrink
//! as there, by one for each time it stayed well. Latency is not judged here: the balancer sees to
//! it.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::clock::Nanos;
use crate::guard::window::{Counts, Ratio, Window};

/// The evidence against one endpoint; shared by workers.
///
/// A success costs a load, and what [`Window::observe`] costs if a ratio is configured. `Relaxed`:
/// both rows are one word, nothing is published through it.
#[derive(Debug)]
pub struct Record {
    settings: Settings,
    /// Failures in a row, and above [`CONNECTS`] failed connects in a row.
    rows: AtomicU64,
    window: Option<Window>,
    /// Held while evidence becomes a trip, so that it does once.
    verdict: Mutex<()>,
}

/// What makes a trip; what is `None` never does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settings {
    /// Failures of the endpoint in a row.
    pub failures: Option<NonZeroU32>,
    /// Connects that failed in a row.
    pub connects: Option<NonZeroU32>,
    /// Share of failures of both kinds.
    pub ratio: Option<Ratio>,
}

/// How an attempt at an endpoint ended. An attempt that its client gave up is not observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It answered.
    Ok,
    /// It was connected, and failed: a 5xx, a reset, silence.
    Failed,
    /// It could not be connected, which may be a fault on our side as well.
    ConnectFailed,
}

/// Why an endpoint is to be ejected; its text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// Failures in a row.
    Failures(u32),
    /// Failed connects in a row.
    Connects(u32),
    /// Too great a share failed.
    Ratio(Counts),
}

/// How often and until when one endpoint is ejected; owned by who ejects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    /// Doublings of the next ejection.
    doublings: u32,
    /// End of the last ejection.
    until: Nanos,
}

/// Where the row of connects begins in the word.
const CONNECTS: u32 = 32;

// === impl Record ===

impl Record {
    /// A record without evidence.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            rows: AtomicU64::new(0),
            window: settings.ratio.map(|ratio| Window::new(ratio.window)),
            verdict: Mutex::new(()),
        }
    }

    /// Adds what was observed; `Some` = the endpoint is to be ejected. Of workers that race exactly
    /// one is told, and the evidence is used up: the next trip needs as much again. Attempts that
    /// were under way when it was ejected go on being observed, and may trip it once more meanwhile.
    #[inline]
    pub fn observe(&self, observed: Observed, now: Nanos) -> Option<Trip> {
        if let Some(window) = &self.window {
            window.observe(observed != Observed::Ok, now);
        }
        match observed {
            Observed::Ok => {
                // Only read in the steady state: written by each it would be fought for by workers.
                if self.rows.load(Ordering::Relaxed) != 0 {
                    self.rows.store(0, Ordering::Relaxed);
                }
                None
            }
            // It answered or was at least connected: that ends the row of connects.
            Observed::Failed => self.add(|rows| u64::from(failures(rows).saturating_add(1)), now),
            Observed::ConnectFailed => self.add(
                |rows| {
                    let connects = connects(rows).saturating_add(1);
                    u64::from(connects) << CONNECTS | u64::from(failures(rows))
                },
                now,
            ),
        }
    }

    /// It was connected, and what comes of that is not known yet: that ends the row of connects.
    #[inline]
    pub fn connected(&self) {
        if connects(self.rows.load(Ordering::Relaxed)) != 0 {
            self.rows.fetch_and(u64::from(u32::MAX), Ordering::Relaxed);
        }
    }

    /// Forgets everything: an ejection has ended, or a check says that the endpoint is well.
    pub fn reset(&self) {
        self.rows.store(0, Ordering::Relaxed);
        if let Some(window) = &self.window {
            window.reset();
        }
    }

    #[cold]
    fn add(&self, next: impl Fn(u64) -> u64, now: Nanos) -> Option<Trip> {
        let mut rows = self.rows.load(Ordering::Relaxed);
        while let Err(other) =
            self.rows
                .compare_exchange_weak(rows, next(rows), Ordering::Relaxed, Ordering::Relaxed)
        {
            rows = other;
        }
        self.trip(now)?;
        // It looks like one. Under the lock it is looked at again, and used up before another may.
        let _verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        let trip = self.trip(now)?;
        self.reset();
        Some(trip)
    }

    /// The trip that the evidence is enough for.
    fn trip(&self, now: Nanos) -> Option<Trip> {
        let rows = self.rows.load(Ordering::Relaxed);
        let reached =
            |count: u32, limit: Option<NonZeroU32>| limit.is_some_and(|l| count >= l.get());
        if reached(failures(rows), self.settings.failures) {
            return Some(Trip::Failures(failures(rows)));
        }
        if reached(connects(rows), self.settings.connects) {
            return Some(Trip::Connects(connects(rows)));
        }
        let counts = self.window.as_ref()?.counts(now);
        let ratio = self.settings.ratio?;
        ratio.is_exceeded_by(counts).then_some(Trip::Ratio(counts))
    }
}

fn failures(rows: u64) -> u32 {
    rows as u32
}

fn connects(rows: u64) -> u32 {
    (rows >> CONNECTS) as u32
}

// === impl Trip ===

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(1) => f.write_str("1 failure"),
            Self::Failures(n) => write!(f, "{n} failures in a row"),
            Self::Connects(1) => f.write_str("1 failed connect"),
            Self::Connects(n) => write!(f, "{n} failed connects in a row"),
            Self::Ratio(counts) => write!(f, "{counts} failed"),
        }
    }
}

// === impl Sentence ===

impl Sentence {
    /// Ejects the endpoint at `now`; returns until when.
    ///
    /// For `eject_for`, doubled with each further ejection, `max_eject` at most; one doubling is
    /// forgotten for each whole `eject_for` that it was well since. While it is ejected nothing
    /// changes: attempts that were under way are no new evidence.
    pub fn begin(&mut self, now: Nanos, eject_for: Nanos, max_eject: Nanos) -> Nanos {
        if self.is_ejected(now) {
            return self.until;
        }
        let well = (now - self.until) / eject_for.max(1);
        let forgotten = u32::try_from(well).unwrap_or(u32::MAX);
        self.doublings = self.doublings.saturating_sub(forgotten);
        let length = eject_for.saturating_mul(2u64.saturating_pow(self.doublings));
        // Past the longest one no more are counted: they would all have to be forgotten.
        if length < max_eject {
            self.doublings += 1;
        }
        self.until = now.saturating_add(length.min(max_eject));
        self.until
    }

    /// Ends the ejection at `now`, as a check that passes does; how often it was ejected is kept.
    pub fn end(&mut self, now: Nanos) {
        self.until = self.until.min(now);
    }

    /// Whether the endpoint is ejected at `now`.
    pub fn is_ejected(&self, now: Nanos) -> bool {
        now < self.until
    }
}

/// Whether one more endpoint may be ejected, with `ejected` of `total` ejected and `ready` of them
/// ready, the one in question among these.
///
/// Up to `max_share` of `total`, rounded down, but at least one (Envoy's
/// `always_eject_one_endpoint`: 10 % of two is none); never the last that is ready, which Envoy
/// leaves to its panic mode.
pub fn may_eject(ejected: usize, ready: usize, total: usize, max_share: f64) -> bool {
    // 0.29 x 100 is 28.999…: the product is good to 10^-15 of it.
    let most = (total as f64 * max_share + 1e-6) as usize;
    ready > 1 && total > 1 && ejected < most.max(1)
}

#[cfg(test)]
mod tests;
