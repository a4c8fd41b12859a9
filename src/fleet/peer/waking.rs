//! What a peer does when its time has come.

use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::Now;
use crate::fleet::fact::GC_AFTER;
use crate::fleet::facts::MAX_OF_ORIGIN;

use super::Peer;

/// Collecting, and looking whose registrations have ended.
pub(super) const CHORES_EVERY: Duration = Duration::from_secs(10);

/// What only this peer may say is said again so often: others forget it when its stamp is older than
/// [`GC_AFTER`] and this peer is not there.
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(GC_AFTER.as_secs() / 4);

/// A timer that comes later than this was held up by something: this process stood still.
pub(super) const STALL: Duration = Duration::from_secs(1);

// === impl Peer ===

impl Peer {
    /// When [`wake`](Self::wake) is to be called next.
    pub fn wake_at(&self) -> Nanos {
        let mut at = self.next_chores.min(self.next_refresh);
        let again = self.again.values().copied().min();
        let duty = self.duties.next_due().filter(|_| !self.is_duty_due);
        let end = self.leases.next_end().map(|at| at.min(self.next_look));
        let others = [duty, end, again, self.leases.next_due()];
        at = others.into_iter().flatten().fold(at, Nanos::min);
        if !self.live.is_empty() {
            at = at.min(self.next_sync);
            if !self.push.is_empty() {
                at = at.min(self.next_push);
            }
        }
        let streams = self.streams.wake_at().into_iter();
        streams
            .chain(self.membership.wake_at())
            .fold(at, Nanos::min)
    }

    /// Does what is due. Whoever drives it has handed it the datagrams first that wait in its socket.
    pub fn wake(&mut self, now: Now) {
        let late = now.now.saturating_sub(self.expected);
        if late > nanos(STALL) {
            self.counts.stalled += late;
            self.leases.stalled(Duration::from_nanos(late));
        }
        let ahead_ms = self.setback.notice(now, self.max_clock_skew);
        if ahead_ms > 0 {
            self.began_later(ahead_ms, now);
        }
        self.is_duty_due |= self.duties.next_due().is_some_and(|at| at <= now.now);
        self.membership.wake(now.now);
        self.after_membership(now);
        if now.now >= self.next_push && !self.push.is_empty() {
            self.push_round(now);
        }
        if now.now >= self.next_sync {
            self.sync(now);
        }
        self.expire_streams(now.now);
        self.end_leases(now);
        self.say_changes(now);
        self.look_again(now.now);
        if now.now >= self.next_chores {
            self.next_chores = now.now.saturating_add(nanos(CHORES_EVERY));
            let forgotten = now.now.saturating_sub(nanos(GC_AFTER));
            let live = &self.live;
            // Who is alone remembers all: they may come back.
            self.gone
                .retain(|_, gone| gone.since >= forgotten || live.is_empty());
            self.contacts
                .retain(|peer, contact| contact.at >= forgotten || live.contains_key(peer));
            self.mend_clock(now);
            self.introduce(now);
            self.learn(now.now);
            self.look_back(now);
            let facts = &self.facts;
            self.noisy
                .retain(|origin| facts.of_origin(*origin) > MAX_OF_ORIGIN / 2);
            // Who is alone cannot tell who is gone for good.
            let (me, live) = (self.me, &self.live);
            self.facts.collect(now.unix_ms, |peer| {
                peer == me || live.is_empty() || live.contains_key(&peer)
            });
        }
        if now.now >= self.next_refresh {
            self.next_refresh = now.now.saturating_add(nanos(REFRESH_EVERY));
            self.refresh(now);
        }
        self.next_look = now.now.saturating_add(nanos(STALL));
        self.expected = self.wake_at();
    }

    /// Tells the others that this peer goes; what is left to be sent then is the last of it.
    pub fn leave(&mut self, now: Now) {
        if !self.push.is_empty() {
            self.push_round(now);
        }
        self.membership.leave(now.now);
        self.after_membership(now);
    }
}
