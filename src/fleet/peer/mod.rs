//! One peer, whole, as a machine: datagrams, messages of streams and the time go in, datagrams and messages come
//! out, and what it knows can be asked. It has no sockets and reads no clock, so a thousand of them run in one
//! test; `runtime::fleet` gives one of them a socket.
//!
//! ```text
//! datagram -> seal::Opener -> Membership                      -> who is there
//!                          -> facts -> clock -> merge -> push  -> news: which upstreams say something else now
//! every 10 s: compare with a peer over a stream -> merge -> push
//! ```
//! A file for each thing that it does: `hearing`, `speaking`, `sending`, `streams` (comparing), `waking` (what is due),
//! `meeting` (who comes and goes), `learning` (what the others knew before it came), `past` (what it knew before it
//! was away), `setback` (a clock that was wrong); and what the facts mean: `standing`, `health`.

mod counts;
mod health;
mod hearing;
mod learning;
mod meeting;
mod past;
mod sending;
mod setback;
mod speaking;
mod standing;
mod streams;
#[cfg(test)]
mod tests;
mod waking;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::Name;

use super::Now;
use super::duty::Duties;
use super::fact::{About, Fact, Key, Value};
use super::facts::{Facts, Quarantine};
use super::id::PeerId;
use super::membership::{Identity, Membership};
use super::push::Push;
use super::seal::{Keyring, MAX_PAYLOAD, Opener, Sealer, Session};
use super::stamp::HybridClock;
use super::standing::{Brake, Leases, Orphans};

pub use counts::{Count, Counts};
use learning::Learning;
pub use past::Past;
use setback::Setback;
pub use standing::NotRegistered;
use streams::Streams;
pub use streams::{StreamId, Synced};
use waking::{CHORES_EVERY, REFRESH_EVERY, STALL};

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
            learning: Learning::Alone(None),
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
}
