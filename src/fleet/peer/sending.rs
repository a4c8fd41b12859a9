//! What a peer sends in datagrams: what is new, to some who tell it on.

use std::net::SocketAddr;

use crate::fleet::Now;
use crate::fleet::push::{self, Push};
use crate::fleet::seal::{Kind, MAX_PAYLOAD};

use super::{Out, Peer};

// === impl Peer ===

impl Peer {
    pub(super) fn push_round(&mut self, now: Now) {
        self.next_push = Push::next_round(now.now);
        let peers = self.some_peers(push::FANOUT);
        if peers.is_empty() {
            return;
        }
        let facts = &self.facts;
        let messages = self
            .push
            .round(|key| facts.get(key), peers.len(), MAX_PAYLOAD, now.now);
        for message in messages {
            for to in &peers {
                self.send(Kind::Facts, *to, &message, now.unix_ms);
            }
        }
    }

    pub(super) fn send(&mut self, kind: Kind, to: SocketAddr, payload: &[u8], unix_ms: u64) {
        let mut bytes = Vec::new();
        // It is short enough; a session that is used up after 2^64 datagrams has no more to say.
        if self.sealer.seal(kind, unix_ms, payload, &mut bytes).is_ok() {
            self.counts.sent[kind as usize - 1].add(bytes.len());
            self.out.push_back(Out::Datagram { to, bytes });
        }
    }

    /// The addresses of at most `count` peers, drawn by lot.
    fn some_peers(&mut self, count: usize) -> Vec<SocketAddr> {
        // Floyd's: count different places of all, each set of them as likely as another.
        let all = self.live.len();
        let mut places = Vec::with_capacity(count);
        for last in all.saturating_sub(count)..all {
            let place = self.rng.below(last + 1);
            let place = if places.contains(&place) { last } else { place };
            places.push(place);
        }
        places.sort_unstable();
        let mut peers = self.live.values();
        let mut passed = 0;
        let addrs = places.iter().filter_map(|place| {
            let skipped = place - std::mem::replace(&mut passed, place + 1);
            peers.nth(skipped).map(|(identity, _)| identity.addr)
        });
        addrs.collect()
    }
}
