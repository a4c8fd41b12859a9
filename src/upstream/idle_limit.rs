//! How long an endpoint keeps an idle connection: learned, so that none is used as it closes.
//!
//! Every HTTP proxy has this race: the endpoint closes an idle connection while a request is on its
//! way. Operators are told to align time-outs by hand; here each endpoint teaches them.
//!
//! A request that may be repeated can lose the race and is replayed, so for it only the delay
//! counts: `ceiling`, the age at which this endpoint was last seen to have kept a connection that
//! it then closed, bounds the age of what is reused.
//!
//! A request that must not be repeated cannot lose it, so for it the chance of a close must be
//! next to nothing. An endpoint with a fixed time-out never closes a young connection; one that
//! closes at random times (it is being restarted, it sheds load, it is broken) closes at a rate `h`
//! per second of idle time, and a request is lost with probability `h * w`, where `w` is the time
//! from our last look to the endpoint's read (50 us, some milliseconds under load). So idle time
//! survived is the evidence: after [`TRUST`] seconds of it, of all connections together, without
//! one young close, young connections are trusted. With `h` = 1/s that happens by chance once in
//! e^30; with `h` = 1/min it does, and then a loss takes a million requests. One young close and
//! the evidence is gathered anew. A pool of 30 idle connections gives it within a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::Nanos;

/// What is known about one endpoint's idle connections; shared by workers. `Relaxed`: each value
/// is a hint of its own, nothing is published through it.
#[derive(Debug)]
pub struct IdleLimit {
    ceiling: AtomicU64,
    /// Until when the ceiling holds.
    ceiling_until: AtomicU64,
    /// Idle time survived since the last young close.
    survived: AtomicU64,
}

/// Idle time survived, of all connections together, that makes young connections trusted.
const TRUST: Nanos = Duration::from_secs(30).as_nanos() as Nanos;

/// Young is what is idle for less than this; a request that must not be repeated rides none that
/// was idle for longer: no common server closes sooner (nginx 75 s, Node.js 5 s, gunicorn 2 s), and
/// a dial costs less than a lost order.
const YOUNG: Nanos = Duration::from_secs(1).as_nanos() as Nanos;

/// A ceiling is forgotten after this: the endpoint may have been restarted with another time-out,
/// or only because of the restart have closed at all. Ten minutes: a replay in so long a time is
/// no burden, and an endpoint with a fixed time-out teaches it again at once.
const CEILING_HOLDS: Duration = Duration::from_secs(600);

// === impl IdleLimit ===

impl Default for IdleLimit {
    fn default() -> Self {
        Self {
            ceiling: AtomicU64::new(Nanos::MAX),
            ceiling_until: AtomicU64::new(0),
            survived: AtomicU64::new(0),
        }
    }
}

impl IdleLimit {
    /// The endpoint closed an idle connection; it was last seen alive when idle for `alive`.
    pub fn closed(&self, alive: Nanos, now: Nanos) {
        let until = &self.ceiling_until;
        if alive < self.ceiling.load(Ordering::Relaxed) || now >= until.load(Ordering::Relaxed) {
            self.ceiling.store(alive, Ordering::Relaxed);
            let holds = CEILING_HOLDS.as_nanos() as Nanos;
            until.store(now.saturating_add(holds), Ordering::Relaxed);
        }
        if alive < YOUNG {
            self.survived.store(0, Ordering::Relaxed);
        }
    }

    /// A connection was found alive after another `time` of being idle.
    #[inline]
    pub fn survived(&self, time: Nanos) {
        // Only read in the steady state: written by each request it would be fought for by workers.
        if self.survived.load(Ordering::Relaxed) < TRUST {
            self.survived.fetch_add(time, Ordering::Relaxed);
        }
    }

    /// The idle age up to which a connection may carry a request that can be repeated;
    /// `configured` is `keepalive.idle_timeout`. Never below the young: those are worth a replay.
    #[inline]
    pub fn repeatable(&self, configured: Nanos, now: Nanos) -> Nanos {
        if now >= self.ceiling_until.load(Ordering::Relaxed) {
            return configured;
        }
        configured.min(self.ceiling.load(Ordering::Relaxed).max(YOUNG))
    }

    /// The idle age up to which a connection may carry a request that must not be repeated;
    /// `None` = none may.
    #[inline]
    pub fn unrepeatable(&self, configured: Nanos) -> Option<Nanos> {
        (self.survived.load(Ordering::Relaxed) >= TRUST).then(|| configured.min(YOUNG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;
    const CONFIGURED: Nanos = 55 * S;

    #[test]
    fn unrepeatable_requests_ride_only_after_much_idle_time_was_survived() {
        let limit = IdleLimit::default();
        assert_eq!(limit.unrepeatable(CONFIGURED), None);
        for _ in 0..29 {
            limit.survived(S);
        }
        assert_eq!(limit.unrepeatable(CONFIGURED), None);
        limit.survived(S);
        assert_eq!(limit.unrepeatable(CONFIGURED), Some(YOUNG));
        assert_eq!(limit.unrepeatable(S / 10), Some(S / 10), "the user's limit");
    }

    #[test]
    fn a_young_close_takes_the_trust_and_an_old_one_does_not() {
        let limit = IdleLimit::default();
        limit.survived(TRUST);
        limit.closed(YOUNG, 0);
        assert_eq!(limit.unrepeatable(CONFIGURED), Some(YOUNG));
        limit.closed(YOUNG - 1, 0);
        assert_eq!(limit.unrepeatable(CONFIGURED), None);
        limit.survived(TRUST);
        assert_eq!(limit.unrepeatable(CONFIGURED), Some(YOUNG), "earned again");
    }

    #[test]
    fn the_youngest_close_bounds_reuse_until_it_is_forgotten() {
        let limit = IdleLimit::default();
        let holds = CEILING_HOLDS.as_nanos() as Nanos;
        assert_eq!(limit.repeatable(CONFIGURED, 7), CONFIGURED);
        limit.closed(4 * S, 7);
        limit.closed(9 * S, 8);
        assert_eq!(limit.repeatable(CONFIGURED, 8), 4 * S);
        assert_eq!(limit.repeatable(2 * S, 8), 2 * S);
        assert_eq!(limit.repeatable(CONFIGURED, 7 + holds), CONFIGURED);
        limit.closed(9 * S, 7 + holds);
        assert_eq!(limit.repeatable(CONFIGURED, 8 + holds), 9 * S);
    }

    /// Seen red: one close at the age of 0, as any restart of an endpoint has, ended the reuse of
    /// its connections for good.
    #[test]
    fn a_restarted_endpoint_keeps_its_pool() {
        let limit = IdleLimit::default();
        limit.closed(0, 0);
        assert_eq!(limit.repeatable(CONFIGURED, 1), YOUNG);
    }
}
