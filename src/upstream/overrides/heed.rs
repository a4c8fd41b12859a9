//! What a fleet says of an upstream: all of it at once, in place of what was there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::base::addr::EndpointAddr;
use crate::config::{self, Name};

use super::{
    AdminState, By, Effective, Field, Ground, MAX_ENTRIES, MAX_WEIGHT, Membership, Overrides,
    Parts, Said, Word, is_bounded, is_usable,
};

/// Most endpoints of one upstream that are members because they registered; more are passed over.
pub const MAX_REGISTERED: usize = 10_000;

/// All that a fleet says of one upstream. Endpoints that are not in it are as the file has them.
pub type Told = BTreeMap<EndpointAddr, Spoken>;

/// All that a fleet says of one endpoint; by default, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// Whether it has registered itself.
    pub registered: Option<Heard<Registered>>,
    /// Whether it joins or leaves.
    pub member: Option<Heard<Said<Membership>>>,
    /// Its state.
    pub state: Option<Heard<Said<AdminState>>>,
    /// Its weight.
    pub weight: Option<Heard<Said<u32>>>,
    /// What is said and has no effect for now.
    pub held: Vec<Held>,
    /// It is a member that gets no picks before a check has found it up: one peer has added more than it may
    /// without that.
    pub is_unproven: bool,
}

/// One thing as the fleet has it: what holds, or that it no longer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard<T> {
    /// What holds; `None` = nothing any more.
    pub value: Option<T>,
    /// The peer whose word it is: that said so, or that took back what was said before.
    pub peer: String,
    /// Why nothing holds, for people (`it has expired`); `None` = it was taken back.
    pub why: Option<String>,
}

/// An endpoint that registered itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its weight.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<Name>,
    /// At whom, for people: `registered at 1f2e… and 1 more`.
    pub by: String,
}

/// Something said that the brake holds: it would take away more than one peer may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What is said.
    pub word: Word,
    /// By whom.
    pub by: By,
    /// At which peer.
    pub peer: String,
    /// Since when it is held, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// What became of what a fleet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heeded {
    /// What has changed for endpoints, in their order: for the history. Empty: no new generation is needed.
    pub effects: Vec<Effect>,
    /// Things that were passed over: they are beyond a bound, or cannot be.
    pub left_out: usize,
}

/// One thing that has changed for one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Of which upstream.
    pub upstream: Name,
    /// Which endpoint.
    pub endpoint: EndpointAddr,
    /// What of it.
    pub field: Field,
    /// What it was: `member` or `none`, a state, a weight.
    pub from: String,
    /// What it is.
    pub to: String,
    /// The peer whose word did it, where one is known.
    pub peer: Option<String>,
    /// One sentence for people, which names the peer.
    pub text: String,
}

/// What is known of an endpoint beside what operators say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elsewhere {
    pub(super) registered: Option<Registered>,
    pub(super) held: Vec<Held>,
    /// It waits for a check to find it up.
    pub(super) is_unproven: bool,
    /// The peers at which its parts were said, by [`Field`].
    pub(super) peers: [Option<String>; 3],
}

// === impl Overrides ===

