//! What is news, and how often it has still to be told.
//!
//! Rumour mongering (Demers et al., "Epidemic Algorithms for Replicated Database Maintenance", 1987, section 1.4): a
//! fact that is new here is told to [`FANOUT`] peers a round, c times in all, and then left to the comparing of
//! stores. With c tellings by each of N peers the expected share that hears nothing is e^-c (each telling goes to a
//! random peer), so c = ⌈ln N⌉ + 2 leaves N e^-c < 0.14 peers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};

use super::fact::{Fact, Key};

/// Peers told in a round.
pub const FANOUT: usize = 3;

/// Time between rounds: 1,000 peers know after ⌈log₄ 1000⌉ = 5 of them.
pub const ROUND: Duration = Duration::from_millis(100);

/// Bytes a second at most: a joiner of 10,000 endpoints, or a burst of 1,000 facts to three peers each, takes
/// seconds, and no link that carries traffic notices it.
const BYTES_PER_SECOND: u64 = 1_000_000;

/// What may be sent at once after silence: the share of two rounds.
const BURST: u64 = BYTES_PER_SECOND / 5;

/// A fact's bytes are preceded by their number, so that one that cannot be read does not take others with it.
const LENGTH: usize = 2;

/// What is still to be told.
#[derive(Debug, Default)]
pub struct Push {
    /// How many tellings are left of it, by the number that it came with: what came last is told first.
    queue: BTreeMap<(u32, u64), Key>,
    places: HashMap<Key, (u32, u64)>,
    last: u64,
    /// Bytes that may be sent, as of `filled_at`.
    tokens: u64,
    filled_at: Nanos,
}

/// How often a fact is told by each peer of `peers` others.
pub fn tellings(peers: usize) -> u32 {
    ((peers.max(1) + 1) as f64).ln().ceil() as u32 + 2
}

/// The facts in a message, encoded; `None` = there is no end to what it begins with.
pub fn split(mut payload: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let fact = payload
            .split_first_chunk::<LENGTH>()
            .and_then(|(length, rest)| {
                let length = usize::from(u16::from_be_bytes(*length));
                rest.split_at_checked(length)
            });
        let Some((fact, rest)) = fact else {
            payload = &[];
            return Some(None);
        };
        payload = rest;
        Some(Some(fact))
    })
}

/// One of them; `None` = it cannot be read.
pub fn read(encoded: &[u8]) -> Option<Fact> {
    postcard::from_bytes(encoded).ok()
}

/// Adds a fact to a message of at most `max` bytes; whether it fitted.
pub fn pack(fact: &Fact, max: usize, message: &mut Vec<u8>) -> bool {
    let start = message.len();
    message.extend_from_slice(&[0; LENGTH]);
    // Only a want of memory fails here.
    let Ok(mut packed) = postcard::to_extend(fact, std::mem::take(message)) else {
        return false;
    };
    let length = packed.len() - start - LENGTH;
    let fits = packed.len() <= max && u16::try_from(length).is_ok();
    if fits {
        packed[start..start + LENGTH].copy_from_slice(&(length as u16).to_be_bytes());
    } else {
        packed.truncate(start);
    }
    *message = packed;
    fits
}

// === impl Push ===

impl Push {
    /// There is something new to tell `times` times.
    pub fn add(&mut self, key: Key, times: u32) {
        self.forget(&key);
        if times == 0 {
            return;
        }
        self.last += 1;
        // The fewer tellings are behind it the earlier: a `BTreeMap` begins with the smallest.
        let place = (u32::MAX - times, u64::MAX - self.last);
        self.queue.insert(place, key.clone());
        self.places.insert(key, place);
    }

