//! Who comes and goes, and whom this peer compares with because of it.

use crate::base::clock::Nanos;
use crate::fleet::Now;
use crate::fleet::id::PeerId;
use crate::fleet::membership::{self, Identity};
use crate::fleet::seal::Kind;
use crate::fleet::stamp::Stamp;

use super::{Gone, Peer};

/// How many compare with somebody who comes back, on average.
const SYNC_SOON_PEERS: usize = 3;

// === impl Peer ===

impl Peer {
    /// Does what membership wants, and takes in what changed.
    pub(super) fn after_membership(&mut self, now: Now) {
        let had_moved = std::mem::take(&mut self.has_moved);
        while let Some(out) = self.membership.poll() {
            match out {
                membership::Out::Send { to, payload } => {
                    self.send(Kind::Membership, to, &payload, now.unix_ms);
                }
                membership::Out::Up(identity) => self.came(identity, now),
                membership::Out::Renewed { to, .. } => {
                    // Another life may know less: it starts from what it saved.
                    self.live.insert(to.peer, (to, now.now));
                    self.count_votes_since(to, 0, now.now);
                    self.maybe_sync_soon(to.peer, now.now);
                    self.has_moved = true;
                }
                membership::Out::Down { peer, left } => {
                    self.live.remove(&peer.peer);
                    self.orphans.see(self.live.keys().copied(), now.now);
                    if left {
                        self.orphans.left(peer.peer, now.now);
                    }
                    let gone = Gone {
                        identity: peer,
                        since: now.now,
                        left,
                    };
                    self.gone.insert(peer.peer, gone);
                    self.has_moved = true;
                }
                membership::Out::Rejoined(_) => {
                    // Others went on without this peer: it may have missed something.
                    if let Some(peer) = self.any_peer() {
                        self.sync_soon(peer, now.now);
                    }
                }
                membership::Out::Twin(twin) => {
                    *self.counts.refused.entry("twin").or_default() += 1;
                    tracing::error!(
                        "another peer at {} has this peer's identity {}: its `state_dir` was copied; \
                         remove the copy's fleet.facts",
                        twin.addr,
                        self.me
                    );
                }
            }
        }
        if self.has_moved {
            self.see_registrars(now.now);
        }
        self.has_moved |= had_moved;
    }

    fn came(&mut self, identity: Identity, at: Now) {
        let now = at.now;
        let is_first = self.live.is_empty();
        self.has_met(now);
        self.live.insert(identity.peer, (identity, now));
        let was_gone = self.gone.remove(&identity.peer).is_some();
        // What it said while it was away is not known here, and what it said in an earlier life was found then.
        let met_at = if was_gone { at.unix_ms } else { 0 };
        self.count_votes_since(identity, met_at, now);
        self.has_moved = true;
        if is_first {
            // What was due before there was anybody is due now, and not late.
            self.next_push = self.next_push.max(now);
            self.next_sync = self.next_sync.max(now);
            self.sync_soon(identity.peer, now);
        } else if was_gone {
            self.maybe_sync_soon(identity.peer, now);
        }
    }

    /// What a peer found before it began its life, or before it was met again, is not what it finds.
    pub(super) fn count_votes_since(&mut self, identity: Identity, met_at: u64, now: Nanos) {
        let since = Stamp::at(identity.incarnation.max(met_at));
        self.duties.came(identity.peer, since, now);
    }

    /// Somebody may have missed something. A few of those who see that compare with him: all of a thousand at once
    /// would be too many for him. Where half a fleet comes back, nearly each of the others compares with somebody.
    fn maybe_sync_soon(&mut self, peer: PeerId, now: Nanos) {
        if self.rng.below(self.live.len()) < SYNC_SOON_PEERS {
            self.sync_soon(peer, now);
        }
    }

    pub(super) fn any_peer(&mut self) -> Option<PeerId> {
        let nth = self.rng.below(self.live.len());
        self.live.keys().nth(nth).copied()
    }
}
