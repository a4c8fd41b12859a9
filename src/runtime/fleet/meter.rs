//! What the fleet does, as metrics. The peer counts for itself; here its totals are taken over.

use crate::fleet::Now;
use crate::fleet::facts::Flaw;
use crate::fleet::peer::Peer;
use crate::telemetry::metrics::fleet::{FleetCells, MemberState, SyncResult, Traffic};

use super::status::members;

/// Shows what may be refused before any of it is.
pub(super) fn begin(cells: &FleetCells) {
    cells.facts_refused.begin(Flaw::ALL.map(Flaw::as_str));
}

/// Writes what the peer has counted and what it is.
pub(super) fn write(cells: &FleetCells, peer: &Peer, now: Now) {
    let counts = peer.counts();
    let traffic = [Traffic::Membership, Traffic::Facts, Traffic::Sync];
    for (at, traffic) in traffic.into_iter().enumerate() {
        cells.sent(traffic).store(counts.sent[at].bytes);
        cells.received(traffic).store(counts.received[at].bytes);
    }
    for (word, count) in &counts.refused {
        cells.datagrams_refused.set(word, *count);
    }
    for (word, count) in &counts.flaws {
        cells.facts_refused.set(word, *count);
    }
    cells.facts_merged.store(counts.merged);
    cells.quarantined.store(peer.quarantine().total());
    cells.syncs(SyncResult::Different).store(counts.synced);
    cells.syncs(SyncResult::Equal).store(counts.equal);
    cells.syncs(SyncResult::Failed).store(counts.unsynced);
    if let Some(synced) = peer.synced() {
        let ago_ms = now.now.saturating_sub(synced.at) / 1_000_000;
        cells
            .last_sync_unix_ms
            .set(now.unix_ms.saturating_sub(ago_ms));
    }
    cells.lag_ms.set(counts.lag_ms.unwrap_or(0));
    cells.stall.store(counts.stalled);
    let facts = peer.facts().counts();
    for (word, count) in [
        ("override", facts.overrides),
        ("peer", facts.peers),
        ("registration", facts.registrations),
        ("tombstone", facts.tombstones),
        ("vote", facts.votes),
    ] {
        cells.facts.set(word, count as u64);
    }
    let members = members(peer);
    cells.members(MemberState::Alive).set(members.alive);
    cells.members(MemberState::Suspect).set(members.suspect);
    cells.members(MemberState::Down).set(members.down);
    cells.members(MemberState::Left).set(members.left);
    cells.brake_held.set(peer.brake().held().count() as u64);
    cells.duties.set(peer.duties().mine() as u64);
    cells.registrations.set(peer.leases() as u64);
}
