//! One peer, whole, as a machine: datagrams, messages of streams and the time go in, datagrams and messages come
//! out, and what it knows can be asked. It has no sockets and reads no clock, so a thousand of them run in one
//! test; `runtime::fleet` gives one of them a socket.
//!
//! ```text
//! datagram -> seal::Opener -> Membership                      -> who is there
//!                          -> facts -> clock -> merge -> push  -> news: which upstreams say something else now
//! every 10 s: compare with a peer over a stream -> merge -> push
//! ```

mod health;
mod learning;
mod past;
mod setback;
mod standing;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::Name;

use super::Now;
use super::duty::Duties;
use super::fact::{About, Fact, GC_AFTER, Key, Value};
use super::facts::{Facts, Flaw, MAX_OF_ORIGIN, Merged, Quarantine};
use super::id::PeerId;
use super::membership::{self, Identity, Membership};
use super::push::{self, Push};
use super::seal::{Keyring, Kind, MAX_PAYLOAD, Opened, Opener, Refusal, Sealer, Session};
use super::stamp::{HybridClock, Stamp};
use super::standing::{Brake, Leases, Orphans};

use learning::Learning;
pub use past::Past;
use setback::Setback;
pub use standing::NotRegistered;
use streams::Streams;
pub use streams::{StreamId, Synced};

/// What makes a peer.
#[derive(Debug)]
pub struct Settings {
    /// Who it is.
    pub peer: PeerId,
    /// Where others reach it.
    pub addr: SocketAddr,
    /// What the fleet's secrets are.
    pub keyring: Keyring,
    /// Random, drawn anew at each start.
    pub session: Session,
    /// What it says of itself.
    pub about: About,
    /// How far clocks may differ.
    pub max_clock_skew: Duration,
    /// What it knew when it last ran.
    pub facts: Facts,
    /// How many peers check each endpoint.
    pub probers: usize,
    /// The share of an upstream's endpoints that one peer may take away.
    pub max_remove: f64,
    /// Decides whom it speaks to.
    pub seed: u64,
}

/// What of [`Settings`] may change while it runs.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How far clocks may differ.
    pub max_clock_skew: Duration,
    /// The share of an upstream's endpoints that one peer may take away.
    pub max_remove: f64,
    /// How many peers check each endpoint.
    pub probers: usize,
    /// Where it stands.
    pub zone: Option<Name>,
}

/// What a peer wants done.
#[derive(Debug)]
pub enum Out {
    /// Send this.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Connect to a peer; [`Peer::opened`] when that is done, [`Peer::closed`] when it cannot be.
    Dial {
        /// What it is to be called.
        stream: StreamId,
        /// Whom.
        peer: PeerId,
        /// Where.
        to: SocketAddr,
    },
    /// Send this, as one record.
    Message {
        /// On which stream.
        stream: StreamId,
        /// What.
        bytes: Vec<u8>,
    },
    /// End a stream, once what was sent on it has gone.
    Close {
        /// Which.
        stream: StreamId,
    },
}

/// What is new since it was last asked.
#[derive(Debug, Default)]
pub struct News {
    /// Upstreams of which something else is said.
    pub upstreams: BTreeSet<Name>,
}

/// A peer that is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its last life.
    pub identity: Identity,
    /// Since when this peer knows.
    pub since: Nanos,
    /// It said that it goes; else it was found not to answer.
    pub left: bool,
}

/// What a peer knows of another.
#[derive(Clone, Debug)]
pub struct Contact {
    /// When it was last heard of directly.
    pub at: Nanos,
    /// Its clock minus ours, in milliseconds, at that time.
    pub skew_ms: i64,
    /// The last of its sessions that was heard while its clock agreed with ours.
    session: Option<Session>,
}

/// What it has counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// What was sent, without headers of IP, UDP and TCP: membership, facts, streams.
    pub sent: [Count; 3],
    /// What was received and understood, likewise.
    pub received: [Count; 3],
    /// Datagrams refused, by why.
    pub refused: BTreeMap<&'static str, u64>,
    /// Facts refused, by why.
    pub flaws: BTreeMap<&'static str, u64>,
    /// Facts that were news.
    pub merged: u64,
    /// Comparisons that found something different.
    pub synced: u64,
    /// Comparisons that found nothing.
    pub equal: u64,
    /// Comparisons that did not.
    pub unsynced: u64,
    /// How long this process stood still, in all.
    pub stalled: Nanos,
    /// How old the last fact was when it came here, in milliseconds; `None` = none has come.
    pub lag_ms: Option<u64>,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Bytes.
    pub bytes: u64,
    /// Datagrams, or messages of streams.
    pub messages: u64,
}

