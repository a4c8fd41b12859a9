//! Streams of a peer: comparing what it knows with what another knows.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::Now;
use crate::fleet::facts::Comparison;
use crate::fleet::facts::compare::{Aim, Difference, End, Message};
use crate::fleet::id::PeerId;

use super::hearing::skew_of;
use super::{Out, Peer};

/// A stream of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// How a comparison went.
#[derive(Clone, Debug)]
pub struct Synced {
    /// With whom.
    pub peer: PeerId,
    /// When it ended.
    pub at: Nanos,
    /// Facts that were sent, and that were received.
    pub facts: (usize, usize),
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    open: HashMap<StreamId, Stream>,
    last: u64,
    pub(super) synced: Option<Synced>,
    /// What looking at another peer found, by stream.
    looked: HashMap<StreamId, Option<Vec<Difference>>>,
}

#[derive(Debug)]
struct Stream {
    peer: PeerId,
    /// `None` = the connection is not there yet.
    comparison: Option<Comparison>,
    is_look: bool,
    is_own: bool,
    ends_at: Nanos,
    facts: (usize, usize),
}

/// Between comparisons, ± 20 %.
const SYNC_EVERY: Duration = Duration::from_secs(10);

/// How soon after somebody came (back): what a partition kept apart is equal again at once.
const SYNC_SOON: Duration = Duration::from_secs(1);

/// Where the traffic of streams is counted.
const STREAMS: usize = 2;

/// Streams at once that others opened: what a peer whose whole fleet comes back at once serves first.
const MAX_ACCEPTED: usize = 16;

/// Streams at once that this peer opened.
const MAX_DIALED: usize = 4;

/// For a stream from its first byte to its last.
const DEADLINE: Duration = Duration::from_secs(60);

/// Looks whose result nobody has fetched.
const MAX_LOOKS: usize = 8;

// === impl Streams ===

impl Streams {
    pub(super) fn wake_at(&self) -> Option<Nanos> {
        self.open.values().map(|stream| stream.ends_at).min()
    }

    fn add(&mut self, peer: PeerId, is_own: bool, is_look: bool, now: Nanos) -> StreamId {
        self.last += 1;
        let id = StreamId(self.last);
        let stream = Stream {
            peer,
            comparison: None,
            is_look,
            is_own,
            ends_at: now.saturating_add(nanos(DEADLINE)),
            facts: (0, 0),
        };
        self.open.insert(id, stream);
        id
    }

    fn count(&self, is_own: bool) -> usize {
        self.open.values().filter(|s| s.is_own == is_own).count()
    }
}

// === impl Peer ===

