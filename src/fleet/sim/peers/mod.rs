//! Fleets of whole peers: what is said anywhere is known everywhere, whatever happens on the way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::members::{addr, peer};
use super::{Heard, Link, Machine, Net, Now, Sent, Weather, each_seed, is_long};
use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::base::rng::Rng;
use crate::config::{self, Name};
use crate::fleet::fact::{About, Fact, GC_AFTER, Key, Part, Value, Word};
use crate::fleet::facts::Facts;
use crate::fleet::id::PeerId;
use crate::fleet::membership::Identity;
use crate::fleet::peer::{Out, Peer, Settings, StreamId};
use crate::fleet::seal::Keyring;
use crate::fleet::standing::{Seen, Terms};
use crate::upstream::overrides::{By, Spoken, Told};

mod absence;
mod clocks;
mod converge;
mod cost;
mod health;
mod liar;
mod newcomer;
mod prober;
mod registrars;
mod strangers;

use prober::Prober;

/// A peer, and what drives it.
pub(super) struct Whole {
    pub(super) peer: Peer,
    links: HashMap<StreamId, Link>,
    streams: BTreeMap<Link, StreamId>,
    /// Whom it dials, by the token of that.
    dials: HashMap<u64, PeerId>,
    /// Sent before what it says itself: streams that it does not want, and what a test makes it send.
    pub(super) extra: VecDeque<Sent>,
    /// All that it sent and to whom, if that is recorded.
    pub(super) tape: Option<Vec<(SocketAddr, Vec<u8>)>>,
    pub(super) prober: Option<Prober>,
}

/// What a fleet has in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) keyring: Keyring,
    pub(super) seed: u64,
    /// What it checks, if it does.
    pub(super) world: Option<prober::World>,
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
        let prober = self.prober.as_ref().and_then(Prober::wake_at);
        Some(prober.map_or(self.peer.wake_at(), |at| at.min(self.peer.wake_at())))
    }

    fn wake(&mut self, clock: Now) {
        self.peer.wake(clock);
        if let Some(prober) = &mut self.prober {
            prober.wake(&mut self.peer, clock);
        }
        self.follow(clock);
    }

    fn poll(&mut self) -> Option<Sent> {
        if let Some(sent) = self.extra.pop_front() {
            return Some(sent);
        }
        loop {
            match self.peer.poll()? {
                Out::Datagram { to, bytes } => {
                    if let Some(tape) = &mut self.tape {
                        tape.push((to, bytes.clone()));
                    }
                    return Some(Sent::Datagram { to, bytes });
                }
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
                None => self.extra.push_back(Sent::Close { link }),
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
            extra: VecDeque::new(),
            tape: None,
            prober: None,
        }
    }

    fn link(&mut self, stream: StreamId, link: Link) {
        self.links.insert(stream, link);
        self.streams.insert(link, stream);
    }

    /// Takes in what is new.
    fn follow(&mut self, clock: Now) {
        let Some(prober) = &mut self.prober else {
            return;
        };
        while self.peer.has_news() {
            self.peer.news();
            prober.take(self.peer.duty_changes(clock), clock);
        }
    }
}

// === impl Common ===

impl Common {
    pub(super) fn new(seed: u64) -> Self {
        let secret: Box<[u8]> = (*b"a secret of the fleet in the simulator").into();
        Self {
            keyring: Keyring::new("sim", [secret]).expect("one secret"),
            seed,
            world: None,
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
        move |clock| {
            let mut whole = Whole::new(common.settings(index, facts, clock), clock);
            if let Some(world) = &common.world {
                let seed = common.seed ^ index as u64;
                whole.prober = Some(Prober::new(world, &mut whole.peer, seed));
                whole.follow(clock);
            }
            whole
        }
    }

    /// One that begins with nothing.
    pub(super) fn fresh(&self, index: usize) -> impl FnOnce(Now) -> Whole {
        let common = self.clone();
        move |clock| {
            let mut settings = common.settings(index, Facts::default(), clock);
            settings.about.knows_since_unix_ms = clock.unix_ms;
            Whole::new(settings, clock)
        }
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

    /// The same, but nobody has to look for anybody: how a thousand meet is not what costs or fails.
    pub(super) fn met_fleet(&self, n: usize) -> Fleet {
        let mut net = Net::new(self.seed, OVERHEAD);
        for index in 0..n {
            net.add(addr(index), self.start(index, Facts::default()));
        }
        let all: Vec<Identity> = net
            .running()
            .map(|(_, machine)| machine.peer.membership().me())
            .collect();
        for index in 0..n {
            let others = all.iter().copied().filter(|id| id.peer != peer(index));
            net.with(index, |machine, clock| machine.peer.meet(others, clock));
        }
        assert!(is_one(&net));
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

/// The upstream of these tests as the file has it, with so many endpoints.
pub(super) fn upstream(listed: usize) -> config::Upstream {
    let list: Vec<String> = (0..listed).map(|n| format!("'{}'", endpoint(n))).collect();
    let text = format!(
        "[listeners.web]\nbind = ':8080'\nupstream = 'app'\n[upstreams.app]\ndynamic = true\nendpoints = [{}]\n",
        list.join(", ")
    );
    let config = config::parse("sim", &text).expect("it is right").config;
    config.upstreams[0].clone()
}

/// What the fleet says of it at a peer that has seen none of its endpoints.
pub(super) fn told_at(net: &mut Fleet, index: usize, spec: &config::Upstream) -> Told {
    net.with(index, |machine, clock| {
        machine.peer.told(spec, &|_| Seen::Unknown, clock)
    })
}

/// How many endpoints are registered, as a peer sees it.
pub(super) fn registered_at(net: &mut Fleet, index: usize, spec: &config::Upstream) -> usize {
    let told = told_at(net, index, spec);
    let is_there = |spoken: &&Spoken| {
        let registered = spoken.registered.as_ref();
        registered.is_some_and(|heard| heard.value.is_some())
    };
    told.values().filter(is_there).count()
}

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn register(net: &mut Fleet, at: usize, n: usize, ttl: Duration) {
    net.with(at, |machine, clock| {
        let registered = machine
            .peer
            .register(&app(), &endpoint(n), terms(ttl), clock);
        registered.unwrap();
    });
}

pub(super) fn say(net: &mut Fleet, at: usize, n: usize, word: Option<Word>) {
    net.with(at, |machine, clock| {
        let value = word.map_or(Value::Gone, |word| said(word, clock));
        machine.peer.say(state_of(n), value, clock).unwrap();
    });
}

/// What a peer says of itself, as another one has it.
pub(super) fn about_of(net: &Fleet, at: usize, of: usize) -> About {
    let fact = net.get(at).unwrap().peer.facts().get(&Key::Peer(peer(of)));
    match fact.map(|fact| &fact.value) {
        Some(Value::Peer(about)) => about.clone(),
        other => panic!("{other:?}"),
    }
}

/// What a peer has of the state of an endpoint.
pub(super) fn word_at(net: &Fleet, at: usize, n: usize) -> Option<Word> {
    let fact = net.get(at)?.peer.facts().get(&state_of(n))?;
    match &fact.value {
        Value::Said { word, .. } => Some(*word),
        _ => None,
    }
}
