//! Fleets of whole peers: what is said anywhere is known everywhere, whatever happens on the way.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::members::{addr, peer};
use super::{Heard, Link, Machine, Net, Now, Sent, Weather, each_seed, is_long};
use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::base::rng::Rng;
use crate::config::Name;
use crate::fleet::fact::{About, Fact, Key, Part, Value, Word};
use crate::fleet::facts::Facts;
use crate::fleet::id::PeerId;
use crate::fleet::peer::{Out, Peer, Settings, StreamId};
use crate::fleet::seal::Keyring;
use crate::fleet::standing::Terms;
use crate::upstream::overrides::By;

mod converge;

/// A peer, and what drives it.
pub(super) struct Whole {
    pub(super) peer: Peer,
    links: HashMap<StreamId, Link>,
    streams: BTreeMap<Link, StreamId>,
    /// Whom it dials, by the token of that.
    dials: HashMap<u64, PeerId>,
    /// Streams that it does not want.
    refused: Vec<Link>,
}

/// What a fleet has in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) keyring: Keyring,
    pub(super) seed: u64,
}

pub(super) type Fleet = Net<Whole>;

/// Of IPv4 and UDP.
const OVERHEAD: u64 = 28;

// === impl Whole ===

impl Machine for Whole {
    fn datagram(&mut self, _from: SocketAddr, bytes: &[u8], clock: Now) {
        self.peer.datagram(bytes, clock);
        self.follow(clock);
    }

    fn wake_at(&self) -> Option<Nanos> {
        Some(self.peer.wake_at())
    }

    fn wake(&mut self, clock: Now) {
        self.peer.wake(clock);
        self.follow(clock);
    }

    fn poll(&mut self) -> Option<Sent> {
        if let Some(link) = self.refused.pop() {
            return Some(Sent::Close { link });
        }
        loop {
            match self.peer.poll()? {
                Out::Datagram { to, bytes } => return Some(Sent::Datagram { to, bytes }),
                Out::Dial { stream, peer, to } => {
                    self.dials.insert(stream.0, peer);
                    let token = stream.0;
                    return Some(Sent::Dial { to, token });
                }
                Out::Message { stream, bytes } => {
                    if let Some(&link) = self.links.get(&stream) {
                        return Some(Sent::Message { link, bytes });
                    }
                }
                Out::Close { stream } => {
                    if let Some(link) = self.links.remove(&stream) {
                        self.streams.remove(&link);
                        return Some(Sent::Close { link });
                    }
                }
            }
        }
    }

    fn stream(&mut self, heard: Heard<'_>, clock: Now) {
        match heard {
            Heard::Opened { link, token } => {
                if let Some(peer) = self.dials.remove(&token) {
                    self.link(StreamId(token), link);
                    self.peer.opened(StreamId(token), peer, clock);
                }
            }
            Heard::Failed { token } => {
                self.dials.remove(&token);
                self.peer.closed(StreamId(token));
            }
            Heard::Accepted { link, from } => match self.peer.accepted(peer_at(from), clock) {
                Some(stream) => self.link(stream, link),
                None => self.refused.push(link),
            },
            Heard::Message { link, bytes } => {
                if let Some(&stream) = self.streams.get(&link) {
                    self.peer.message(stream, bytes, clock);
                }
            }
            Heard::Closed { link } => {
                if let Some(stream) = self.streams.remove(&link) {
                    self.links.remove(&stream);
                    self.peer.closed(stream);
                }
            }
        }
        self.follow(clock);
    }
}

impl Whole {
    pub(super) fn new(settings: Settings, clock: Now) -> Self {
        let mut peer = Peer::new(settings, clock);
        peer.set_seeds((0..3).map(addr).collect(), clock);
        Self {
            peer,
            links: HashMap::new(),
            streams: BTreeMap::new(),
            dials: HashMap::new(),
            refused: Vec::new(),
        }
    }

    fn link(&mut self, stream: StreamId, link: Link) {
        self.links.insert(stream, link);
        self.streams.insert(link, stream);
    }

    fn follow(&mut self, _clock: Now) {}
}

// === impl Common ===

impl Common {
    pub(super) fn new(seed: u64) -> Self {
        let secret: Box<[u8]> = (*b"a secret of the fleet in the simulator").into();
        Self {
            keyring: Keyring::new("sim", [secret]).expect("one secret"),
            seed,
        }
    }

    /// What makes machine `index`, if it begins now with these facts.
    pub(super) fn settings(&self, index: usize, facts: Facts, clock: Now) -> Settings {
        let mut rng = Rng::new(self.seed ^ (index as u64) << 32 ^ clock.now);
        Settings {
            peer: peer(index),
            addr: addr(index),
            keyring: self.keyring.clone(),
            session: rng.next_u64().to_be_bytes(),
            about: About {
                version: "1.0".to_owned(),
                started_unix_ms: clock.unix_ms,
                ..About::default()
            },
            max_clock_skew: SKEW,
            facts,
            probers: 3,
            max_remove: 0.5,
            seed: rng.next_u64(),
        }
    }

