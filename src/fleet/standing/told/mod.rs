//! The facts of an upstream, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::config;
use crate::fleet::fact::{Fact, Key, Part, Value, Word};
use crate::fleet::id::PeerId;
use crate::fleet::stamp::Stamp;
use crate::upstream::overrides::{
    self, AdminState, Heard, Held, Membership, Registered, Said, Spoken, Told,
};

use super::brake::{Ask, Brake, By, Claim, Claims, Remover};
use super::footing::{Footing, Joined, Record, latest};
use super::orphans::Orphans;
use super::seen::Seen;

/// From where facts are looked at.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The upstream as the file has it.
    pub spec: &'a config::Upstream,
    /// Who looks.
    pub own: PeerId,
    /// What an endpoint is here.
    pub seen: &'a dyn Fn(&EndpointAddr) -> Seen,
    /// The time.
    pub now: Nanos,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// What facts mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What holds.
    pub told: Told,
    /// When it will be something else without a new fact; expiries of words excepted, of which
    /// [`Overrides`](crate::upstream::overrides::Overrides) knows, and the health of endpoints.
    pub again_at: Option<Nanos>,
}

/// What the facts of one upstream mean: all of them, in any order, tombstones included; facts about others are
/// passed over.
pub fn told<'f>(
    sight: &Sight<'_>,
    facts: impl IntoIterator<Item = &'f Fact>,
    orphans: &mut Orphans,
    brake: &mut Brake,
) -> Standing {
    let upstream = &sight.spec.name;
    // 1 by endpoint, what is said of it and still holds
    let mut again_at: Option<Nanos> = None;
    let mut heaps: BTreeMap<&EndpointAddr, Heap<'f>> = BTreeMap::new();
    for fact in facts {
        if fact.key.upstream() != Some(upstream) {
            continue;
        }
        let Some(endpoint) = fact.key.endpoint() else {
            continue;
        };
        let heap = heaps.entry(endpoint).or_default();
        if let Some(end) = heap.take(sight, fact, orphans) {
            again_at = Some(again_at.map_or(end, |at| at.min(end)));
        }
    }
    // 2 who would be a member, and what takes endpoints away
    let listed: BTreeMap<&EndpointAddr, u32> = sight
        .spec
        .endpoints
        .iter()
        .map(|e| (&e.addr, e.weight))
        .collect();
    let remembered: Vec<EndpointAddr> = brake.members(upstream).cloned().collect();
    let nothing = Heap::default();
    let mut members: BTreeSet<&EndpointAddr> = listed.keys().copied().collect();
    let mut asks = Vec::new();
    let mut claims = Claims {
        is_checked: sight.spec.health.is_some(),
        ..Claims::default()
    };
    if sight.spec.dynamic {
        let footed = heaps.iter().filter(|(_, heap)| !heap.footing.is_empty());
        members.extend(footed.map(|(addr, _)| *addr));
        members.extend(&remembered);
    }
    for addr in &members {
        let heap = heaps.get(addr).unwrap_or(&nothing);
        let before = brake.footing(upstream, addr);
        let before = before.filter(|_| sight.spec.dynamic && !listed.contains_key(addr));
        let removers = heap.removers(sight, listed.contains_key(addr), before);
        if !removers.is_empty() {
            asks.push(Ask {
                endpoint: (*addr).clone(),
                removers,
                is_down: (sight.seen)(addr).is_down(),
            });
        }
        heap.claim(sight, addr, listed.get(addr).copied(), &mut claims);
    }
    brake.weigh(upstream, &claims, sight.own, sight.unix_ms);
    brake.judge(
        upstream,
        &members,
        &asks,
        sight.own,
        (sight.now, sight.unix_ms),
    );
    // 3 what holds
    let mut told = Told::new();
    let all: BTreeSet<&EndpointAddr> = heaps.keys().copied().chain(&remembered).collect();
    for addr in all {
        let heap = heaps.get(addr).unwrap_or(&nothing);
        let spoken = heap.spoken(sight, addr, listed.contains_key(addr), brake);
        let is_held = brake.held_of(upstream, addr).is_some();
        let keeps = is_held && heap.footing.is_empty();
        if !keeps {
            let needs_one = sight.spec.dynamic && !listed.contains_key(addr);
            let had_one = brake.footing(upstream, addr).is_some();
            if needs_one && had_one && heap.footing.is_empty() {
                brake.settle(upstream, addr, sight.now);
            }
            brake.stand(upstream, addr, heap.footing(sight, addr, brake));
        }
        if spoken != Spoken::default() {
            told.insert(addr.clone(), spoken);
        }
    }
    let again_at = again_at.into_iter().chain(brake.again_at(upstream)).min();
    Standing { told, again_at }
}

