//! What operators said before this peer was away for longer than the fleet remembers ([`GC_AFTER`]).
//!
//! Others may have forgotten by now that they took it back: told to them it would come back for all. But if all
//! were away, or this peer is the only one, nobody else knows it. So it is kept aside: it holds here, and nobody is
//! told, until this peer
//! - has compared with one that knows what the fleet says since before this one was last here: that one has known
//!   what is aside here, so what it does not know was taken back, and what was aside is dropped; or
//! - has met others, and for [`ALIKE`] none that is known of is such a one: they all came back together, and what is
//!   aside is the fleet's again, each thing by its own stamp.
//!
//! Of those who came back together, one may know that a word was taken back that another still has aside: what was
//! taken back is kept aside too, and said again when its word comes up. Who is alone keeps things aside, however long
//! that takes. Who began with nothing while all others were away knows no better: it never knew what they said.
//! Registrations end in less time than it takes to be forgotten, and are not among them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::config::Name;
use crate::fleet::Now;
use crate::fleet::fact::{About, Fact, GC_AFTER, Key, Value};
use crate::fleet::facts::{Flaw, Merged, is_past};
use crate::fleet::stamp::Stamp;

use super::Peer;

/// What is kept aside.
#[derive(Clone, Debug)]
pub struct Past {
    saved_unix_ms: u64,
    words: BTreeMap<Key, Fact>,
    /// What had been taken back.
    ended: BTreeMap<Key, Fact>,
    /// Since when nobody is known of who knows better, while somebody is there.
    alike_since: Option<Nanos>,
}

/// What becomes of what is aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Dropped,
    Told,
}

/// For how long nobody may be known of who knows better: three comparisons, so that who is there is known.
const ALIKE: Duration = Duration::from_secs(30);

/// Words that are named in one line of the log; of the others there is the count.
const NAMED: usize = 20;

// === impl Past ===

impl Past {
    /// As of when it is, in milliseconds since 1970. What is saved meanwhile is saved as of then.
    pub fn saved_unix_ms(&self) -> u64 {
        self.saved_unix_ms
    }

    /// How many words of operators there are.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none; those that are recalled may be to come.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// All of it, what had been taken back too: to be saved with the rest.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.words.values().chain(self.ended.values())
    }

    /// What is said of an upstream; what is known of the same keys is older.
    pub(super) fn of_upstream<'p>(&'p self, upstream: &'p Name) -> impl Iterator<Item = &'p Fact> {
        let words = self.words.values();
        words.filter(move |fact| fact.key.upstream() == Some(upstream))
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.words.contains_key(key)
    }

    /// What operators said, in order.
    pub fn words(&self) -> impl Iterator<Item = &Fact> {
        self.words.values()
    }

    /// The same for people.
    fn named(&self) -> String {
        named(self.words())
    }

    /// Whether who knows what the fleet says since then has known what is aside here.
    fn was_known(&self, since_unix_ms: u64) -> bool {
        since_unix_ms <= self.saved_unix_ms
    }

    fn upstreams(&self) -> impl Iterator<Item = &Name> {
        self.words.keys().filter_map(Key::upstream)
    }

    /// Keeps a fact aside, if it is an operator's and the latest of its key.
    fn keep(&mut self, fact: Fact, unix_ms: u64) {
        if !matches!(fact.key, Key::Override { .. }) || fact.check().is_err() {
            return;
        }
        let is_later = |held: Option<&Fact>| held.is_none_or(|held| held.stamp < fact.stamp);
        if !is_later(self.ended.get(&fact.key)) || !is_later(self.words.get(&fact.key)) {
            return;
        }
        if fact.value == Value::Gone {
            self.words.remove(&fact.key);
            self.ended.insert(fact.key.clone(), fact);
        } else if !is_past(&fact, unix_ms) {
            self.words.insert(fact.key.clone(), fact);
        }
    }
}

// === impl Peer ===