impl Peer {
    /// A stream that this peer dialled is there.
    pub fn opened(&mut self, id: StreamId, peer: PeerId, now: Now) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        stream.peer = peer;
        let aim = if stream.is_look {
            Aim::Look
        } else {
            Aim::Share
        };
        let turn = self.rng.next_u64();
        let (comparison, message) = Comparison::begin(&self.facts, aim, turn);
        stream.comparison = Some(comparison);
        self.send_messages(id, &[message], now);
    }

    /// Another peer opened a stream; `None` = there are enough.
    pub fn accepted(&mut self, peer: PeerId, now: Now) -> Option<StreamId> {
        if self.streams.count(false) >= MAX_ACCEPTED {
            return None;
        }
        let id = self.streams.add(peer, false, false, now.now);
        let stream = self.streams.open.get_mut(&id)?;
        stream.comparison = Some(Comparison::answer());
        Some(id)
    }

    /// Takes a message of a stream.
    pub fn message(&mut self, id: StreamId, bytes: &[u8], now: Now) {
        self.counts.received[STREAMS].add(bytes.len());
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let Some(comparison) = &mut stream.comparison else {
            return;
        };
        let peer = stream.peer;
        let Some((unix_ms, bytes)) = bytes.split_first_chunk() else {
            return self.end(id, false);
        };
        let message = Message::decode(bytes).ok();
        let step = message.and_then(|message| comparison.take(message, &self.facts).ok());
        let skew_ms = skew_of(u64::from_be_bytes(*unix_ms), now);
        let session = self.contacts.get(&peer).and_then(|known| known.session);
        self.contact(peer, skew_ms, session, now);
        let Some(step) = step else {
            *self.counts.refused.entry("stream").or_default() += 1;
            return self.end(id, false);
        };
        // Looking is allowed: that is how people find out.
        if self.is_skewed(skew_ms) && !step.received.is_empty() {
            *self.counts.refused.entry("clock").or_default() += 1;
            return self.end(id, false);
        }
        let facts = |message: &Message| match message {
            Message::Facts { facts, .. } => facts.len(),
            Message::Groups { .. } | Message::Same | Message::Buckets { .. } => 0,
        };
        let sent = step.send.iter().map(facts).sum::<usize>();
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.facts.0 += sent;
            stream.facts.1 += step.received.len();
        }
        for fact in &step.received {
            self.take(fact, peer, now);
        }
        self.send_messages(id, &step.send, now);
        match step.end {
            End::NotYet => {}
            End::Over => {
                let is_whole = self.streams.open.get(&id);
                let is_whole = is_whole.is_some_and(|s| s.is_own && !s.is_look);
                self.finish(id, step.differences, now);
                if is_whole {
                    self.has_compared(peer, now);
                }
            }
            End::Cut => {
                self.finish(id, step.differences, now);
                self.sync_soon(peer, now.now);
            }
        }
    }

    /// A stream has ended, or could not be opened.
    pub fn closed(&mut self, id: StreamId) {
        self.end(id, false);
    }

    /// Looks at what another peer knows and this one does not, and the other way round, without changing either;
    /// [`looked`](Self::looked) tells. `None` = it is not there, or there are enough streams.
    pub fn look_at(&mut self, peer: PeerId, now: Now) -> Option<StreamId> {
        if self.streams.looked.len() >= MAX_LOOKS {
            self.streams.looked.clear();
        }
        let id = self.dial(peer, true, now)?;
        self.streams.looked.insert(id, None);
        Some(id)
    }

    /// What a look has found; `None` = it goes on, `Some(None)` = it failed.
    pub fn looked(&mut self, id: StreamId) -> Option<Option<Vec<Difference>>> {
        let is_over = !self.streams.open.contains_key(&id);
        is_over.then(|| self.streams.looked.remove(&id).flatten())
    }

    /// Compares with somebody.
    pub(super) fn sync(&mut self, now: Now) {
        let every = nanos(SYNC_EVERY) as f64;
        let wait = every * (0.8 + 0.4 * self.rng.unit());
        self.next_sync = now.now.saturating_add(wait as u64);
        let wanted = self.sync_with.take();
        let wanted = wanted.filter(|peer| self.live.contains_key(peer));
        if let Some(peer) = wanted.or_else(|| self.any_peer()) {
            self.dial(peer, false, now);
        }
    }

    /// Compares with `peer` within a second.
    pub(super) fn sync_soon(&mut self, peer: PeerId, now: Nanos) {
        self.sync_with = Some(peer);
        let wait = nanos(SYNC_SOON) as f64 * self.rng.unit();
        self.next_sync = self.next_sync.min(now.saturating_add(wait as u64));
    }

    pub(super) fn expire_streams(&mut self, now: Nanos) {
        let open = &self.streams.open;
        let late = open.iter().filter(|(_, stream)| stream.ends_at <= now);
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.end(id, false);
        }
    }

    fn dial(&mut self, peer: PeerId, is_look: bool, now: Now) -> Option<StreamId> {
        let (identity, _) = self.live.get(&peer)?;
        let to = identity.addr;
        if self.streams.count(true) >= MAX_DIALED {
            return None;
        }
        let stream = self.streams.add(peer, true, is_look, now.now);
        self.out.push_back(Out::Dial { stream, peer, to });
        Some(stream)
    }

    fn send_messages(&mut self, stream: StreamId, messages: &[Message], now: Now) {
        for message in messages {
            let bytes = [&now.unix_ms.to_be_bytes()[..], &message.encode()].concat();
            self.counts.sent[STREAMS].add(bytes.len());
            self.out.push_back(Out::Message { stream, bytes });
        }
    }

    fn finish(&mut self, id: StreamId, found: Vec<Difference>, now: Now) {
        if let Some(stream) = self.streams.open.get_mut(&id) {
            if stream.is_look {
                self.streams.looked.insert(id, Some(found));
            } else {
                self.streams.synced = Some(Synced {
                    peer: stream.peer,
                    at: now.now,
                    facts: stream.facts,
                });
            }
        }
        self.end(id, true);
    }

    fn end(&mut self, id: StreamId, is_well: bool) {
        let Some(stream) = self.streams.open.remove(&id) else {
            return;
        };
        match stream.facts {
            _ if !is_well => self.counts.unsynced += 1,
            (0, 0) => self.counts.equal += 1,
            _ => self.counts.synced += 1,
        }
        self.out.push_back(Out::Close { stream: id });
    }
}