/// A peer.
#[derive(Debug)]
pub struct Peer {
    me: PeerId,
    addr: SocketAddr,
    /// What it says of itself.
    about: About,
    sealer: Sealer,
    opener: Opener,
    membership: Membership,
    facts: Facts,
    /// What it knew when it last ran, if that is too long ago to be told.
    past: Option<Past>,
    /// What is known to have been taken back before all were away.
    ended: BTreeMap<Key, Fact>,
    quarantine: Quarantine,
    /// Those who have said as much as one may.
    noisy: BTreeSet<PeerId>,
    duties: Duties,
    leases: Leases,
    orphans: Orphans,
    brake: Brake,
    learning: Learning,
    /// When which upstream is to be looked at again though nothing is said.
    again: BTreeMap<Name, Nanos>,
    clock: HybridClock,
    setback: Setback,
    push: Push,
    streams: Streams,
    rng: Rng,
    max_clock_skew: Duration,
    contacts: HashMap<PeerId, Contact>,
    /// Those who are there, and since when; without this peer.
    live: BTreeMap<PeerId, (Identity, Nanos)>,
    /// Those who are not.
    gone: BTreeMap<PeerId, Gone>,
    next_push: Nanos,
    next_sync: Nanos,
    /// Whom to compare with then.
    sync_with: Option<PeerId>,
    next_chores: Nanos,
    /// Whether it stands still, if somebody counts on it.
    next_look: Nanos,
    /// When it was to be woken when it last was; what comes after that and before it is woken changes the times.
    expected: Nanos,
    next_refresh: Nanos,
    news: News,
    /// Somebody came, went, or says something else of himself.
    has_moved: bool,
    /// The time has come to look at the duties, which whoever drives it does.
    is_duty_due: bool,
    counts: Counts,
    out: VecDeque<Out>,
}

/// Between comparisons, ± 20 %.
const SYNC_EVERY: Duration = Duration::from_secs(10);

/// How soon after somebody came (back): what a partition kept apart is equal again at once.
const SYNC_SOON: Duration = Duration::from_secs(1);

/// How many compare with somebody who comes back, on average.
const SYNC_SOON_PEERS: usize = 3;

/// Collecting, and looking whose registrations have ended.
const CHORES_EVERY: Duration = Duration::from_secs(10);

/// What only this peer may say is said again so often: others forget it when its stamp is older than
/// [`GC_AFTER`] and this peer is not there.
const REFRESH_EVERY: Duration = Duration::from_secs(GC_AFTER.as_secs() / 4);

/// A timer that comes later than this was held up by something: this process stood still.
const STALL: Duration = Duration::from_secs(1);

/// Contacts remembered beside those of members.
const MAX_CONTACTS: usize = 4096;

/// Of how many it is remembered that they have said as much as one may: fewer fit a store twice over.
const MAX_NOISY: usize = 64;

/// Where the traffic of streams is counted.
const STREAMS: usize = 2;

// === impl Count ===

impl Count {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.messages += 1;
    }
}

// === impl Peer ===