/// All facts about one endpoint.
#[derive(Clone, Debug, Default)]
struct Heap<'f> {
    /// By [`Part`].
    said: [Option<&'f Fact>; 3],
    registrations: Vec<Entry<'f>>,
    /// What of it makes a member.
    footing: Footing,
}

/// A registration, or what is left of one.
#[derive(Clone, Debug)]
struct Entry<'f> {
    fact: &'f Fact,
    registrar: PeerId,
    /// `None` = it holds no more.
    record: Option<Record>,
    /// Why it holds no more, if nobody took it back.
    why: Option<String>,
}

// === impl Sight ===

impl fmt::Debug for Sight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upstream = &self.spec.name;
        write!(f, "upstream `{upstream}` as peer {} sees it", self.own)
    }
}

// === impl Heap ===

impl<'f> Heap<'f> {
    /// Takes in a fact; when it will mean something else, if that is known.
    fn take(&mut self, sight: &Sight<'_>, fact: &'f Fact, orphans: &mut Orphans) -> Option<Nanos> {
        match &fact.key {
            Key::Override { part, .. } => {
                self.said[*part as usize] = Some(fact);
                if let Some((Word::Joins(weight @ 1..), by)) = word(sight, fact) {
                    self.footing.joined = Some(Joined {
                        weight,
                        by: by.clone(),
                        origin: fact.origin,
                        first: fact.origin,
                    });
                }
                None
            }
            Key::Registration { registrar, .. } => {
                let registrar = *registrar;
                let mut entry = Entry {
                    fact,
                    registrar,
                    record: None,
                    why: None,
                };
                let mut again_at = None;
                if let Value::Registered {
                    weight,
                    zone,
                    ttl_ms,
                } = &fact.value
                {
                    let ttl = Duration::from_millis(u64::from(*ttl_ms));
                    let end = if registrar == sight.own {
                        None
                    } else {
                        orphans.end(registrar, ttl, sight.now)
                    };
                    if end.is_some_and(|end| end <= sight.now) {
                        entry.why = Some("the peer has been away for too long".to_owned());
                    } else {
                        again_at = end;
                        let record = Record {
                            weight: *weight,
                            zone: zone.clone(),
                            stamp: fact.stamp,
                        };
                        if *weight > 0 {
                            self.footing.registered.insert(registrar, record.clone());
                        }
                        entry.record = Some(record);
                    }
                }
                self.registrations.push(entry);
                again_at
            }
            Key::Peer(_) | Key::Vote { .. } => None,
        }
    }

    /// What takes the endpoint away; `before` is its footing when last looked at, where it needs one.
    fn removers(
        &self,
        sight: &Sight<'_>,
        is_listed: bool,
        before: Option<&Footing>,
    ) -> Vec<Remover> {
        let mut removers = Vec::new();
        for fact in self.said.iter().copied().flatten() {
            let Some((word, _)) = word(sight, fact) else {
                continue;
            };
            // Who joins with weight 0 and was a member without that is a member no more.
            let was_there = is_listed || !self.footing.registered.is_empty();
            let takes_away = word.takes_away() || word == Word::Joins(0) && was_there;
            let by = match word.field() {
                Part::Member if !sight.spec.dynamic => continue,
                Part::Member => By::Member,
                Part::State => By::State,
                Part::Weight => By::Weight,
            };
            if takes_away {
                removers.push(Remover {
                    by,
                    origin: fact.origin,
                    stamp: fact.stamp,
                    what: word.to_string(),
                });
            }
        }
        if let Some(before) = before.filter(|_| self.footing.is_empty()) {
            removers.extend(self.ended(sight, before));
        }
        removers
    }

    /// What is said of the endpoint's weight, by each peer whose word matters for it.
    fn claim(
        &self,
        sight: &Sight<'_>,
        addr: &EndpointAddr,
        listed: Option<u32>,
        claims: &mut Claims,
    ) {
        let with = self.weight(sight, listed, None);
        claims.total += u64::from(with);
        claims.members += usize::from(with > 0);
        let said = self.said.iter().copied().flatten();
        let origins = said.map(|fact| (fact.origin, fact.stamp));
        let registered = self.footing.registered.iter();
        let origins = origins.chain(registered.map(|(peer, record)| (*peer, record.stamp)));
        let origins: BTreeMap<PeerId, Stamp> = origins.collect();
        for (origin, stamp) in origins {
            let without = self.weight(sight, listed, Some(origin));
            // Words that take it away altogether are judged as such.
            if with == 0 || without == with {
                continue;
            }
            let is_word = |part: Part| {
                let fact = self.said[part as usize];
                fact.is_some_and(|fact| fact.origin == origin && word(sight, fact).is_some())
            };
            let (by, what) = if without == 0 && listed.is_none() {
                let what = format!("addition with weight {with}, not checked yet");
                (By::Added, what)
            } else if is_word(Part::Weight) {
                (By::Weight, format!("weight {with}"))
            } else if is_word(Part::Member) {
                (By::Member, format!("addition with weight {with}"))
            } else {
                (By::Registered, format!("registration with weight {with}"))
            };
            claims.all.push(Claim {
                endpoint: addr.clone(),
                origin,
                by,
                without,
                with,
                seen: (sight.seen)(addr),
                stamp,
                what,
            });
        }
    }

