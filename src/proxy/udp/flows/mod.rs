//! The table of flows: who belongs to which, who goes when there is no room, who was quiet for too long.
//!
//! Pure: no sockets, no clocks. What a flow *is* besides its place here, the caller says. Each operation
//! takes constant time, and none on a known flow allocates: flows lie in one list of slots, are found by
//! a hash table, and are chained through their slots in the order in which they were last heard of, once
//! with all the others and once with those of their source.
//!
//! # Who goes when the table is full
//! A flow is *proven* once its client has spoken after an endpoint's answer: whoever only pretends to
//! be somewhere does not see answers. The two kinds are chained apart, and the quietest flow of those
//! that are not proven goes first; a flood of forged sources evicts itself. So that flows which live
//! for long cannot keep everybody else out, the proven ones are safe only as long as they hold no more
//! than seven eighths of the table: beyond, the quietest of them goes. (A segmented LRU: Karedla, Love
//! and Wherry, "Caching Strategies to Improve Disk System Performance", 1994; but for the demotion: a
//! flow that is over the share goes at once, which keeps both chains in the order of time.)
//!
//! A client whose protocol never speaks twice (a subscription, one datagram of a log) is never proven;
//! in a flood it lasts as long as fewer flows than the table holds begin between two of its datagrams.
//! Whoever forges sources and sends twice, the second time after the answer, can have flows proven
//! blindly; it costs two datagrams each, and never more than the share.
//!
//! The same rule holds within one source that has its share: whoever forges somebody's address does not drive
//! out the flows that he really has.

mod chain;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::base::clock::Nanos;

use super::key::{Key, Keyed, Source};
use chain::{Kinds, Links, NONE, Place};
use sources::Sources;

/// Flows of type `F`.
#[derive(Debug)]
pub(super) struct Flows<F> {
    slots: Vec<Slot<F>>,
    /// The first free slot; further ones follow its link.
    free: u32,
    len: usize,
    keys: HashMap<Key, u32, Keyed>,
    sources: Sources,
    /// In the order in which they were last heard of: those that are not proven, those that are.
    quiet: Kinds,
}

/// What the table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Flows at once; at least 1.
    pub flows: usize,
    /// Flows at once of one source; at least 1.
    pub of_source: usize,
}

/// A flow of the table: worth nothing once it has gone, and never another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    index: u32,
    generation: u32,
}

/// Why a flow had to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evicted {
    /// The table was full, and it was the quietest.
    Full,
    /// The same among those of its source.
    Source,
}

#[derive(Debug)]
struct Slot<F> {
    generation: u32,
    /// In the chain of its kind and of its source; the first one leads to the next free slot.
    links: [Links; 2],
    taken: Option<Taken<F>>,
}

#[derive(Debug)]
struct Taken<F> {
    flow: F,
    key: Key,
    /// Further keys. Most flows have none: an empty list allocates nothing.
    more: Vec<Key>,
    /// The number of its source's chain.
    own: u32,
    /// When it was last heard of.
    last: Nanos,
    /// Datagrams of its client.
    asked: u32,
    /// Datagrams of endpoints.
    answered: u32,
    is_proven: bool,
}

/// Keys of one flow: a QUIC client shows the one it chose, one of a Retry, one of the handshake, and
/// takes new ones as it moves (RFC 9000 section 18.2: 2 at once if nothing else was said).
const MAX_KEYS: usize = 8;

// === impl Flows ===

impl<F> Flows<F> {
    /// An empty table. `seed` keeps clients from aiming at places in it.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            len: 0,
            keys: HashMap::with_hasher(Keyed::new(seed)),
            sources: Sources::new(seed.wrapping_add(1)),
            quiet: Kinds::default(),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The flow that `key` leads to.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<Id> {
        let index = *self.keys.get(key)?;
        let generation = self.slots[index as usize].generation;
        Some(Id { index, generation })
    }

    /// The flow of `id`, if it is still there.
    #[inline]
    pub(super) fn get(&mut self, id: Id) -> Option<&mut F> {
        self.taken(id).map(|taken| &mut taken.flow)
    }