impl Peer {
    /// A peer that begins now, with what it knew.
    pub fn new(settings: Settings, now: Now) -> Self {
        let mut rng = Rng::new(settings.seed);
        let me = settings.peer;
        let identity = Identity {
            peer: me,
            addr: settings.addr,
            incarnation: settings.about.started_unix_ms,
        };
        let membership = Membership::new(identity, rng.next_u64(), MAX_PAYLOAD, now.now);
        let mut peer = Self {
            me,
            addr: settings.addr,
            about: settings.about,
            sealer: Sealer::new(&settings.keyring, me, settings.session),
            opener: Opener::new(settings.keyring, me),
            membership,
            facts: settings.facts,
            past: None,
            ended: BTreeMap::new(),
            quarantine: Quarantine::default(),
            noisy: BTreeSet::new(),
            duties: Duties::new(me, settings.probers),
            leases: Leases::default(),
            orphans: Orphans::default(),
            brake: Brake::learning(settings.max_remove),
            learning: Learning::default(),
            again: BTreeMap::new(),
            clock: HybridClock::default(),
            setback: Setback::new(now),
            push: Push::default(),
            streams: Streams::default(),
            rng,
            max_clock_skew: settings.max_clock_skew,
            contacts: HashMap::new(),
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            next_push: now.now,
            next_sync: now.now,
            sync_with: None,
            next_look: now.now.saturating_add(nanos(STALL)),
            expected: now.now.saturating_add(nanos(STALL)),
            next_chores: now.now.saturating_add(nanos(CHORES_EVERY)),
            next_refresh: now.now.saturating_add(nanos(REFRESH_EVERY)),
            news: News::default(),
            has_moved: false,
            is_duty_due: false,
            counts: Counts::default(),
            out: VecDeque::new(),
        };
        // What was said before was said before: the clock of this machine may have been set back since.
        peer.hear_all(now);
        // What a process says of itself is in order.
        let _ = peer.say(Key::Peer(me), Value::Peer(peer.about.clone()), now);
        peer.news.upstreams = peer.facts.upstreams().cloned().collect();
        let own: Vec<_> = peer
            .facts
            .iter()
            .filter(|fact| fact.key.writer() == Some(me))
            .cloned()
            .collect();
        for fact in &own {
            peer.lease(fact, now.now);
        }
        peer.place_peers();
        // The others still know what an earlier life found.
        peer.count_votes_since(identity, 0, now.now);
        peer
    }