impl Overrides {
    /// Takes in all that a fleet says of an upstream, in place of what was said of it before.
    pub fn heed(&mut self, mut told: Told, spec: &config::Upstream) -> Heeded {
        let name = &spec.name;
        let old = self.upstreams.remove(name).unwrap_or_default();
        let old_elsewhere = self.fleet.remove(name).unwrap_or_default();
        let room = MAX_ENTRIES.saturating_sub(self.len());
        let mut desk = Desk {
            old: &old,
            old_elsewhere: &old_elsewhere,
            parts: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            registered: 0,
            room,
            left_out: 0,
        };
        // What was there before keeps its place: nobody loses it to a flood.
        let (known, new): (Vec<_>, Vec<_>) = told.iter().partition(|(addr, _)| desk.knows(addr));
        for (addr, spoken) in known.into_iter().chain(new) {
            desk.seat(addr, spoken);
        }
        let Desk {
            parts,
            elsewhere,
            left_out,
            ..
        } = desk;
        let listed: HashMap<&EndpointAddr, u32> =
            spec.endpoints.iter().map(|e| (&e.addr, e.weight)).collect();
        let touched: BTreeSet<&EndpointAddr> = old
            .keys()
            .chain(old_elsewhere.keys())
            .chain(parts.keys())
            .chain(elsewhere.keys())
            .collect();
        let mut effects = Vec::new();
        for addr in touched {
            let on = |elsewhere: &BTreeMap<EndpointAddr, Elsewhere>, parts| {
                let ground = Ground {
                    is_dynamic: spec.dynamic,
                    listed: listed.get(addr).copied(),
                    registered: elsewhere.get(addr).and_then(|e| e.registered.as_ref()),
                    is_unproven: elsewhere.get(addr).is_some_and(|e| e.is_unproven),
                };
                ground.effective(parts)
            };
            let before = on(&old_elsewhere, old.get(addr));
            let after = on(&elsewhere, parts.get(addr));
            let unproven = |of: &BTreeMap<EndpointAddr, Elsewhere>| {
                of.get(addr).is_some_and(|e| e.is_unproven)
            };
            let was_unproven = before.is_some() && unproven(&old_elsewhere);
            let is_unproven = after.is_some() && unproven(&elsewhere);
            if before == after && was_unproven == is_unproven {
                continue;
            }
            let spoken = told.remove(addr).unwrap_or_default();
            let turn = Turn {
                upstream: name,
                endpoint: addr,
                spoken: &spoken,
                is_dynamic: spec.dynamic,
                old: old.get(addr),
                was_unproven,
                is_unproven,
            };
            turn.tell(before, after, &mut effects);
        }
        if !parts.is_empty() {
            self.upstreams.insert(name.clone(), parts);
        }
        self.fleet.insert(name.clone(), Arc::new(elsewhere));
        Heeded { effects, left_out }
    }

    /// Whether a fleet has spoken of an upstream.
    pub(super) fn is_fleets(&self, upstream: &str) -> bool {
        self.fleet.contains_key(upstream)
    }

    /// How an endpoint has registered itself.
    pub fn registered(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<&Registered> {
        self.elsewhere(upstream, endpoint)?.registered.as_ref()
    }

    /// What is said of an endpoint and has no effect for now.
    pub fn held(&self, upstream: &str, endpoint: &EndpointAddr) -> &[Held] {
        let elsewhere = self.elsewhere(upstream, endpoint);
        elsewhere.map_or(&[], |elsewhere| &elsewhere.held)
    }

    pub(super) fn elsewhere(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<&Elsewhere> {
        self.fleet.get(upstream)?.get(endpoint)
    }

    /// Notes that an operator has spoken here: what peers said of these parts no longer counts.
    pub(super) fn speak(&mut self, upstream: &str, endpoint: &EndpointAddr, fields: &[Field]) {
        let Some(all) = self.fleet.get_mut(upstream) else {
            return;
        };
        if !all.contains_key(endpoint) {
            return;
        }
        let all = Arc::make_mut(all);
        let Some(elsewhere) = all.get_mut(endpoint) else {
            return;
        };
        elsewhere
            .held
            .retain(|held| !fields.contains(&held.word.field()));
        for field in fields {
            elsewhere.peers[*field as usize] = None;
        }
        if *elsewhere == Elsewhere::default() {
            all.remove(endpoint);
        }
    }
}

/// An upstream being told anew.
struct Desk<'a> {
    old: &'a BTreeMap<EndpointAddr, Parts>,
    old_elsewhere: &'a BTreeMap<EndpointAddr, Elsewhere>,
    parts: BTreeMap<EndpointAddr, Parts>,
    elsewhere: BTreeMap<EndpointAddr, Elsewhere>,
    registered: usize,
    /// How many endpoints operators may speak of here.
    room: usize,
    left_out: usize,
}

// === impl Desk ===

impl Desk<'_> {
    fn knows(&self, addr: &EndpointAddr) -> bool {
        self.old.contains_key(addr) || self.old_elsewhere.contains_key(addr)
    }

