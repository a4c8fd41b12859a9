//! What a peer says: here at once, and to the others.

use crate::fleet::Now;
use crate::fleet::fact::{Fact, Key, Value};
use crate::fleet::facts::{Flaw, Merged};
use crate::fleet::id::PeerId;
use crate::fleet::push;
use crate::fleet::seal::{Kind, MAX_PAYLOAD};
use crate::fleet::stamp::Stamp;

use super::Peer;

// === impl Peer ===

impl Peer {
    /// Says something: here at once, and to the others.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn say(&mut self, key: Key, value: Value, now: Now) -> Result<(), Flaw> {
        let mut stamp = self.clock.next(now.unix_ms);
        if let Some(held) = self.facts.get(&key) {
            // What is said here holds here, also where what was held is of a time that is yet to come.
            stamp = stamp.max(Stamp(held.stamp.0.saturating_add(1)));
        }
        let fact = self.fact(stamp, key, value);
        self.say_fact(&fact, now)
    }

    /// Takes in what was said here at `unix_ms`, when the fleet was not told. What was said or taken back since
    /// then, by whomever, holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn recall(&mut self, key: Key, value: Value, unix_ms: u64, now: Now) -> Result<(), Flaw> {
        let fact = self.fact(Stamp::at(unix_ms.min(now.unix_ms)), key, value);
        if self.recall_aside(&fact, now) {
            return Ok(());
        }
        self.say_fact(&fact, now)
    }

    /// Whether it could be [said](Self::say).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn could_say(&self, key: Key, value: Value) -> Result<(), Flaw> {
        self.facts.admits(&self.fact(Stamp::default(), key, value))
    }

    /// As [`say`](Self::say), unless it is what is said already.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn say_once(&mut self, key: Key, value: Value, now: Now) -> Result<(), Flaw> {
        let is_said = match self.facts.get(&key) {
            Some(fact) => fact.value == value,
            None => value == Value::Gone,
        };
        if is_said && !self.has_past(&key) {
            return Ok(());
        }
        self.say(key, value, now)
    }

    /// Tells a fact to some peers at once, beside what is pushed to all.
    pub fn tell(&mut self, key: &Key, peers: impl IntoIterator<Item = PeerId>, now: Now) {
        let Some(fact) = self.facts.get(key) else {
            return;
        };
        let mut message = Vec::new();
        if !push::pack(fact, MAX_PAYLOAD, &mut message) {
            return;
        }
        for peer in peers {
            if let Some((identity, _)) = self.live.get(&peer) {
                let to = identity.addr;
                self.send(Kind::Facts, to, &message, now.unix_ms);
            }
        }
    }

    /// Says again what only this peer may say and what it decided, so that nobody takes it for forgotten.
    pub(super) fn refresh(&mut self, now: Now) {
        let own = self
            .facts
            .iter()
            .filter(|fact| fact.key.writer() == Some(self.me) && fact.value != Value::Gone);
        let own: Vec<_> = own
            .map(|fact| (fact.key.clone(), fact.value.clone()))
            .collect();
        for (key, value) in own {
            // It was right before.
            let _ = self.say(key, value, now);
        }
    }

    /// Says of itself what is so, unless that is what is known: an earlier life of this peer may have said
    /// something else, by a clock that was ahead.
    pub(super) fn introduce(&mut self, now: Now) {
        // What a process says of itself is in order.
        let _ = self.say_once(Key::Peer(self.me), Value::Peer(self.about.clone()), now);
    }

    fn fact(&self, stamp: Stamp, key: Key, value: Value) -> Fact {
        Fact {
            stamp,
            origin: self.me,
            key,
            value,
        }
    }

    fn say_fact(&mut self, fact: &Fact, now: Now) -> Result<(), Flaw> {
        match self.facts.merge(fact.clone(), now.unix_ms) {
            Merged::New { before } => self.note_news(fact, before.as_ref(), now),
            Merged::Known | Merged::Older => {}
            Merged::Refused(flaw) => return Err(flaw),
        }
        Ok(())
    }

    pub(super) fn has_past(&self, key: &Key) -> bool {
        self.past.as_ref().is_some_and(|past| past.has(key))
    }
}