impl Peer {
    /// Begins with what it knew at `saved_unix_ms`, which is longer ago than [`GC_AFTER`]. What is younger than that
    /// (a life that ended before it was decided saves both) is known like anything else.
    pub fn remember(&mut self, facts: Vec<Fact>, saved_unix_ms: u64, now: Now) {
        let mut past = Past {
            saved_unix_ms,
            words: BTreeMap::new(),
            ended: BTreeMap::new(),
            alike_since: None,
        };
        for fact in facts {
            if is_young(fact.stamp, now.unix_ms) {
                // It was in order when it was saved.
                let _ = self.reclaim(&fact, now);
            } else if self.facts.get(&fact.key).is_none() {
                past.keep(fact, now.unix_ms);
            }
        }
        self.news.upstreams.extend(past.upstreams().cloned());
        self.past = Some(past);
        self.hear_all(now);
    }

    /// What is kept aside, while it is.
    pub fn past(&self) -> Option<&Past> {
        self.past.as_ref()
    }

    /// Keeps aside what was said so long ago; whether it did.
    pub(super) fn recall_aside(&mut self, fact: &Fact, now: Now) -> bool {
        let Some(past) = &mut self.past else {
            return false;
        };
        if is_young(fact.stamp, now.unix_ms) {
            return false;
        }
        if self.facts.get(&fact.key).is_none() {
            past.keep(fact.clone(), now.unix_ms);
            self.news.upstreams.extend(fact.key.upstream().cloned());
        }
        true
    }

    /// Something is known of a key: what is aside of it is no more. What others had aside and this peer knows to
    /// have been taken back, is taken back again.
    pub(super) fn outdate(&mut self, fact: &Fact) -> bool {
        if let Some(past) = &mut self.past {
            // What others had aside may be older than what this one has.
            let held = past.words.get(&fact.key);
            if held.is_some_and(|held| held.stamp <= fact.stamp) {
                past.words.remove(&fact.key);
            }
        }
        let ended = self.ended.get(&fact.key);
        fact.value != Value::Gone && ended.is_some_and(|ended| ended.stamp > fact.stamp)
    }

    /// This peer knows now what one does that has known what the fleet says since then.
    pub(super) fn compare_past(&mut self, since_unix_ms: u64, now: Now) {
        let past = self.past.as_ref();
        if past.is_some_and(|past| past.was_known(since_unix_ms)) {
            self.settle_past(Fate::Dropped, now);
        }
    }

    /// Whether all who are known of came back together, and have for long enough.
    pub(super) fn look_back(&mut self, now: Now) {
        let Some(past) = &self.past else {
            return;
        };
        let knows_better = |about: &About| past.was_known(about.knows_since_unix_ms);
        let others = self.facts.of_peers().filter(|fact| fact.origin != self.me);
        let knows_better = others
            .filter_map(|fact| match &fact.value {
                Value::Peer(about) => Some(about),
                _ => None,
            })
            .any(knows_better);
        let are_alike = !self.live.is_empty()
            && self.live.keys().all(|peer| self.about_of(*peer).is_some())
            && !knows_better;
        let Some(past) = &mut self.past else {
            return;
        };
        let since = past.alike_since.get_or_insert(now.now);
        if !are_alike {
            past.alike_since = None;
        } else if now.now.saturating_sub(*since) >= nanos(ALIKE) {
            self.settle_past(Fate::Told, now);
        }
    }

