//! Registrations whose registrar has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::fact::GC_AFTER;
use crate::fleet::id::PeerId;

/// Lifetimes that an endpoint has to register with another peer.
const LIFETIMES: u32 = 3;

/// Which registrars have gone, and since when, as this peer sees it.
///
/// Who is alone, or with few of those that were there, cannot tell the others' end from its own: nothing ends then, and
/// what has ended is back. When it is with most of them again, the time of all others begins anew: they may be about
/// to come back, too. So a partition takes nothing away on the side of the fewer, and of two halves on neither.
#[derive(Clone, Debug, Default)]
pub struct Orphans {
    live: BTreeSet<PeerId>,
    /// Since when more members are live, this peer among them, than were lost; `None` = they are not, or it is alone.
    company: Option<Nanos>,
    /// Since when those that are not live are not.
    away: BTreeMap<PeerId, Nanos>,
    /// Those of them that did not say that they go.
    lost: BTreeSet<PeerId>,
}

// === impl Orphans ===

impl Orphans {
    /// Takes note of the live members at `now`, without this peer itself.
    pub fn see(&mut self, live: impl IntoIterator<Item = PeerId>, now: Nanos) {
        let live: BTreeSet<PeerId> = live.into_iter().collect();
        for gone in self.live.difference(&live) {
            self.away.insert(*gone, now);
            self.lost.insert(*gone);
        }
        self.away.retain(|peer, since| {
            // By then its facts are collected: nobody asks any more.
            let is_asked_for = now.saturating_sub(*since) < 2 * nanos(GC_AFTER);
            is_asked_for && !live.contains(peer)
        });
        self.lost.retain(|peer| self.away.contains_key(peer));
        self.live = live;
        self.count(now);
    }

    /// A peer that is not live any more has said before that it goes: it is not missed.
    pub fn left(&mut self, peer: PeerId, now: Nanos) {
        if self.lost.remove(&peer) {
            self.count(now);
        }
    }

    fn count(&mut self, now: Nanos) {
        let is_company = !self.live.is_empty() && self.live.len() + 1 > self.lost.len();
        self.company = match self.company {
            since @ Some(_) if is_company => since,
            None if is_company => Some(now),
            Some(_) | None => None,
        };
    }

    /// Whether a peer is a live member.
    pub fn is_live(&self, peer: PeerId) -> bool {
        self.live.contains(&peer)
    }

    /// When a registration of `registrar` ends or has ended; `None` = not as things are: it is live, or this peer
    /// is alone. A registrar that was never seen went away when it was first asked for.
    pub fn end(&mut self, registrar: PeerId, ttl: Duration, now: Nanos) -> Option<Nanos> {
        if self.live.contains(&registrar) {
            return None;
        }
        let since = *self.away.entry(registrar).or_insert(now);
        let since = since.max(self.company?);
        Some(since.saturating_add(nanos(ttl.saturating_mul(LIFETIMES))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const TTL: Duration = Duration::from_secs(30);
    const A: PeerId = PeerId(0xa);
    const B: PeerId = PeerId(0xb);

    #[test]
    fn of_two_sides_the_smaller_one_lets_nothing_end() {
        let peers = |n: u64| (1..=n).map(PeerId);
        let mut orphans = Orphans::default();
        orphans.see(peers(4), 0);
        // Five were there: three are left, then two.
        orphans.see(peers(2), SECOND);
        assert_eq!(orphans.end(PeerId(4), TTL, SECOND), Some(91 * SECOND));
        orphans.see(peers(1), 2 * SECOND);
        assert_eq!(orphans.end(PeerId(4), TTL, 2 * SECOND), None);
        // One of those that were missed had said that it goes.
        orphans.left(PeerId(2), 3 * SECOND);
        assert_eq!(orphans.end(PeerId(4), TTL, 3 * SECOND), None, "two of four");
        orphans.left(PeerId(3), 4 * SECOND);
        assert_eq!(orphans.end(PeerId(4), TTL, 4 * SECOND), Some(94 * SECOND));
        orphans.see(peers(4), 5 * SECOND);
        assert_eq!(orphans.end(PeerId(4), TTL, 5 * SECOND), None, "it is back");
    }

    #[test]
    fn orphan_ends_three_lifetimes_after_its_registrar_went() {
        let mut orphans = Orphans::default();
        orphans.see([A, B], 0);
        assert!(orphans.is_live(A));
        assert_eq!(orphans.end(A, TTL, SECOND), None);
        orphans.see([B], 10 * SECOND);
        assert_eq!(orphans.end(A, TTL, 11 * SECOND), Some(100 * SECOND));
        // What else happens does not matter.
        orphans.see([B, PeerId(0xc)], 50 * SECOND);
        assert_eq!(orphans.end(A, TTL, 50 * SECOND), Some(100 * SECOND));
        // It comes back, and goes again.
        orphans.see([A, B], 99 * SECOND);
        orphans.left(PeerId(0xc), 99 * SECOND);
        assert_eq!(orphans.end(A, TTL, 200 * SECOND), None);
        orphans.see([B], 200 * SECOND);
        assert_eq!(orphans.end(A, TTL, 200 * SECOND), Some(290 * SECOND));
    }

    #[test]
    fn nothing_ends_for_who_is_alone_and_company_begins_the_time_anew() {
        let mut orphans = Orphans::default();
        assert_eq!(orphans.end(A, TTL, SECOND), None, "it has met nobody yet");
        orphans.see([A, B], 0);
        orphans.see([B], 10 * SECOND);
        orphans.see([], 15 * SECOND);
        assert_eq!(orphans.end(A, TTL, 1000 * SECOND), None);
        orphans.see([B], 1000 * SECOND);
        assert_eq!(orphans.end(A, TTL, 1001 * SECOND), Some(1090 * SECOND));
    }

    /// A fact about a peer that this one never met: it went away when first heard of.
    #[test]
    fn registrar_that_was_never_seen_has_the_same_time() {
        let mut orphans = Orphans::default();
        orphans.see([B], 0);
        assert_eq!(orphans.end(A, TTL, 500 * SECOND), Some(590 * SECOND));
        assert_eq!(orphans.end(A, TTL, 580 * SECOND), Some(590 * SECOND));
    }

    #[test]
    fn peers_of_long_ago_are_forgotten() {
        let mut orphans = Orphans::default();
        orphans.see([A, B], 0);
        orphans.see([B], SECOND);
        orphans.see([B], nanos(GC_AFTER));
        assert_eq!(orphans.away.len(), 1);
        orphans.see([B], SECOND + 2 * nanos(GC_AFTER));
        assert!(orphans.away.is_empty());
    }
}