    /// The weight of the endpoint without the words of one peer; 0 = it is no member then. Words that take it away are
    /// passed over.
    fn weight(&self, sight: &Sight<'_>, listed: Option<u32>, except: Option<PeerId>) -> u32 {
        let says = |part: Part| {
            let fact = self.said[part as usize]?;
            let (word, _) = word(sight, fact)?;
            (Some(fact.origin) != except).then_some(word)
        };
        let mut weight = listed;
        if sight.spec.dynamic {
            let registered = self.footing.registered.iter();
            let registered = registered.filter(|(peer, _)| Some(**peer) != except);
            let latest = latest(registered.map(|(peer, record)| (*peer, record)));
            weight = weight.or(latest.map(|(_, record)| record.weight));
            if let Some(Word::Joins(joins @ 1..)) = says(Part::Member) {
                weight = Some(joins);
            }
        }
        match (weight, says(Part::Weight)) {
            (None, _) => 0,
            (Some(_), Some(Word::Weight(weight @ 1..))) => weight,
            (Some(weight), _) => weight,
        }
    }

    /// Who took away the footing that the endpoint had.
    fn ended(&self, sight: &Sight<'_>, before: &Footing) -> Vec<Remover> {
        let mut removers = Vec::new();
        for (registrar, record) in &before.registered {
            let entry = self
                .registrations
                .iter()
                .find(|e| e.registrar == *registrar);
            let stamp = entry.map_or(record.stamp, |entry| entry.fact.stamp);
            removers.push(Remover {
                by: By::End,
                origin: *registrar,
                stamp,
                what: "its registration ended".to_owned(),
            });
        }
        if let Some(joined) = &before.joined {
            let fact = self.said[Part::Member as usize];
            // Collected: nobody but who said it last can have ended it.
            let origin = fact.map_or(joined.origin, |fact| fact.origin);
            // Of a word that was given for a time, everybody knew when it would end.
            let is_agreed = origin == joined.first
                && joined
                    .by
                    .expires_unix_ms
                    .is_some_and(|end| end <= sight.unix_ms);
            if !is_agreed {
                removers.push(Remover {
                    by: By::End,
                    origin,
                    stamp: fact.map(|fact| fact.stamp).unwrap_or_default(),
                    what: "its addition was taken back".to_owned(),
                });
            }
        }
        removers
    }