    /// Its client has spoken at `now`.
    #[inline]
    pub(super) fn ask(&mut self, id: Id, now: Nanos) {
        let Some(taken) = self.taken(id) else { return };
        taken.last = now;
        taken.asked = taken.asked.saturating_add(1);
        let (was, is) = (taken.is_proven, taken.answered > 0);
        taken.is_proven = is;
        self.move_up(id.index, was, is);
    }

    /// An endpoint has answered at `now`. Whether the client has now had `responses` answers for each of
    /// its datagrams.
    #[inline]
    pub(super) fn answer(&mut self, id: Id, now: Nanos, responses: Option<u32>) -> bool {
        let Some(taken) = self.taken(id) else {
            return false;
        };
        taken.last = now;
        taken.answered = taken.answered.saturating_add(1);
        let is_proven = taken.is_proven;
        let (asked, answered) = (u64::from(taken.asked), u64::from(taken.answered));
        self.move_up(id.index, is_proven, is_proven);
        responses.is_some_and(|each| answered >= asked * u64::from(each))
    }

    /// Takes out a flow that must go before one of `source` may begin. To be asked until there is none.
    pub(super) fn make_room(&mut self, source: Source, bounds: Bounds) -> Option<(Evicted, F)> {
        if let Some(own) = self.sources.find(source)
            && own.len() >= bounds.of_source.max(1)
        {
            let first = own.first_to_go(bounds.of_source);
            return self.take(first).map(|flow| (Evicted::Source, flow));
        }
        if self.len < bounds.flows.max(1) {
            return None;
        }
        let first = self.quiet.first_to_go(bounds.flows);
        self.take(first).map(|flow| (Evicted::Full, flow))
    }

    /// Takes out the quietest flow that is not proven, for want of something that the table knows nothing
    /// of.
    pub(super) fn shed(&mut self) -> Option<F> {
        self.take(self.quiet.unproven())
    }

