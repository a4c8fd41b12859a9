//! Who asks an endpoint: the `k` peers with the highest random weights.
//!
//! Rendezvous hashing (D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998):
//! every peer computes the same from the same list, whatever its order, and a peer that comes or goes moves only
//! what it has, k * M / N of M endpoints among N peers.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use crate::base::addr::EndpointAddr;
use crate::base::hash::{hash, mix};
use crate::config::Name;
use crate::fleet::id::PeerId;

/// The live peers, ready to be weighed.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// By identity.
    all: Vec<Peer>,
    by_zone: HashMap<Name, Vec<Peer>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    id: PeerId,
    /// Identities are chance, but nothing holds them to it.
    scrambled: u64,
    zone: Option<Name>,
}

/// From one roster to the next.
#[derive(Clone, Debug, Default)]
pub struct Step {
    k: usize,
    /// A peer that is elsewhere now is gone, and has come.
    gone: HashSet<PeerId>,
    came: Vec<Peer>,
    /// Zones with `k` peers now that had fewer, or the other way round: all of their endpoints are chosen for anew.
    turned: HashSet<Name>,
    /// Zones with `k` peers, before and now.
    full: HashSet<Name>,
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
        let peer = |(id, zone): &(PeerId, Option<Name>)| Peer {
            id: *id,
            scrambled: mix(id.0),
            zone: zone.clone(),
        };
        let mut all: Vec<_> = peers.iter().map(peer).collect();
        // By zone too: of one who is there twice the same one everywhere.
        all.sort_by(|a, b| (a.id, &a.zone).cmp(&(b.id, &b.zone)));
        all.dedup_by_key(|peer| peer.id);
        let mut by_zone: HashMap<Name, Vec<Peer>> = HashMap::new();
        for peer in &all {
            if let Some(zone) = &peer.zone {
                by_zone.entry(zone.clone()).or_default().push(peer.clone());
            }
        }
        Self { all, by_zone }
    }

    /// The probers of the endpoint with this [`subject`] hash; see [`probers`].
    pub fn probers(&self, k: usize, subject: u64, zone: Option<&str>) -> Vec<PeerId> {
        let in_zone = zone.and_then(|zone| self.by_zone.get(zone));
        let peers = in_zone
            .filter(|peers| peers.len() >= k)
            .unwrap_or(&self.all);
        heaviest(k, peers, subject)
    }

    /// What has changed in `next`, for `k` probers an endpoint.
    pub fn step(&self, next: &Self, k: usize) -> Step {
        let mut step = Step {
            k,
            ..Step::default()
        };
        for zone in self.by_zone.keys().chain(next.by_zone.keys()) {
            match (self.is_full(zone, k), next.is_full(zone, k)) {
                (true, true) => step.full.insert(zone.clone()),
                (false, false) => continue,
                (true, false) | (false, true) => step.turned.insert(zone.clone()),
            };
        }
        let (old, new) = (HashSet::<&Peer>::from_iter(&self.all), &next.all);
        let kept: HashSet<&Peer> = new.iter().filter(|peer| old.contains(peer)).collect();
        let gone = self.all.iter().filter(|peer| !kept.contains(peer));
        step.gone = gone.map(|peer| peer.id).collect();
        let came = new.iter().filter(|peer| !kept.contains(peer));
        step.came = came.cloned().collect();
        step
    }

    fn is_full(&self, zone: &Name, k: usize) -> bool {
        self.by_zone.get(zone).is_some_and(|peers| peers.len() >= k)
    }
}

// === impl Step ===

impl Step {
    /// Whether the endpoint may have other probers after it: a peer that comes costs a hash for each endpoint, one
    /// that goes only the choice for those that it had, instead of 10^7 hashes for 10,000 endpoints of 1,000 peers.
    pub fn moves(&self, probers: &[PeerId], subject: u64, zone: Option<&str>) -> bool {
        if zone.is_some_and(|zone| self.turned.contains(zone)) {
            return true;
        }
        if probers.iter().any(|prober| self.gone.contains(prober)) {
            return true;
        }
        let zone = zone.filter(|zone| self.full.contains(*zone));
        let mut came = self
            .came
            .iter()
            .filter(|peer| zone.is_none() || peer.zone.as_deref() == zone);
        match probers.last() {
            Some(last) if probers.len() >= self.k => {
                let least = score(mix(last.0), *last, subject);
                came.any(|peer| score(peer.scrambled, peer.id, subject) > least)
            }
            Some(_) | None => came.next().is_some(),
        }
    }
}

fn score(scrambled: u64, id: PeerId, subject: u64) -> (u64, PeerId) {
    (mix(scrambled ^ subject), id)
}

/// One pass; after the first few peers nearly all cost a few multiplications and a comparison.
fn heaviest(k: usize, peers: &[Peer], subject: u64) -> Vec<PeerId> {
    let mut top: Vec<(u64, PeerId)> = Vec::with_capacity(k.min(peers.len()) + 1);
    for peer in peers {
        let score = score(peer.scrambled, peer.id, subject);
        if top.len() == k && top.last().is_none_or(|least| score <= *least) {
            continue;
        }
        let place = top.partition_point(|other| *other > score);
        top.insert(place, score);
        top.truncate(k);
    }
    top.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests;