    /// Takes in what is said of one endpoint, as far as it can be.
    fn seat(&mut self, addr: &EndpointAddr, spoken: &Spoken) {
        if !is_usable(addr) {
            self.left_out += 1;
            return;
        }
        let mut elsewhere = Elsewhere::default();
        if let Some(registered) = value(spoken.registered.as_ref()) {
            if registered.weight <= MAX_WEIGHT && self.registered < MAX_REGISTERED {
                self.registered += 1;
                elsewhere.registered = Some(registered.clone());
            } else {
                self.left_out += 1;
            }
        }
        let mut parts = Parts::default();
        for (word, by, peer) in spoken.words() {
            if is_sound(word, by) {
                elsewhere.peers[word.field() as usize] = Some(peer.clone());
                parts.say(word, by.clone());
            } else {
                self.left_out += 1;
            }
        }
        elsewhere.held.clone_from(&spoken.held);
        elsewhere.is_unproven = spoken.is_unproven;
        if !parts.is_empty() {
            if self.parts.len() < self.room {
                self.parts.insert(addr.clone(), parts);
            } else {
                self.left_out += 1;
                elsewhere.peers = [None, None, None];
            }
        }
        if elsewhere != Elsewhere::default() {
            self.elsewhere.insert(addr.clone(), elsewhere);
        }
    }
}

/// Whether an operator can have said so.
fn is_sound(word: Word, by: &By) -> bool {
    let (Word::Joins(weight) | Word::Weight(weight)) = word else {
        return is_bounded(by);
    };
    weight <= MAX_WEIGHT && is_bounded(by)
}

fn value<T>(heard: Option<&Heard<T>>) -> Option<&T> {
    heard?.value.as_ref()
}

// === impl Spoken ===

impl Spoken {
    /// What operators say, with the peer that it was said at.
    fn words(&self) -> impl Iterator<Item = (Word, &By, &String)> {
        let member = self.member.as_ref().and_then(|heard| {
            let said = heard.value.as_ref()?;
            Some((said.value.into(), &said.by, &heard.peer))
        });
        let state = self.state.as_ref().and_then(|heard| {
            let said = heard.value.as_ref()?;
            Some((said.value.into(), &said.by, &heard.peer))
        });
        let weight = self.weight.as_ref().and_then(|heard| {
            let said = heard.value.as_ref()?;
            Some((Word::Weight(said.value), &said.by, &heard.peer))
        });
        [member, state, weight].into_iter().flatten()
    }
}

/// One endpoint for which something has changed.
struct Turn<'a> {
    upstream: &'a Name,
    endpoint: &'a EndpointAddr,
    spoken: &'a Spoken,
    is_dynamic: bool,
    old: Option<&'a Parts>,
    /// It waited for a check.
    was_unproven: bool,
    /// It waits for one.
    is_unproven: bool,
}

/// Who did it, and what is to be said of that.
#[derive(Default)]
struct Blame {
    peer: Option<String>,
    text: String,
}

// === impl Turn ===