    /// What is told of the endpoint, now that the brake has judged.
    fn spoken(
        &self,
        sight: &Sight<'_>,
        addr: &EndpointAddr,
        is_listed: bool,
        brake: &Brake,
    ) -> Spoken {
        let upstream = &sight.spec.name;
        let braked = brake.held_of(upstream, addr);
        let before = brake.footing(upstream, addr);
        let before = before.filter(|_| braked.is_some() && self.footing.is_empty());
        let removers = match braked {
            Some(_) => self.removers(sight, is_listed, None),
            None => Vec::new(),
        };
        let mut spoken = Spoken::default();
        for fact in self.said.iter().copied().flatten() {
            let Key::Override { part, .. } = fact.key else {
                continue;
            };
            let by = match part {
                Part::Member => By::Member,
                Part::State => By::State,
                Part::Weight => By::Weight,
            };
            let held = braked.filter(|_| removers.iter().any(|remover| remover.by == by));
            let held = held.or_else(|| brake.held_weight(upstream, addr, fact.origin, by));
            let said = word(sight, fact);
            if let (Some(braked), Some((word, by))) = (held, said) {
                spoken.held.push(Held {
                    word,
                    by: by.clone(),
                    peer: fact.origin.to_string(),
                    since_unix_ms: braked.since_unix_ms,
                });
            }
            let why = match (&fact.value, held) {
                (Value::Said { .. }, Some(_)) => {
                    Some("it is more than one peer may take away".to_owned())
                }
                (Value::Said { .. }, None) if said.is_none() => Some("it has expired".to_owned()),
                _ => None,
            };
            let said = said.filter(|_| held.is_none());
            let peer = fact.origin.to_string();
            match part {
                Part::Member => {
                    let member = said.and_then(|(word, by)| {
                        let value = match word {
                            Word::Joins(weight) => Membership::Joins(weight),
                            Word::Leaves => Membership::Leaves,
                            Word::Drain | Word::Disable | Word::Weight(_) => return None,
                        };
                        let by = by.clone();
                        Some(Said { value, by })
                    });
                    spoken.member = Some(Heard {
                        value: member,
                        peer,
                        why,
                    });
                }
                Part::State => {
                    let state = said.and_then(|(word, by)| {
                        let value = match word {
                            Word::Disable => AdminState::Disable,
                            Word::Drain => AdminState::Drain,
                            Word::Joins(_) | Word::Leaves | Word::Weight(_) => return None,
                        };
                        let by = by.clone();
                        Some(Said { value, by })
                    });
                    spoken.state = Some(Heard {
                        value: state,
                        peer,
                        why,
                    });
                }
                Part::Weight => {
                    let weight = said.and_then(|(word, by)| match word {
                        Word::Weight(value) => Some(Said {
                            value,
                            by: by.clone(),
                        }),
                        Word::Disable | Word::Drain | Word::Joins(_) | Word::Leaves => None,
                    });
                    spoken.weight = Some(Heard {
                        value: weight,
                        peer,
                        why,
                    });
                }
            }
        }
        spoken.is_unproven = brake.is_unproven(upstream, addr);
        spoken.registered = self.registered(|registrar| {
            let by = By::Registered;
            brake.held_weight(upstream, addr, registrar, by).is_none()
        });
        if let Some(before) = before {
            Self::keep(before, &mut spoken);
        }
        spoken
    }

    /// How it is registered, or is no more.
    /// `counts` tells of which registrar the weight is not held.
    fn registered(&self, counts: impl Fn(PeerId) -> bool) -> Option<Heard<Registered>> {
        let live = self.registrations.iter();
        let live = live.filter_map(|e| Some((e.registrar, e.record.as_ref()?)));
        let count = live.clone().count();
        let counting: Vec<_> = live.filter(|(registrar, _)| counts(*registrar)).collect();
        if let Some((registrar, record)) = latest(counting.into_iter()) {
            let more = match count - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return Some(Heard {
                value: Some(Registered {
                    weight: record.weight,
                    zone: record.zone.clone(),
                    by: format!("registered at {registrar}{more}"),
                }),
                peer: registrar.to_string(),
                why: None,
            });
        }
        let last = self
            .registrations
            .iter()
            .max_by_key(|e| (e.fact.stamp, e.registrar))?;
        Some(Heard {
            value: None,
            peer: last.registrar.to_string(),
            why: last.why.clone(),
        })
    }

    /// Lets hold on what made the endpoint a member, since its end is held.
    fn keep(before: &Footing, spoken: &mut Spoken) {
        if let Some((registrar, record)) = before.latest() {
            spoken.registered = Some(Heard {
                value: Some(Registered {
                    weight: record.weight,
                    zone: record.zone.clone(),
                    by: format!(
                        "registered at {registrar}, which ended that: it is more than one peer may take away"
                    ),
                }),
                peer: registrar.to_string(),
                why: None,
            });
        }
        if let Some(joined) = &before.joined {
            let value = Membership::Joins(joined.weight);
            let by = joined.by.clone();
            spoken.member = Some(Heard {
                value: Some(Said { value, by }),
                peer: joined.origin.to_string(),
                why: None,
            });
        }
    }

    /// The footing to remember: who said first that it joins stays the first.
    fn footing(&self, sight: &Sight<'_>, addr: &EndpointAddr, brake: &Brake) -> Footing {
        let mut footing = self.footing.clone();
        let before = brake.footing(&sight.spec.name, addr);
        let before = before.and_then(|before| before.joined.as_ref());
        if let (Some(joined), Some(before)) = (&mut footing.joined, before) {
            joined.first = before.first;
        }
        footing
    }
}

/// What an operator says, if it still holds and is said in its place.
fn word<'f>(sight: &Sight<'_>, fact: &'f Fact) -> Option<(Word, &'f overrides::By)> {
    let (Key::Override { part, .. }, Value::Said { word, by }) = (&fact.key, &fact.value) else {
        return None;
    };
    let is_over = by.expires_unix_ms.is_some_and(|end| end <= sight.unix_ms);
    (word.field() == *part && !is_over).then_some((*word, by))
}

#[cfg(test)]
mod tests;
