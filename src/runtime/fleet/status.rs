//! What operators are told of the fleet.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::mpsc;
use std::time::Duration;

use crate::fleet::fact::{About, Fact, Key, Value};
use crate::fleet::facts::compare::Difference;
use crate::fleet::id::PeerId;
use crate::fleet::membership::Liveness;
use crate::fleet::peer::{Count, Past, Peer};
use crate::runtime::operate::FleetDiffError;
use crate::runtime::views::{
    AsideView, AsideWordView, DifferenceView, DutiesView, FleetDiffView, FleetView, HeldView,
    KnownView, MemberCounts, MemberView, QuarantineView, SyncView, TrafficView,
};

use super::Fleet;

/// Differences that are shown; of the others there is the count.
const SHOWN: usize = 1000;

/// Words kept aside that are shown; likewise.
const ASIDE_SHOWN: usize = 20;

/// For a look at another peer: connecting, and a message each way, each of which has 5 s.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// Who waits for what a look finds; `None` = it failed.
pub(super) type Look = mpsc::SyncSender<Option<Vec<Difference>>>;

// === impl Fleet ===

impl Fleet {
    /// The fleet as this peer knows it.
    pub fn view(&self) -> FleetView {
        let now = self.now();
        let state = self.state();
        let peer = &state.peer;
        let counts = peer.counts();
        let facts = peer.facts().counts();
        let held = peer
            .brake()
            .held()
            .map(|(upstream, endpoint, braked)| HeldView {
                upstream: upstream.to_string(),
                endpoint: endpoint.to_string(),
                what: braked.what.clone(),
                by: braked.origin.to_string(),
                since_unix_ms: braked.since_unix_ms,
            });
        let quarantine = peer.quarantine().last().map(|flawed| QuarantineView {
            what: flawed.key.clone(),
            from: flawed.from.to_string(),
            why: flawed.flaw.to_string(),
            at_unix_ms: flawed.unix_ms,
        });
        let ago = |at: u64| {
            now.unix_ms
                .saturating_sub(now.now.saturating_sub(at) / 1_000_000)
        };
        FleetView {
            name: self.0.spec.name.to_string(),
            peer: peer.id().to_string(),
            address: peer.addr().to_string(),
            members: members(peer),
            facts: BTreeMap::from([
                ("override", facts.overrides as u64),
                ("peer", facts.peers as u64),
                ("registration", facts.registrations as u64),
                ("vote", facts.votes as u64),
            ]),
            tombstones: facts.tombstones as u64,
            digest: format!("{:016x}", peer.facts().root()),
            sent: traffic(&counts.sent),
            received: traffic(&counts.received),
            dirty: peer.untold() as u64,
            lag_ms: counts.lag_ms,
            last_sync: peer.synced().map(|synced| SyncView {
                peer: synced.peer.to_string(),
                at_unix_ms: ago(synced.at),
                facts_sent: synced.facts.0 as u64,
                facts_received: synced.facts.1 as u64,
            }),
            duties: DutiesView {
                mine: peer.duties().mine() as u64,
                of: peer.duties().len() as u64,
            },
            learning: peer.is_learning() && !peer.live().is_empty(),
            aside: peer.past().map(aside),
            held: held.collect(),
            quarantined: peer.quarantine().total(),
            quarantine: quarantine.collect(),
            refused: counts.refused.clone(),
            clock_skew_ms: peer
                .contacts()
                .iter()
                .filter(|(peer_id, _)| peer.live().contains_key(peer_id))
                .map(|(peer, contact)| (peer.to_string(), contact.skew_ms))
                .collect(),
            stall_seconds: counts.stalled as f64 / 1e9,
            stopped: state.stopped.clone(),
        }
    }

    /// The peers, this one first, then those that are there, then those that are gone.
    pub fn member_views(&self) -> Vec<MemberView> {
        let now = self.now();
        let state = self.state();
        let peer = &state.peer;
        let ago = |at: u64| {
            now.unix_ms
                .saturating_sub(now.now.saturating_sub(at) / 1_000_000)
        };
        let view = |id: PeerId, address: String, state, since_unix_ms| {
            let about = about(peer, id);
            let contact = peer.contacts().get(&id);
            MemberView {
                peer: id.to_string(),
                address,
                state,
                this: id == peer.id(),
                zone: about.and_then(|a| a.zone.as_ref().map(ToString::to_string)),
                version: about.map(|a| a.version.clone()),
                config: about.map(|a| format!("{:016x}", a.config)),
                since_unix_ms,
                last_contact_ms: contact.map(|c| now.now.saturating_sub(c.at) / 1_000_000),
                skew_ms: contact.map(|c| c.skew_ms),
            }
        };
        let started = about(peer, peer.id()).map_or(0, |about| about.started_unix_ms);
        let this = view(peer.id(), peer.addr().to_string(), "alive", started);
        let liveness: BTreeMap<_, _> = peer
            .membership()
            .members()
            .map(|(identity, liveness)| (identity.peer, liveness))
            .collect();
        let live = peer.live().iter().map(|(id, (identity, since))| {
            let word = match liveness.get(id) {
                Some(Liveness::Suspect) => "suspect",
                Some(Liveness::Alive) | None => "alive",
            };
            view(*id, identity.addr.to_string(), word, ago(*since))
        });
        let gone = peer.gone().iter().map(|(id, gone)| {
            let word = if gone.left { "left" } else { "down" };
            view(*id, gone.identity.addr.to_string(), word, ago(gone.since))
        });
        [this].into_iter().chain(live).chain(gone).collect()
    }

