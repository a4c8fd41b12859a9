//! What a peer hears in datagrams, and whom it believes what.

use crate::config::Name;
use crate::fleet::Now;
use crate::fleet::fact::{Fact, Key, Value};
use crate::fleet::facts::{Flaw, MAX_OF_ORIGIN, Merged};
use crate::fleet::id::PeerId;
use crate::fleet::membership;
use crate::fleet::push;
use crate::fleet::seal::{Kind, Opened, Refusal, Session};

use super::{Contact, Peer};

/// Contacts remembered beside those of members.
const MAX_CONTACTS: usize = 4096;

/// Of how many it is remembered that they have said as much as one may: fewer fit a store twice over.
const MAX_NOISY: usize = 64;

// === impl Peer ===

impl Peer {
    /// Takes a datagram.
    pub fn datagram(&mut self, bytes: &[u8], now: Now) {
        let opened = match self.opener.open(bytes, now.now) {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(refusal),
        };
        if !self.is_of_now(&opened, now) {
            *self.counts.refused.entry("clock").or_default() += 1;
            return;
        }
        let kind = opened.kind as usize - 1;
        self.counts.received[kind].add(bytes.len());
        match opened.kind {
            Kind::Membership => {
                let taken = self.membership.datagram(&opened.payload, now.now);
                // A seed may be this peer itself under another address.
                if taken.is_err_and(|refused| refused != membership::Refused::OwnAddress) {
                    *self.counts.refused.entry("membership").or_default() += 1;
                }
                self.after_membership(now);
            }
            Kind::Facts => {
                for encoded in push::split(&opened.payload) {
                    if encoded.is_some_and(|encoded| self.facts.knows(encoded)) {
                        continue;
                    }
                    match encoded.and_then(push::read) {
                        Some(fact) => self.take(&fact, opened.sender, now),
                        None => self.flaw("encoding"),
                    }
                }
            }
        }
    }

    /// Whether something is to be taken, by the clock of who sent it. Facts only if it agrees with ours. Who is
    /// there also of a peer whose clock goes wrong, but nothing that may be a recording: of a session that was
    /// never heard at its time, or from before the last that was.
    fn is_of_now(&mut self, opened: &Opened, now: Now) -> bool {
        let skew_ms = skew_of(opened.unix_ms, now);
        let known = self.contacts.get(&opened.sender);
        let known = known.and_then(|contact| contact.session);
        let is_met = known == Some(opened.session) && opened.is_latest;
        let is_skewed = self.is_skewed(skew_ms);
        if !is_skewed || is_met || known.is_none() {
            let session = if is_skewed {
                known
            } else {
                Some(opened.session)
            };
            self.contact(opened.sender, skew_ms, session, now);
        }
        !is_skewed || (is_met && opened.kind == Kind::Membership)
    }

    /// Notes that something came from a peer, and how far its clock is off.
    pub(super) fn contact(
        &mut self,
        peer: PeerId,
        skew_ms: i64,
        session: Option<Session>,
        now: Now,
    ) {
        if self.contacts.len() < MAX_CONTACTS || self.contacts.contains_key(&peer) {
            let contact = Contact {
                at: now.now,
                skew_ms,
                session,
            };
            self.contacts.insert(peer, contact);
        }
    }

    pub(super) fn is_skewed(&self, skew_ms: i64) -> bool {
        u128::from(skew_ms.unsigned_abs()) > self.max_clock_skew.as_millis()
    }

    /// Takes a fact that `from` sent.
    pub(super) fn take(&mut self, fact: &Fact, from: PeerId, now: Now) {
        if self.facts.get(&fact.key).is_some_and(|known| known == fact) {
            return;
        }
        #[cfg(test)]
        assert!(
            fact.key
                .upstream()
                .is_none_or(|name| &**name != "panics-in-tests"),
            "asked for by a test"
        );
        let stamp = fact.stamp;
        if self
            .clock
            .hear(stamp, now.unix_ms, self.max_clock_skew)
            .is_err()
        {
            self.flaw(Flaw::Ahead.as_str());
            return self.quarantine.note(fact, Flaw::Ahead, from, now.unix_ms);
        }
        match self.facts.merge(fact.clone(), now.unix_ms) {
            Merged::New { before } => {
                self.counts.merged += 1;
                self.counts.lag_ms = Some(now.unix_ms.saturating_sub(stamp.unix_ms()));
                self.lease(fact, now.now);
                self.note_news(fact, before.as_ref(), now);
            }
            Merged::Known | Merged::Older => {}
            Merged::Refused(flaw) => {
                self.flaw(flaw.as_str());
                if flaw == Flaw::Quota {
                    self.note_noise(fact.origin);
                }
                self.quarantine.note(fact, flaw, from, now.unix_ms);
            }
        }
    }

    /// Somebody has no room left for what it says: people are told once.
    fn note_noise(&mut self, origin: PeerId) {
        if self.noisy.len() < MAX_NOISY && self.noisy.insert(origin) {
            tracing::warn!(
                "fleet: peer {origin} has said {MAX_OF_ORIGIN} things, the most that one may, and what else it says is \
                 refused here: look there for what registers or changes so many endpoints (`isobar_fleet_facts`); if it \
                 has gone wrong, stop it and start it again without its fleet.facts"
            );
        }
    }

    /// Something else is so: others are to know, and whoever asks for news.
    pub(super) fn note_news(&mut self, fact: &Fact, before: Option<&Value>, now: Now) {
        if self.outdate(fact) {
            // It was said before, so it can be taken back; others hear of that alone.
            let _ = self.say(fact.key.clone(), Value::Gone, now);
            return;
        }
        let now = now.now;
        if self.push.is_empty() {
            self.next_push = self.next_push.max(now);
        }
        self.push
            .add(fact.key.clone(), push::tellings(self.live.len()));
        match &fact.key {
            Key::Peer(_) => self.has_moved |= before.and_then(zone_of) != zone_of(&fact.value),
            Key::Vote {
                upstream, endpoint, ..
            } => self.duties.heard(upstream, endpoint),
            Key::Registration { upstream, .. } | Key::Override { upstream, .. } => {
                self.news.upstreams.insert(upstream.clone());
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.counts.refused.entry(refusal.as_str()).or_default() += 1;
    }

    pub(super) fn flaw(&mut self, why: &'static str) {
        *self.counts.flaws.entry(why).or_default() += 1;
    }
}

pub(super) fn skew_of(unix_ms: u64, now: Now) -> i64 {
    let skew_ms = i128::from(unix_ms) - i128::from(now.unix_ms);
    skew_ms.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Where a peer stands that says this of itself.
fn zone_of(value: &Value) -> Option<&Name> {
    match value {
        Value::Peer(about) => about.zone.as_ref(),
        _ => None,
    }
}
