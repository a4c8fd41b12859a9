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
/// Who is alone cannot tell the others' end from its own: nothing ends then, and what has ended is back. When it
/// meets somebody again, the time of all others begins anew: they may be about to come back, too.
#[derive(Clone, Debug, Default)]
pub struct Orphans {
    live: BTreeSet<PeerId>,
    /// Since when there is another live member; `None` = there is none.
    company: Option<Nanos>,
    /// Since when those that are not live are not.
    away: BTreeMap<PeerId, Nanos>,
}

// === impl Orphans ===

impl Orphans {
    /// Takes note of the live members at `now`, without this peer itself.
    pub fn see(&mut self, live: impl IntoIterator<Item = PeerId>, now: Nanos) {
        let live: BTreeSet<PeerId> = live.into_iter().collect();
        for gone in self.live.difference(&live) {
            self.away.insert(*gone, now);
        }
        self.away.retain(|peer, since| {
            // By then its facts are collected: nobody asks any more.
            let is_asked_for = now.saturating_sub(*since) < 2 * nanos(GC_AFTER);
            is_asked_for && !live.contains(peer)
        });
        match (self.company, live.is_empty()) {
            (_, true) => self.company = None,
            (None, false) => self.company = Some(now),
            (Some(_), false) => {}
        }
        self.live = live;
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