    /// What this peer and another, named by its id or its address, know differently. Blocks for the other's answer.
    ///
    /// # Errors
    /// There is no such peer, or no answer.
    pub fn diff(&self, named: &str) -> Result<FleetDiffView, FleetDiffError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let (peer, address, ours) = {
            let now = self.now();
            let mut state = self.state();
            let is_it = |id: PeerId, address: String| id.to_string() == named || address == named;
            if is_it(state.peer.id(), state.peer.addr().to_string()) {
                return Err(FleetDiffError::Own(named.to_owned()));
            }
            let mut live = state.peer.live().iter();
            let found = live.find(|(id, (identity, _))| is_it(**id, identity.addr.to_string()));
            let Some((id, (identity, _))) = found else {
                return Err(FleetDiffError::UnknownPeer(named.to_owned()));
            };
            let (id, address) = (*id, identity.addr.to_string());
            if state.stopped.is_some() {
                return Err(FleetDiffError::Unreached {
                    peer: id.to_string(),
                    address,
                    why: "the fleet has ended here, see `isobar fleet status`".to_owned(),
                });
            }
            let Some(stream) = state.peer.look_at(id, now) else {
                return Err(FleetDiffError::Unreached {
                    peer: id.to_string(),
                    address,
                    why: "this peer is comparing with too many others; try again".to_owned(),
                });
            };
            state.looks.push((stream, answer));
            (id.to_string(), address, state.peer.facts().len() as u64)
        };
        self.0.wake.notify_one();
        let found = answered.recv_timeout(LOOK_TIMEOUT).ok().flatten();
        let Some(found) = found else {
            let why = "no answer, or one that is sealed with another secret".to_owned();
            return Err(FleetDiffError::Unreached { peer, address, why });
        };
        let only = |is: fn(&Difference) -> bool| found.iter().filter(|d| is(d)).count() as u64;
        let (here, there) = (only(|d| d.there.is_none()), only(|d| d.here.is_none()));
        let more = found.len().saturating_sub(SHOWN) as u64;
        Ok(FleetDiffView {
            peer,
            address,
            equal: found.is_empty(),
            ours,
            theirs: (ours + there).saturating_sub(here),
            differences: found.iter().take(SHOWN).map(difference).collect(),
            more,
        })
    }

    /// Hands out what looks have found.
    pub(super) fn answer_looks(&self) {
        self.with(|state| {
            for (stream, answer) in std::mem::take(&mut state.looks) {
                match state.peer.looked(stream) {
                    // Who asked may have gone.
                    Some(found) => drop(answer.try_send(found)),
                    None => state.looks.push((stream, answer)),
                }
            }
        });
    }
}

pub(super) fn members(peer: &Peer) -> MemberCounts {
    let suspect = peer
        .membership()
        .members()
        .filter(|(_, liveness)| *liveness == Liveness::Suspect)
        .count() as u64;
    let left = peer.gone().values().filter(|gone| gone.left).count() as u64;
    MemberCounts {
        alive: peer.live().len() as u64 + 1 - suspect,
        suspect,
        down: peer.gone().len() as u64 - left,
        left,
    }
}

fn about(peer: &Peer, id: PeerId) -> Option<&About> {
    match &peer.facts().get(&Key::Peer(id))?.value {
        Value::Peer(about) => Some(about),
        _ => None,
    }
}

fn aside(past: &Past) -> AsideView {
    let words = past.words().take(ASIDE_SHOWN).map(|fact| {
        let text = |it: Option<&dyn Display>| it.map(ToString::to_string).unwrap_or_default();
        AsideWordView {
            upstream: text(fact.key.upstream().map(|it| it as &dyn Display)),
            endpoint: text(fact.key.endpoint().map(|it| it as &dyn Display)),
            what: fact.value.to_string(),
        }
    });
    AsideView {
        count: past.len() as u64,
        since_unix_ms: past.saved_unix_ms(),
        words: words.collect(),
    }
}

fn traffic(counts: &[Count; 3]) -> BTreeMap<&'static str, TrafficView> {
    let words = ["membership", "facts", "sync"].into_iter();
    let views = counts.iter().map(|count| TrafficView {
        bytes: count.bytes,
        messages: count.messages,
    });
    words.zip(views).collect()
}

fn difference(difference: &Difference) -> DifferenceView {
    DifferenceView {
        fact: difference.key.to_string(),
        ours: difference.here.as_ref().map(known),
        theirs: difference.there.as_ref().map(known),
    }
}

fn known(fact: &Fact) -> KnownView {
    KnownView {
        what: fact.value.to_string(),
        origin: fact.origin.to_string(),
        at_unix_ms: fact.stamp.unix_ms(),
    }
}
