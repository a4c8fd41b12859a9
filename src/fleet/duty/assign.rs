//! Who asks an endpoint: the `k` peers with the highest random weights.
//!
//! Rendezvous hashing (D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998):
//! every peer computes the same from the same list, whatever its order, and a peer that comes or goes moves only
//! what it has, k * M / N of M endpoints among N peers.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::base::addr::EndpointAddr;
use crate::base::hash::{hash, mix};
use crate::config::Name;
use crate::fleet::id::PeerId;

/// The live peers, ready to be weighed.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    all: Vec<Peer>,
    by_zone: HashMap<Name, Vec<Peer>>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    id: PeerId,
    /// Identities are chance, but nothing holds them to it.
    scrambled: u64,
}

/// The probers of an endpoint, the heaviest first: up to `k` of `peers`. Those of the endpoint's zone if there are
/// `k` of them there, else of all zones.
pub fn probers(
    k: usize,
    peers: &[(PeerId, Option<Name>)],
    upstream: &str,
    endpoint: &EndpointAddr,
    zone: Option<&str>,
) -> Vec<PeerId> {
    Roster::new(peers).probers(k, subject(upstream, endpoint), zone)
}

/// The hash that an endpoint is weighed by: of the upstream's name, a byte that is in no name, and the address as
/// text. The same in every process and version.
pub fn subject(upstream: &str, endpoint: &EndpointAddr) -> u64 {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(upstream.len() + 24);
    text.push_str(upstream);
    text.push('\0');
    // Writing to a string does not fail.
    let _ = write!(text, "{endpoint}");
    hash(text.as_bytes())
}

// === impl Roster ===

impl Roster {
    /// The roster of `peers`; who is in it twice counts once.
    pub fn new(peers: &[(PeerId, Option<Name>)]) -> Self {
        let mut roster = Self::default();
        let mut sorted: Vec<_> = peers.iter().collect();
        sorted.sort_by_key(|(id, _)| *id);
        sorted.dedup_by_key(|(id, _)| *id);
        for (id, zone) in sorted {
            let peer = Peer {
                id: *id,
                scrambled: mix(id.0),
            };
            roster.all.push(peer);
            if let Some(zone) = zone {
                roster.by_zone.entry(zone.clone()).or_default().push(peer);
            }
        }
        roster
    }

    /// The probers of the endpoint with this [`subject`] hash; see [`probers`].
    pub fn probers(&self, k: usize, subject: u64, zone: Option<&str>) -> Vec<PeerId> {
        let in_zone = zone.and_then(|zone| self.by_zone.get(zone));
        let peers = in_zone
            .filter(|peers| peers.len() >= k)
            .unwrap_or(&self.all);
        heaviest(k, peers, subject)
    }
}

/// One pass; after the first few peers nearly all cost a multiplication or two and a comparison.
fn heaviest(k: usize, peers: &[Peer], subject: u64) -> Vec<PeerId> {
    let mut top: Vec<(u64, PeerId)> = Vec::with_capacity(k.min(peers.len()) + 1);
    for peer in peers {
        let score = (mix(peer.scrambled ^ subject), peer.id);
        if top.len() == k && top.last().is_none_or(|least| score <= *least) {
            continue;
        }
        let place = top.partition_point(|other| Reverse(*other) < Reverse(score));
        top.insert(place, score);
        top.truncate(k);
    }
    top.into_iter().map(|(_, id)| id).collect()
}