    /// Whom it may ask for the others.
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>, now: Now) {
        self.membership.set_seeds(seeds, now.now);
        self.after_membership(now);
    }

    /// Goes on with other secrets.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.sealer.set_keyring(&keyring);
        self.opener.set_keyring(keyring);
    }

    /// Goes on with other settings.
    pub fn set_terms(&mut self, terms: Terms, now: Now) {
        self.max_clock_skew = terms.max_clock_skew;
        self.brake.set_max_remove(terms.max_remove);
        // What is held may be more now, or less.
        let held: Vec<_> = self.brake.upstreams().cloned().collect();
        self.news.upstreams.extend(held);
        self.duties.set_k(terms.probers);
        self.is_duty_due = true;
        self.about.zone = terms.zone;
        self.introduce(now);
    }

    /// Forgets what has had effect in upstreams that are gone.
    pub fn retain(&mut self, is_there: impl FnMut(&Name) -> bool) {
        self.brake.retain(is_there);
    }

    /// Says which configuration is served here: a hash.
    pub fn serves(&mut self, config: u64, now: Now) {
        self.about.config = config;
        self.introduce(now);
    }

    /// Knows that these are there from now on, as after a while with them.
    #[cfg(test)]
    pub(crate) fn meet(&mut self, others: impl Iterator<Item = Identity>, now: Now) {
        self.membership.meet(others, now.now);
        self.after_membership(now);
    }

    /// Who it is.
    pub fn id(&self) -> PeerId {
        self.me
    }

    /// Where others reach it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All that it knows.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Who is there beside it.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The other peers that are there, and since when.
    pub fn live(&self) -> &BTreeMap<PeerId, (Identity, Nanos)> {
        &self.live
    }

    /// Those that are not there.
    pub fn gone(&self) -> &BTreeMap<PeerId, Gone> {
        &self.gone
    }

    /// When others were last heard of.
    pub fn contacts(&self) -> &HashMap<PeerId, Contact> {
        &self.contacts
    }

    /// What it has counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many facts have still to be told.
    pub fn untold(&self) -> usize {
        self.push.len()
    }

    /// How the last comparison went.
    pub fn synced(&self) -> Option<&Synced> {
        self.streams.synced.as_ref()
    }

    /// Whether there is something new to be asked for, here or in [`duty_changes`](Self::duty_changes).
    pub fn has_news(&self) -> bool {
        !self.news.upstreams.is_empty()
            || self.has_moved
            || self.is_duty_due
            || self.duties.is_due()
    }

    /// What is new since it was last asked.
    pub fn news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// The facts that could not be so.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// The next of what it wants done.
    pub fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

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

    /// When [`wake`](Self::wake) is to be called next.
    pub fn wake_at(&self) -> Nanos {
        let mut at = self.next_chores.min(self.next_refresh);
        let again = self.again.values().copied().min();
        let duty = self.duties.next_due().filter(|_| !self.is_duty_due);
        let end = self.leases.next_end().map(|at| at.min(self.next_look));
        let others = [duty, end, again, self.leases.next_due()];
        at = others.into_iter().flatten().fold(at, Nanos::min);
        if !self.live.is_empty() {
            at = at.min(self.next_sync);
            if !self.push.is_empty() {
                at = at.min(self.next_push);
            }
        }
        let streams = self.streams.wake_at().into_iter();
        streams
            .chain(self.membership.wake_at())
            .fold(at, Nanos::min)
    }

    /// Does what is due. Whoever drives it has handed it the datagrams first that wait in its socket.
    pub fn wake(&mut self, now: Now) {
        let late = now.now.saturating_sub(self.expected);
        if late > nanos(STALL) {
            self.counts.stalled += late;
            self.leases.stalled(Duration::from_nanos(late));
        }
        let ahead_ms = self.setback.notice(now, self.max_clock_skew);
        if ahead_ms > 0 {
            self.began_later(ahead_ms, now);
        }
        self.is_duty_due |= self.duties.next_due().is_some_and(|at| at <= now.now);
        self.membership.wake(now.now);
        self.after_membership(now);
        if now.now >= self.next_push && !self.push.is_empty() {
            self.push_round(now);
        }
        if now.now >= self.next_sync {
            self.sync(now);
        }
        self.expire_streams(now.now);
        self.end_leases(now);
        self.say_changes(now);
        self.look_again(now.now);
        if now.now >= self.next_chores {
            self.next_chores = now.now.saturating_add(nanos(CHORES_EVERY));
            let forgotten = now.now.saturating_sub(nanos(GC_AFTER));
            let live = &self.live;
            // Who is alone remembers all: they may come back.
            self.gone
                .retain(|_, gone| gone.since >= forgotten || live.is_empty());
            self.contacts
                .retain(|peer, contact| contact.at >= forgotten || live.contains_key(peer));
            self.mend_clock(now);
            self.introduce(now);
            self.learn(now.now);
            self.look_back(now);
            let facts = &self.facts;
            self.noisy
                .retain(|origin| facts.of_origin(*origin) > MAX_OF_ORIGIN / 2);
            // Who is alone cannot tell who is gone for good.
            let (me, live) = (self.me, &self.live);
            self.facts.collect(now.unix_ms, |peer| {
                peer == me || live.is_empty() || live.contains_key(&peer)
            });
        }
        if now.now >= self.next_refresh {
            self.next_refresh = now.now.saturating_add(nanos(REFRESH_EVERY));
            self.refresh(now);
        }
        self.next_look = now.now.saturating_add(nanos(STALL));
        self.expected = self.wake_at();
    }

    /// Tells the others that this peer goes; what is left to be sent then is the last of it.
    pub fn leave(&mut self, now: Now) {
        if !self.push.is_empty() {
            self.push_round(now);
        }
        self.membership.leave(now.now);
        self.after_membership(now);
    }

    /// Says again what only this peer may say and what it decided, so that nobody takes it for forgotten.
    fn refresh(&mut self, now: Now) {
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
    fn introduce(&mut self, now: Now) {
        // What a process says of itself is in order.
        let _ = self.say_once(Key::Peer(self.me), Value::Peer(self.about.clone()), now);
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
    fn contact(&mut self, peer: PeerId, skew_ms: i64, session: Option<Session>, now: Now) {
        if self.contacts.len() < MAX_CONTACTS || self.contacts.contains_key(&peer) {
            let contact = Contact {
                at: now.now,
                skew_ms,
                session,
            };
            self.contacts.insert(peer, contact);
        }
    }

    fn is_skewed(&self, skew_ms: i64) -> bool {
        u128::from(skew_ms.unsigned_abs()) > self.max_clock_skew.as_millis()
    }

    /// Takes a fact that `from` sent.
    fn take(&mut self, fact: &Fact, from: PeerId, now: Now) {
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
    fn note_news(&mut self, fact: &Fact, before: Option<&Value>, now: Now) {
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

    fn has_past(&self, key: &Key) -> bool {
        self.past.as_ref().is_some_and(|past| past.has(key))
    }

    fn push_round(&mut self, now: Now) {
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

    fn send(&mut self, kind: Kind, to: SocketAddr, payload: &[u8], unix_ms: u64) {
        let mut bytes = Vec::new();
        // It is short enough; a session that is used up after 2^64 datagrams has no more to say.
        if self.sealer.seal(kind, unix_ms, payload, &mut bytes).is_ok() {
            self.counts.sent[kind as usize - 1].add(bytes.len());
            self.out.push_back(Out::Datagram { to, bytes });
        }
    }

    /// Does what membership wants, and takes in what changed.
    fn after_membership(&mut self, now: Now) {
        let had_moved = std::mem::take(&mut self.has_moved);
        while let Some(out) = self.membership.poll() {
            match out {
                membership::Out::Send { to, payload } => {
                    self.send(Kind::Membership, to, &payload, now.unix_ms);
                }
                membership::Out::Up(identity) => self.came(identity, now),
                membership::Out::Renewed { to, .. } => {
                    // Another life may know less: it starts from what it saved.
                    self.live.insert(to.peer, (to, now.now));
                    self.count_votes_since(to, 0, now.now);
                    self.maybe_sync_soon(to.peer, now.now);
                    self.has_moved = true;
                }
                membership::Out::Down { peer, left } => {
                    self.live.remove(&peer.peer);
                    self.orphans.see(self.live.keys().copied(), now.now);
                    if left {
                        self.orphans.left(peer.peer, now.now);
                    }
                    let gone = Gone {
                        identity: peer,
                        since: now.now,
                        left,
                    };
                    self.gone.insert(peer.peer, gone);
                    self.has_moved = true;
                }
                membership::Out::Rejoined(_) => {
                    // Others went on without this peer: it may have missed something.
                    if let Some(peer) = self.any_peer() {
                        self.sync_soon(peer, now.now);
                    }
                }
                membership::Out::Twin(twin) => {
                    *self.counts.refused.entry("twin").or_default() += 1;
                    tracing::error!(
                        "another peer at {} has this peer's identity {}: its `state_dir` was copied; \
                         remove the copy's fleet.facts",
                        twin.addr,
                        self.me
                    );
                }
            }
        }
        if self.has_moved {
            self.see_registrars(now.now);
        }
        self.has_moved |= had_moved;
    }

    fn came(&mut self, identity: Identity, at: Now) {
        let now = at.now;
        let is_first = self.live.is_empty();
        self.has_met(now);
        self.live.insert(identity.peer, (identity, now));
        let was_gone = self.gone.remove(&identity.peer).is_some();
        // What it said while it was away is not known here, and what it said in an earlier life was found then.
        let met_at = if was_gone { at.unix_ms } else { 0 };
        self.count_votes_since(identity, met_at, now);
        self.has_moved = true;
        if is_first {
            // What was due before there was anybody is due now, and not late.
            self.next_push = self.next_push.max(now);
            self.next_sync = self.next_sync.max(now);
            self.sync_soon(identity.peer, now);
        } else if was_gone {
            self.maybe_sync_soon(identity.peer, now);
        }
    }

    /// What a peer found before it began its life, or before it was met again, is not what it finds.
    fn count_votes_since(&mut self, identity: Identity, met_at: u64, now: Nanos) {
        let since = Stamp::at(identity.incarnation.max(met_at));
        self.duties.came(identity.peer, since, now);
    }

    /// Somebody may have missed something. A few of those who see that compare with him: all of a thousand at once
    /// would be too many for him. Where half a fleet comes back, nearly each of the others compares with somebody.
    fn maybe_sync_soon(&mut self, peer: PeerId, now: Nanos) {
        if self.rng.below(self.live.len()) < SYNC_SOON_PEERS {
            self.sync_soon(peer, now);
        }
    }

    fn any_peer(&mut self) -> Option<PeerId> {
        let nth = self.rng.below(self.live.len());
        self.live.keys().nth(nth).copied()
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.counts.refused.entry(refusal.as_str()).or_default() += 1;
    }

    fn flaw(&mut self, why: &'static str) {
        *self.counts.flaws.entry(why).or_default() += 1;
    }
}

fn skew_of(unix_ms: u64, now: Now) -> i64 {
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