    /// One that begins with these facts.
    pub(super) fn start(&self, index: usize, facts: Facts) -> impl FnOnce(Now) -> Whole {
        let common = self.clone();
        move |clock| Whole::new(common.settings(index, facts, clock), clock)
    }

    /// `n` peers that know each other.
    pub(super) fn fleet(&self, n: usize) -> Fleet {
        let mut net = Net::new(self.seed, OVERHEAD);
        for index in 0..n {
            net.add(addr(index), self.start(index, Facts::default()));
        }
        let joined = net.run_until(Duration::from_secs(120), is_one);
        assert!(joined.is_some(), "{n} peers do not find each other");
        net
    }
}

/// How far clocks may differ.
const SKEW: Duration = Duration::from_secs(5);

/// The number of the machine at an address, and its peer.
pub(super) fn index_of(addr: SocketAddr) -> usize {
    let SocketAddr::V4(addr) = addr else {
        panic!("{addr} is nobody's");
    };
    let [_, _, high, low] = addr.ip().octets();
    usize::from(u16::from_be_bytes([high, low])) - 1
}

fn peer_at(addr: SocketAddr) -> PeerId {
    peer(index_of(addr))
}

/// Everybody who runs knows just those who run.
pub(super) fn is_one(net: &Fleet) -> bool {
    let all = net.running().count() - 1;
    net.running().all(|(_, m)| m.peer.live().len() == all)
}

/// Everybody who runs knows the same.
pub(super) fn is_equal(net: &Fleet) -> bool {
    let mut roots = net.running().map(|(_, m)| m.peer.facts().root());
    let first = roots.next();
    roots.all(|root| Some(root) == first)
}

/// What a machine would find on its disk.
pub(super) fn snapshot(net: &Fleet, index: usize) -> Vec<Fact> {
    let machine = net.get(index).expect("it runs");
    machine.peer.facts().iter().cloned().collect()
}

/// The facts of a snapshot.
pub(super) fn restored(facts: Vec<Fact>, clock: Now) -> Facts {
    let mut restored = Facts::default();
    for fact in facts {
        restored.merge(fact, clock.unix_ms);
    }
    restored
}

/// An endpoint of upstream `app`.
pub(super) fn endpoint(n: usize) -> EndpointAddr {
    let [_, _, high, low] = (n as u32 + 1).to_be_bytes();
    EndpointAddr::Ip((Ipv4Addr::new(10, 9, high, low), 80).into())
}

pub(super) fn app() -> Name {
    "app".into()
}

pub(super) fn terms(ttl: Duration) -> Terms {
    Terms {
        weight: 1,
        zone: None,
        ttl,
    }
}

/// What an operator says.
pub(super) fn said(word: Word, clock: Now) -> Value {
    Value::Said {
        word,
        by: By {
            owner: "uid:0".to_owned(),
            reason: String::new(),
            since_unix_ms: clock.unix_ms,
            expires_unix_ms: None,
        },
    }
}

/// The key of what is said of an endpoint's state.
pub(super) fn state_of(n: usize) -> Key {
    Key::Override {
        upstream: app(),
        endpoint: endpoint(n),
        part: Part::State,
    }
}

/// Something happens at a peer that others are to know: one of the things that operators, endpoints and checks do
/// to one of 60 endpoints.
pub(super) fn happen(machine: &mut Whole, rng: &mut Rng, clock: Now) {
    let peer = &mut machine.peer;
    let n = rng.below(60);
    match rng.below(7) {
        0 => {
            let value = said(Word::Drain, clock);
            peer.say(state_of(n), value, clock).unwrap();
        }
        1 => {
            let value = said(Word::Disable, clock);
            peer.say(state_of(n), value, clock).unwrap();
        }
        2 => peer.say_once(state_of(n), Value::Gone, clock).unwrap(),
        3 => {
            let key = Key::Override {
                upstream: app(),
                endpoint: endpoint(n),
                part: Part::Weight,
            };
            let value = said(Word::Weight(rng.below(100) as u32), clock);
            peer.say(key, value, clock).unwrap();
        }
        4 => {
            let terms = Terms {
                weight: rng.below(10) as u32,
                ..terms(Duration::from_hours(3))
            };
            peer.register(&app(), &endpoint(n), terms, clock).unwrap();
        }
        5 => {
            peer.deregister(&app(), &endpoint(n), clock);
        }
        _ => {
            let passed = rng.below(2) == 0;
            let why = if passed { "" } else { "connect failed" };
            peer.vote(app(), endpoint(n), passed, 1, why.to_owned(), clock);
        }
    }
}

/// At a random peer that runs.
pub(super) fn happen_somewhere(net: &mut Fleet, rng: &mut Rng) {
    let running: Vec<usize> = net.running().map(|(index, _)| index).collect();
    let index = running[rng.below(running.len())];
    net.with(index, |machine, clock| happen(machine, rng, clock));
}