impl Turn<'_> {
    fn tell(&self, before: Option<Effective>, after: Option<Effective>, effects: &mut Vec<Effect>) {
        let member = |is: Option<Effective>| is.map_or("none", |_| "member").to_owned();
        let (was, is) = match (before, after) {
            (Some(was), Some(is)) => (was, is),
            (_, Some(is)) => {
                let state = is.state.map(AdminState::as_str);
                let state = state.map_or(String::new(), |state| format!(", {state}"));
                let waits = if self.is_unproven {
                    ", without picks before a check has found it up"
                } else {
                    ""
                };
                let what = format!("joins with weight {}{state}{waits}", is.weight);
                effects.push(self.effect(
                    Field::Member,
                    (member(before), member(after)),
                    &what,
                    self.joined(),
                ));
                return;
            }
            (_, None) => {
                let words = (member(before), member(after));
                effects.push(self.effect(Field::Member, words, "leaves", self.left()));
                return;
            }
        };
        if was.state != is.state {
            let (from, to) = (AdminState::word(was.state), AdminState::word(is.state));
            let words = (from.to_owned(), to.to_owned());
            let what = format!("{from} -> {to}");
            effects.push(self.effect(Field::State, words, &what, self.stated()));
        }
        if self.was_unproven != self.is_unproven {
            effects.push(self.proven());
        }
        if was.weight != is.weight {
            let what = format!("weight {} -> {}", was.weight, is.weight);
            let words = (was.weight.to_string(), is.weight.to_string());
            effects.push(self.effect(Field::Weight, words, &what, self.weighed()));
        }
    }

    fn effect(
        &self,
        field: Field,
        (from, to): (String, String),
        what: &str,
        blame: Blame,
    ) -> Effect {
        let (upstream, endpoint) = (self.upstream, self.endpoint);
        let Blame { peer, text } = blame;
        Effect {
            text: format!("upstream `{upstream}`, endpoint {endpoint}: {what}{text}"),
            upstream: upstream.clone(),
            endpoint: endpoint.clone(),
            field,
            from,
            to,
            peer,
        }
    }

    /// Why it is a member now and was none.
    fn joined(&self) -> Blame {
        let member = self.spoken.member.as_ref();
        // An operator added it, or took back that it leaves.
        let member = member.filter(|heard| heard.value.is_some() || self.left_before());
        let registered = self.spoken.registered.as_ref();
        let registered = registered.filter(|heard| heard.value.is_some());
        member
            .map(Blame::of)
            .or_else(|| registered.map(Blame::registered))
            .unwrap_or_default()
    }

    /// Why it is no member now and was one.
    fn left(&self) -> Blame {
        let member = self.spoken.member.as_ref();
        let joined = self.old.is_some_and(Parts::joins);
        let leaves = |said: &Said<Membership>| said.value == Membership::Leaves;
        let member = member.filter(|heard| joined || heard.value.as_ref().is_some_and(leaves));
        let registered = self.spoken.registered.as_ref();
        member
            .map(Blame::of)
            .or_else(|| registered.map(Blame::registered))
            .unwrap_or_default()
    }

    /// Why its state is another one.
    fn stated(&self) -> Blame {
        self.spoken
            .state
            .as_ref()
            .map(Blame::of)
            .unwrap_or_default()
    }

    /// It was added, and nothing more is asked of it, or it is to be found up first after all.
    fn proven(&self) -> Effect {
        let (awaited, used) = ("awaited", "used");
        let (from, to, what) = if self.was_unproven {
            (awaited, used, "what was added is used now")
        } else {
            (used, awaited, "no picks before a check has found it up")
        };
        let member = self.spoken.member.as_ref().map(|heard| &heard.peer);
        let registered = self.spoken.registered.as_ref().map(|heard| &heard.peer);
        let blame = Blame {
            peer: member.or(registered).cloned(),
            text: String::new(),
        };
        let words = (from.to_owned(), to.to_owned());
        self.effect(Field::State, words, what, blame)
    }

    /// Why its weight is another one.
    fn weighed(&self) -> Blame {
        let now = value(self.spoken.weight.as_ref());
        if self.old.and_then(|old| old.weight.as_ref()) != now {
            return self
                .spoken
                .weight
                .as_ref()
                .map(Blame::of)
                .unwrap_or_default();
        }
        // Beneath it: the weight of the addition, or of the registration.
        let now = value(self.spoken.member.as_ref());
        if self.is_dynamic && self.old.and_then(|old| old.member.as_ref()) != now {
            return self
                .spoken
                .member
                .as_ref()
                .map(Blame::of)
                .unwrap_or_default();
        }
        let registered = self.spoken.registered.as_ref();
        registered.map(Blame::registered).unwrap_or_default()
    }

    fn left_before(&self) -> bool {
        self.old.is_some_and(|old| old.leaves().is_some())
    }
}

// === impl Blame ===

impl Blame {
    /// Of what an operator said, or took back.
    fn of<T>(heard: &Heard<Said<T>>) -> Self {
        let peer = &heard.peer;
        let text = match (&heard.value, &heard.why) {
            (Some(said), _) => {
                let By { owner, reason, .. } = &said.by;
                let reason = match reason.as_str() {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                };
                format!(", by {owner} at peer {peer}{reason}")
            }
            (None, Some(why)) => format!(", said at peer {peer}: {why}"),
            (None, None) => format!(", taken back at peer {peer}"),
        };
        Self {
            peer: Some(peer.clone()),
            text,
        }
    }

    /// Of a registration.
    fn registered(heard: &Heard<Registered>) -> Self {
        let peer = &heard.peer;
        let text = match (&heard.value, &heard.why) {
            (Some(registered), _) => format!(", {}", registered.by),
            (None, Some(why)) => format!(", registered at peer {peer}: {why}"),
            (None, None) => format!(", no longer registered at peer {peer}"),
        };
        Self {
            peer: Some(peer.clone()),
            text,
        }
    }
}