    /// It is not to be told any more.
    pub fn forget(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.queue.remove(&place);
        }
    }

    /// How many facts have still to be told.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether all has been told.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The messages of a round, of at most `max` bytes each, that each of `peers` peers is sent; what was in them
    /// counts as told so often.
    pub fn round<'a>(
        &mut self,
        find: impl Fn(&Key) -> Option<&'a Fact>,
        peers: usize,
        max: usize,
        now: Nanos,
    ) -> Vec<Vec<u8>> {
        self.fill(now);
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let mut told = Vec::new();
        for (place, key) in &self.queue {
            // Collected since: nothing is left to be told.
            let Some(fact) = find(key) else {
                told.push((*place, false));
                continue;
            };
            let is_full = |m: &mut Vec<u8>| !pack(fact, max, m);
            if messages.last_mut().is_none_or(is_full) {
                if self.tokens < (max * peers) as u64 {
                    break;
                }
                self.tokens -= (max * peers) as u64;
                let mut message = Vec::new();
                if !pack(fact, max, &mut message) {
                    // Longer than facts may be: it cannot have been taken in.
                    told.push((*place, false));
                    continue;
                }
                messages.push(message);
            }
            told.push((*place, true));
        }
        // What was paid for and not filled.
        let unused: usize = messages.iter().map(|m| max - m.len()).sum();
        self.tokens += (unused * peers) as u64;
        for (place, is_told) in told {
            let Some(key) = self.queue.remove(&place) else {
                continue;
            };
            self.places.remove(&key);
            let left = (u32::MAX - place.0).saturating_sub(peers as u32);
            if is_told && left > 0 {
                let place = (u32::MAX - left, place.1);
                self.queue.insert(place, key.clone());
                self.places.insert(key, place);
            }
        }
        messages
    }

    fn fill(&mut self, now: Nanos) {
        let passed = now.saturating_sub(self.filled_at);
        let bytes = u128::from(passed) * u128::from(BYTES_PER_SECOND) / 1_000_000_000;
        if bytes == 0 {
            return;
        }
        self.filled_at = now;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.tokens = self.tokens.saturating_add(bytes).min(BURST);
    }

    /// When the round after one at `now` is due.
    pub fn next_round(now: Nanos) -> Nanos {
        now.saturating_add(nanos(ROUND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::fact::{About, Value};
    use crate::fleet::id::PeerId;
    use crate::fleet::stamp::Stamp;

    const MS: Nanos = 1_000_000;

    fn fact(id: u64) -> Fact {
        Fact {
            key: Key::Peer(PeerId(id)),
            value: Value::Peer(About::default()),
            stamp: Stamp::at(id),
            origin: PeerId(id),
        }
    }

    fn unpack(message: &[u8]) -> impl Iterator<Item = Option<Fact>> {
        split(message).map(|fact| fact.and_then(read))
    }

    fn ids(message: &[u8]) -> Vec<u64> {
        let facts = unpack(message).map(Option::unwrap);
        facts.map(|fact| fact.origin.0).collect()
    }

    #[test]
    fn tellings_grow_with_the_logarithm() {
        let all = [0, 1, 2, 4, 49, 999].map(tellings);
        assert_eq!(all, [3, 3, 4, 4, 6, 9]);
    }

    #[test]
    fn news_is_told_as_often_as_it_was_to_be_the_latest_first() {
        let facts: HashMap<Key, Fact> = (1..=3).map(|id| (fact(id).key, fact(id))).collect();
        let mut push = Push::default();
        for id in 1..=3 {
            push.add(fact(id).key, 5);
        }
        let round = |push: &mut Push, at| push.round(|key| facts.get(key), 3, 1000, at);
        let first = round(&mut push, 1000 * MS);
        assert_eq!(
            first.iter().map(|m| ids(m)).collect::<Vec<_>>(),
            [[3, 2, 1]]
        );
        push.add(fact(1).key, 5);
        let second = round(&mut push, 1100 * MS);
        assert_eq!(
            second.iter().map(|m| ids(m)).collect::<Vec<_>>(),
            [[1, 3, 2]]
        );
        let third = round(&mut push, 1200 * MS);
        assert_eq!(third.iter().map(|m| ids(m)).collect::<Vec<_>>(), [[1]]);
        assert!(push.is_empty());
        assert!(round(&mut push, 1300 * MS).is_empty());
    }

    #[test]
    fn messages_are_filled_and_no_more_is_sent_than_allowed() {
        let facts: HashMap<Key, Fact> = (1..=5000).map(|id| (fact(id).key, fact(id))).collect();
        let mut push = Push::default();
        for id in 1..=5000 {
            push.add(fact(id).key, 3);
        }
        let (mut told, mut bytes, mut rounds) = (0, 0, 0);
        let mut now = 10_000 * MS;
        while !push.is_empty() {
            let messages = push.round(|key| facts.get(key), 3, 500, now);
            assert!(messages.iter().all(|m| m.len() <= 500));
            assert!(
                messages.iter().rev().skip(1).all(|m| m.len() > 450),
                "filled"
            );
            let sent: usize = messages.iter().map(|m| 3 * m.len()).sum();
            bytes += sent;
            told += messages.iter().map(|m| ids(m).len()).sum::<usize>();
            rounds += 1;
            now = Push::next_round(now);
        }
        assert_eq!(told, 5000);
        let allowed = BURST as usize + rounds * BYTES_PER_SECOND as usize / 10;
        assert!(bytes <= allowed, "{bytes} in {rounds} rounds");
    }

    #[test]
    fn what_cannot_be_read_takes_nothing_with_it() {
        let mut message = Vec::new();
        assert!(pack(&fact(1), 1000, &mut message));
        message.extend_from_slice(&[0, 2, 0xff, 0xff]);
        assert!(pack(&fact(2), 1000, &mut message));
        let whole = message.clone();
        message.extend_from_slice(&[0, 9, 1]);
        let known: Vec<_> = unpack(&message).map(|f| f.map(|f| f.origin.0)).collect();
        assert_eq!(known, [Some(1), None, Some(2), None]);
        // Every cut of it is an end, not a panic.
        for end in 0..whole.len() {
            assert!(unpack(&whole[..end]).count() <= 3);
        }
        assert!(!pack(&fact(1), whole.len(), &mut whole.clone()));
    }
}