    /// Adds a flow that `key` leads to from now on, whose client has spoken at `now`. The caller has made
    /// room.
    pub(super) fn insert(&mut self, key: Key, source: Source, now: Nanos, flow: F) -> Id {
        let index = if self.free == NONE {
            self.slots.push(Slot {
                generation: 0,
                links: [Links::default(); 2],
                taken: None,
            });
            // Bounded by `max_flows`, which has 32 bits.
            (self.slots.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.slots[index as usize].links[0].next;
            index
        };
        self.len += 1;
        if let Some(other) = self.keys.insert(key, index) {
            // Nobody takes a key that leads somewhere; if it were so, the other flow would lose it.
            self.forget_key(other, &key);
        }
        let kind = self.quiet.of(false);
        kind.push(&mut self.slots, Place::Quiet, index);
        let own = self.sources.join(&mut self.slots, source, false, index);
        let slot = &mut self.slots[index as usize];
        slot.taken = Some(Taken {
            flow,
            key,
            more: Vec::new(),
            own,
            last: now,
            asked: 1,
            answered: 0,
            is_proven: false,
        });
        Id {
            index,
            generation: slot.generation,
        }
    }

    /// `key` leads to the flow `id` as well from now on; whatever flow it led to before loses it. Of more
    /// keys than a flow may have, the one goes that was not added, or added again, for longest.
    pub(super) fn add_key(&mut self, id: Id, key: Key) {
        if self.taken(id).is_none() {
            return;
        }
        match self.keys.insert(key, id.index) {
            Some(before) if before == id.index => {
                if let Some(taken) = self.taken(id)
                    && let Some(at) = taken.more.iter().position(|k| *k == key)
                {
                    taken.more[at..].rotate_left(1);
                }
                return;
            }
            Some(before) => self.forget_key(before, &key),
            None => {}
        }
        let mut oldest = None;
        if let Some(taken) = self.taken(id) {
            taken.more.push(key);
            if taken.more.len() >= MAX_KEYS {
                oldest = Some(taken.more.remove(0));
            }
        }
        if let Some(oldest) = oldest {
            self.keys.remove(&oldest);
        }
    }

    /// The flow's client, who has just spoken, is at another source from now on.
    pub(super) fn set_source(&mut self, id: Id, source: Source) {
        let Some((before, is_proven)) = self.taken(id).map(|t| (t.own, t.is_proven)) else {
            return;
        };
        if self.sources.source(before) == source {
            return;
        }
        let (slots, index) = (&mut self.slots, id.index);
        self.sources.leave(slots, before, is_proven, index);
        let own = self.sources.join(slots, source, is_proven, index);
        if let Some(taken) = self.taken(id) {
            taken.own = own;
        }
    }

    /// Takes a flow out.
    pub(super) fn remove(&mut self, id: Id) -> Option<F> {
        self.taken(id)?;
        self.take(id.index)
    }

    /// Takes out a flow that was not heard of for `idle`. To be asked until there is none.
    pub(super) fn expire(&mut self, now: Nanos, idle: Nanos) -> Option<F> {
        let quietest = self.quietest()?;
        let last = self.slots[quietest as usize].taken.as_ref()?.last;
        if now < last.saturating_add(idle) {
            return None;
        }
        self.take(quietest)
    }

    /// When the next one will have been quiet for `idle`.
    pub(super) fn next_expiry(&self, idle: Nanos) -> Option<Nanos> {
        let taken = self.slots[self.quietest()? as usize].taken.as_ref()?;
        Some(taken.last.saturating_add(idle))
    }

    /// Takes out any one.
    pub(super) fn pop(&mut self) -> Option<F> {
        let quietest = self.quietest()?;
        self.take(quietest)
    }

    /// The flow that was not heard of for longest.
    fn quietest(&self) -> Option<u32> {
        let last = |index: &u32| {
            let taken = self.slots[*index as usize].taken.as_ref();
            taken.map_or(Nanos::MAX, |taken| taken.last)
        };
        self.quiet.heads().min_by_key(last)
    }

    #[inline]
    fn taken(&mut self, id: Id) -> Option<&mut Taken<F>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.taken
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }

    /// Puts a flow at the loud end of its chains.
    #[inline]
    fn move_up(&mut self, index: u32, was_proven: bool, is_proven: bool) {
        let (was, slots) = (self.quiet.of(was_proven), &mut self.slots);
        was.unlink(slots, Place::Quiet, index);
        self.quiet.of(is_proven).push(slots, Place::Quiet, index);
        let slot = &self.slots[index as usize];
        // The only such flow of its source: nothing to move.
        if was_proven == is_proven && slot.links[Place::Source as usize].is_alone() {
            return;
        }
        if let Some(own) = slot.taken.as_ref().map(|taken| taken.own) {
            let kinds = (was_proven, is_proven);
            self.sources.move_up(&mut self.slots, own, kinds, index);
        }
    }

    fn take(&mut self, index: u32) -> Option<F> {
        let taken = self.slots.get_mut(index as usize)?.taken.take()?;
        let (kind, slots) = (self.quiet.of(taken.is_proven), &mut self.slots);
        kind.unlink(slots, Place::Quiet, index);
        let (own, is_proven) = (taken.own, taken.is_proven);
        self.sources.leave(slots, own, is_proven, index);
        for key in taken.more.iter().chain([&taken.key]) {
            if self.keys.get(key) == Some(&index) {
                self.keys.remove(key);
            }
        }
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.links[0].next = self.free;
        self.free = index;
        self.len -= 1;
        Some(taken.flow)
    }

    /// The flow at `index` is not found by `key` any more.
    fn forget_key(&mut self, index: u32, key: &Key) {
        if let Some(taken) = &mut self.slots[index as usize].taken {
            taken.more.retain(|k| k != key);
        }
    }
}

// === impl Id ===

impl Id {
    /// As a number, for who can keep only that.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// What [`to_bits`](Self::to_bits) gave.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}