    fn settle_past(&mut self, fate: Fate, now: Now) {
        let Some(past) = self.past.take() else {
            return;
        };
        let (count, named) = (past.len(), past.named());
        self.news.upstreams.extend(past.upstreams().cloned());
        match fate {
            Fate::Dropped => {
                // What goes now is nobody's removal; what was held of them is looked at again.
                self.news.upstreams.extend(self.brake.upstreams().cloned());
                self.brake.retain(|_| false);
                if count == 0 {
                    tracing::info!(
                        "fleet: this peer knows now what the others said while it was away"
                    );
                } else {
                    tracing::warn!(
                        "fleet: this peer knows now what the others said while it was away; {count} words of \
                         operators from before that, which no other peer knows any more, hold no longer: {named}; what \
                         is still wanted is to be said again"
                    );
                }
            }
            Fate::Told => {
                self.ended = past.ended;
                let mut refused = Vec::new();
                for fact in past.words.into_values() {
                    if let Some(flaw) = self.reclaim(&fact, now) {
                        self.flaw(flaw.as_str());
                        refused.push(fact);
                    }
                }
                let refused = self::named(refused.iter());
                // Others who came back earlier may have told it meanwhile.
                let is_back = |ended: &&Fact| {
                    let held = self.facts.get(&ended.key);
                    held.is_some_and(|f| f.value != Value::Gone && f.stamp < ended.stamp)
                };
                let back: Vec<Key> = self
                    .ended
                    .values()
                    .filter(is_back)
                    .map(|f| f.key.clone())
                    .collect();
                for key in back {
                    // It was said, so it can be taken back.
                    let _ = self.say(key, Value::Gone, now);
                }
                tracing::warn!(
                    "fleet: all peers were away for more than a day: {count} words of operators from before that \
                     hold again in the whole fleet: {named}"
                );
                if !refused.is_empty() {
                    tracing::error!(
                        "fleet: of these there is no room for some, which hold no more: {refused}; take back what is \
                         no longer needed, and say them again"
                    );
                }
            }
        }
    }

    /// Takes in what this peer knew; why not, if it cannot be.
    fn reclaim(&mut self, fact: &Fact, now: Now) -> Option<Flaw> {
        match self.facts.merge(fact.clone(), now.unix_ms) {
            Merged::New { before } => {
                self.lease(fact, now.now);
                self.note_news(fact, before.as_ref(), now);
                None
            }
            Merged::Known | Merged::Older => None,
            Merged::Refused(flaw) => Some(flaw),
        }
    }
}

/// Facts in words, the first of them if there are many.
fn named<'f>(facts: impl Iterator<Item = &'f Fact>) -> String {
    // A `String` takes all that is written to it.
    let mut text = String::new();
    let mut more = 0;
    for (at, fact) in facts.enumerate() {
        if at >= NAMED {
            more += 1;
            continue;
        }
        let comma = if at == 0 { "" } else { "; " };
        let _ = write!(text, "{comma}{}: {}", fact.key, fact.value);
    }
    if more > 0 {
        let _ = write!(text, "; and {more} more");
    }
    text
}

/// Whether nobody has forgotten yet what came after it.
fn is_young(stamp: Stamp, unix_ms: u64) -> bool {
    let age_ms = unix_ms.saturating_sub(stamp.unix_ms());
    u128::from(age_ms) <= GC_AFTER.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::addr::EndpointAddr;
    use crate::fleet::fact::{Part, Word};
    use crate::fleet::id::PeerId;
    use crate::upstream::overrides::By;

    fn drain(n: u16) -> Fact {
        Fact {
            key: Key::Override {
                upstream: "app".into(),
                endpoint: EndpointAddr::Ip(([10, 0, 0, 1], n).into()),
                part: Part::State,
            },
            value: Value::Said {
                word: Word::Drain,
                by: By {
                    owner: "uid:0".to_owned(),
                    reason: "kernel".to_owned(),
                    since_unix_ms: 1,
                    expires_unix_ms: None,
                },
            },
            stamp: Stamp::at(1),
            origin: PeerId(1),
        }
    }

    #[test]
    fn names_are_few_and_the_others_are_counted() {
        let words: Vec<Fact> = (1..=23).map(drain).collect();
        assert_eq!(named([].iter()), "");
        assert_eq!(
            named(words[..2].iter()),
            "state of upstream app, endpoint 10.0.0.1:1: drain (uid:0: kernel); \
             state of upstream app, endpoint 10.0.0.1:2: drain (uid:0: kernel)"
        );
        let text = named(words.iter());
        assert_eq!(text.matches("drain").count(), NAMED);
        assert!(text.ends_with("; and 3 more"), "{text}");
    }
}
