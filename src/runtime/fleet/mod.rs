//! This process as a peer of its fleet: sockets and clocks around [`Peer`], and the way between it and what is
//! live here.
//!
//! One task on the control runtime, [`run`]: it reads what waits before it looks at the clock (or its own absence
//! would look like that of others), lets the peer do what is due, sends what it wants sent, and hands on what is
//! new. A stream is a task of its own. Nothing here waits for a worker, nor a worker for it.
//!
//! Locks: `Live` first, then the peer; never the other way round.

mod meter;
mod start;
mod status;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::addr::{EndpointAddr, canonical};
use crate::base::clock::{Clock, Nanos, nanos};
use crate::config::{self, Name, Seed};
use crate::fleet::Now;
use crate::fleet::duty::{Changes, Subject};
use crate::fleet::fact::{Key, Value};
use crate::fleet::facts::Flaw;
use crate::fleet::facts::snapshot::{self, Image};
use crate::fleet::id::PeerId;
use crate::fleet::peer::{self, NotRegistered, Out, Peer, StreamId};
use crate::fleet::seal::{Greeting, Keyring};
use crate::fleet::standing::Terms;
use crate::health::checker::Vote;
use crate::health::duty::{Duty, Role};
use crate::telemetry::metrics::fleet::{FleetCells, VerdictTo};
use crate::upstream::overrides::{Changed, Told};
use crate::upstream::{Endpoint, Health};

use super::live::Live;
use super::secret_file::random;
use stream::{Event, Link, OUTBOX};

pub use start::{Begun, FleetError, Sockets, advertised, begin};

/// This process in its fleet; clones are the same one.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// As it began: its name, its places.
    spec: Arc<config::Fleet>,
    /// As the last reload has it: what may change while it runs.
    wanted: ArcSwap<config::Fleet>,
    clock: Clock,
    /// Held while what is known is written to its file; taken before `state`.
    saving: Mutex<()>,
    state: Mutex<State>,
    /// Something was said here, and the peer has something to do.
    wake: Notify,
    duty: watch::Sender<Arc<Duty>>,
    at_once: mpsc::Sender<(Name, EndpointAddr)>,
    cells: Arc<FleetCells>,
}

#[derive(Debug)]
struct State {
    peer: Peer,
    keyring: Keyring,
    /// The digest of what was saved last, and when.
    saved: (u64, Nanos),
    /// An operator has spoken: not in a while, but now.
    is_to_be_saved: bool,
    /// The seeds are other ones.
    is_to_be_resolved: bool,
    /// Who waits for what looks at other peers find.
    looks: Vec<(StreamId, status::Look)>,
    /// A successor takes over: nothing is taken in, so that nothing is lost.
    is_frozen: bool,
}

/// What the checker is told by.
#[derive(Debug)]
pub struct Orders {
    /// Whom to ask.
    pub duty: watch::Receiver<Arc<Duty>>,
    /// Whom to ask at once.
    pub at_once: mpsc::Receiver<(Name, EndpointAddr)>,
}

/// Endpoints to be asked at once: more wait for their turn.
const AT_ONCE: usize = 1024;

/// What is read before the clock is looked at: a burst of a thousand facts from three peers.
const READS: usize = 512;

/// Before it is looked again whether a reload has been built.
const BUSY: Duration = Duration::from_millis(5);

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the metrics are written: more often than anybody scrapes.
const METER_EVERY: Duration = Duration::from_secs(1);

/// How often what is known is saved, if it has changed.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// How often it is saved though nothing has changed: what is older than a day is not trusted.
const SAVE_ANYWAY: Duration = Duration::from_secs(60 * 60);

/// How often names of seeds are asked for while somebody is there, and while nobody is.
const RESOLVE_EVERY: Duration = Duration::from_secs(60);
const RESOLVE_ALONE: Duration = Duration::from_secs(5);

/// How often a successor tries to bind what the process before it still holds.
const SUCCEED_EVERY: Duration = Duration::from_millis(20);

/// For all names together.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses taken of names.
const MAX_SEEDS: usize = 256;

// === impl Fleet ===

impl Fleet {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves facts that were merged whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let clock = self.0.clock;
        Now {
            now: clock.now(),
            unix_ms: clock.unix_ms(),
        }
    }

    /// What an operator said here of an endpoint is so in the whole fleet.
    pub fn say(&self, upstream: &Name, endpoint: &EndpointAddr, parts: Vec<Changed>) {
        self.speak(upstream, endpoint, parts, Peer::say_once);
    }

    /// The same, of what was said when the fleet was not told: what was said or taken back since holds.
    pub fn recall(&self, upstream: &Name, endpoint: &EndpointAddr, parts: Vec<Changed>) {
        self.speak(
            upstream,
            endpoint,
            parts,
            |peer, key, value, now| match &value {
                Value::Said { by, .. } => {
                    let at = by.since_unix_ms;
                    peer.recall(key, value, at, now)
                }
                _ => Ok(()),
            },
        );
    }

    fn speak(
        &self,
        upstream: &Name,
        endpoint: &EndpointAddr,
        parts: Vec<Changed>,
        say: fn(&mut Peer, Key, Value, Now) -> Result<(), Flaw>,
    ) {
        let now = self.now();
        let mut state = self.state();
        for part in parts {
            let (key, value) = words(upstream, endpoint, part);
            if let Err(flaw) = say(&mut state.peer, key, value, now) {
                // Whoever says something has asked before; of what is recalled, nobody could.
                tracing::error!(
                    "fleet: what was said of endpoint {endpoint} of upstream `{upstream}` cannot be told to the other \
                     peers, and does not hold: {flaw}; when that is mended, say it again"
                );
            }
        }
        state.is_to_be_saved = true;
        drop(state);
        self.0.wake.notify_one();
    }

    /// Whether all that could be told to the fleet.
    ///
    /// # Errors
    /// Why not.
    pub fn could_say(
        &self,
        upstream: &Name,
        endpoint: &EndpointAddr,
        parts: &[Changed],
    ) -> Result<(), Flaw> {
        let state = self.state();
        parts.iter().try_for_each(|part| {
            let (key, value) = words(upstream, endpoint, part.clone());
            state.peer.could_say(key, value)
        })
    }

    /// Upstreams of which the fleet says something else than when it was last asked.
    pub fn news(&self) -> BTreeSet<Name> {
        self.state().peer.news().upstreams
    }

    /// All that the fleet says of an upstream; `is_down` is what checks found here.
    pub fn told(&self, spec: &config::Upstream, is_down: &dyn Fn(&EndpointAddr) -> bool) -> Told {
        let now = self.now();
        self.state().peer.told(spec, is_down, now)
    }

    /// Checks find these endpoints of an upstream up.
    pub fn pass<'a>(&self, upstream: &str, up: impl IntoIterator<Item = &'a EndpointAddr>) {
        self.state().peer.pass(upstream, up);
    }

    /// Whether something is held of what is said of an upstream, until checks find its endpoints down or up.
    pub fn holds(&self, upstream: &str) -> bool {
        let state = self.state();
        state
            .peer
            .brake()
            .held()
            .any(|(name, ..)| &**name == upstream)
    }

    /// An endpoint registers here, or renews that; at whom.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn register(
        &self,
        upstream: &Name,
        endpoint: &EndpointAddr,
        terms: Terms,
    ) -> Result<PeerId, NotRegistered> {
        let now = self.now();
        let mut state = self.state();
        state.peer.register(upstream, endpoint, terms, now)?;
        let id = state.peer.id();
        drop(state);
        self.0.wake.notify_one();
        Ok(id)
    }

    /// An endpoint takes back that it registered here; whether it had.
    pub fn deregister(&self, upstream: &Name, endpoint: &EndpointAddr) -> bool {
        let now = self.now();
        let was_there = self.state().peer.deregister(upstream, endpoint, now);
        self.0.wake.notify_one();
        was_there
    }

    /// Whether an endpoint is registered here.
    pub fn is_registered(&self, upstream: &str, endpoint: &EndpointAddr) -> bool {
        self.state().peer.is_registered(upstream, endpoint)
    }

    /// Whether an endpoint is registered at anybody.
    pub fn has_registration(&self, upstream: &str, endpoint: &EndpointAddr) -> bool {
        let state = self.state();
        let mut facts = state.peer.facts().of_endpoint(upstream, endpoint);
        facts.any(|fact| matches!(fact.value, Value::Registered { .. }))
    }

    /// Whether nothing is taken in, since a successor starts.
    pub fn is_frozen(&self) -> bool {
        self.state().is_frozen
    }

    /// Says which configuration is served here: a hash.
    pub fn serves(&self, config: u64) {
        let now = self.now();
        self.state().peer.serves(config, now);
        self.0.wake.notify_one();
    }

    /// Goes on with other secrets.
    pub fn set_keyring(&self, keyring: Keyring) {
        let mut state = self.state();
        if state.keyring != keyring {
            state.peer.set_keyring(keyring.clone());
            state.keyring = keyring;
        }
    }

    /// Goes on as a new configuration has it, as far as a running peer can; `upstreams` are those that it has.
    pub fn reconfigure(&self, spec: &Arc<config::Fleet>, upstreams: &BTreeSet<Name>) {
        let before = self.0.wanted.swap(spec.clone());
        let now = self.now();
        let mut state = self.state();
        state.peer.retain(|name| upstreams.contains(name));
        if before == *spec {
            return;
        }
        let terms = peer::Terms {
            max_clock_skew: spec.max_clock_skew,
            max_remove: spec.max_remove,
            probers: spec.probers as usize,
            zone: spec.zone.clone(),
        };
        state.peer.set_terms(terms, now);
        state.is_to_be_resolved |= before.seeds != spec.seeds;
        drop(state);
        self.0.wake.notify_one();
    }

    /// How the last reload has it, of which a running peer takes over what does not hang on sockets and identity.
    pub fn wanted(&self) -> Arc<config::Fleet> {
        self.0.wanted.load_full()
    }

    /// Who is checked by the configuration that is served now, and what follows from that.
    pub fn subjects(&self, subjects: Vec<Subject>) -> Changes {
        let now = self.now();
        let mut state = self.state();
        state.peer.set_subjects(subjects);
        let changes = state.peer.duty_changes(now);
        drop(state);
        self.0.wake.notify_one();
        changes
    }

    /// What has followed from what peers found since.
    pub fn duty_changes(&self) -> Changes {
        let now = self.now();
        self.state().peer.duty_changes(now)
    }

    /// Tells the checker, once what the fleet says is in force.
    pub fn order(&self, changes: &Changes) {
        for ruled in &changes.rulings {
            let to = match ruled.ruling.health() {
                Some(Health::Up) => VerdictTo::Up,
                Some(Health::Down) => VerdictTo::Down,
                Some(Health::Unchecked) | None => continue,
            };
            self.0.cells.verdicts(to).inc();
        }
        if let Some(duty) = &changes.duty {
            self.0.duty.send_replace(duty.clone());
        }
        for (upstream, endpoint) in &changes.confirm {
            // Those that do not fit are asked when it is their turn.
            let _ = self
                .0
                .at_once
                .try_send((upstream.clone(), endpoint.clone()));
        }
    }

    /// What this process does about the health of an endpoint, as the checker was told last.
    pub fn role(&self, upstream: &str, endpoint: &EndpointAddr) -> Role {
        self.0.duty.borrow().role(upstream, endpoint)
    }

    /// The same, and the peers that check it, this one among them if it does; none = it is not shared.
    pub fn shares(&self, upstream: &str, endpoint: &Endpoint) -> (Role, Vec<PeerId>) {
        let role = self.role(upstream, &endpoint.addr);
        if role == Role::Alone {
            return (role, Vec::new());
        }
        let state = self.state();
        let probers = state.peer.duties().probers(upstream, &endpoint.addr);
        (role, probers.to_vec())
    }

    /// Says what checks found here.
    pub fn vote(&self, votes: Vec<Vote>) {
        if votes.is_empty() {
            return;
        }
        let now = self.now();
        let mut state = self.state();
        for vote in votes {
            let endpoint = vote.endpoint.addr.clone();
            state.peer.vote(
                vote.upstream,
                endpoint,
                vote.passed,
                vote.check,
                vote.why,
                now,
            );
        }
        drop(state);
        self.0.wake.notify_one();
    }

    /// Nothing is taken in while a successor starts; what is known is saved for it.
    pub fn freeze(&self, is_frozen: bool) {
        self.state().is_frozen = is_frozen;
        if is_frozen {
            self.write();
        }
        // What came meanwhile waits to be taken in.
        self.0.wake.notify_one();
    }

    /// Writes what is known to its file, if it has changed and the file is not a successor's by now.
    fn save(&self) {
        if !self.is_frozen() {
            self.write();
        }
    }

    fn write(&self) {
        let Some(folder) = &self.0.spec.state_dir else {
            return;
        };
        // Two at once would write into one temporary file, and the older one could be the last.
        let saving = &self.0.saving;
        let _saving = saving.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let (image, root) = {
            let state = self.state();
            let root = state.peer.facts().root();
            let (saved, at) = state.saved;
            if root == saved && now.now < at.saturating_add(nanos(SAVE_ANYWAY)) {
                return;
            }
            let name = &self.0.spec.name;
            let mut facts: Vec<_> = state.peer.facts().iter().collect();
            let mut of = now.unix_ms;
            if let Some(past) = state.peer.past() {
                // Not decided yet: the next process decides, and has to know how old it is.
                facts.extend(past.facts());
                of = past.saved_unix_ms();
            }
            let image = Image::with(state.peer.id(), name, of, facts);
            (image, root)
        };
        match snapshot::save(folder, &image) {
            Ok(()) => self.state().saved = (root, now.now),
            Err(error) => tracing::error!(
                %error,
                "fleet: what is known holds, but would be lost by a restart while all others are away"
            ),
        }
    }
}

/// What an operator has changed, as a fact has it.
fn words(upstream: &Name, endpoint: &EndpointAddr, (part, word): Changed) -> (Key, Value) {
    let key = Key::Override {
        upstream: upstream.clone(),
        endpoint: endpoint.clone(),
        part,
    };
    (
        key,
        word.map_or(Value::Gone, |(word, by)| Value::Said { word, by }),
    )
}

/// Runs until `stop`, then tells the others that this peer goes (if nobody takes its place) and saves what it
/// knows. Cancel safe: what is lost then is that farewell.
pub async fn run(
    fleet: Fleet,
    sockets: Option<Sockets>,
    live: Arc<Mutex<Live>>,
    stop: CancellationToken,
) {
    let bound = if let Some(sockets) = sockets {
        Some(sockets)
    } else {
        tokio::select! {
            bound = succeed(&fleet) => Some(bound),
            () = stop.cancelled() => None,
        }
    };
    let Some(bound) = bound else {
        return;
    };
    let (udp, tcp) = match bound.into_tokio() {
        Ok(both) => both,
        Err(error) => {
            tracing::error!(%error, "fleet: its sockets cannot be used, this peer is alone");
            return stop.cancelled().await;
        }
    };
    let (events, mut inbox) = mpsc::channel(64);
    let mut shell = Shell {
        fleet,
        udp,
        tasks: JoinSet::new(),
        links: HashMap::new(),
        events,
        buffer: vec![0; 2048],
    };
    meter::begin(&shell.fleet.0.cells);
    let mut next_meter = 0;
    let mut hand_on_at = 0;
    let mut accept_at = 0;
    // At once: who it is, if it is new.
    let mut next_save = 0;
    let mut saving: JoinSet<()> = JoinSet::new();
    let mut next_resolve = 0;
    let mut resolving: JoinSet<Vec<SocketAddr>> = JoinSet::new();
    loop {
        // 1 what waits, before the clock is looked at
        let is_full = shell.read();
        // 2 what is due
        let now = shell.fleet.now();
        if shell.fleet.state().peer.wake_at() <= now.now {
            shell.fleet.state().peer.wake(now);
        }
        // 3 what it wants
        shell.act();
        shell.fleet.answer_looks();
        // 4 what is new
        let mut is_busy = false;
        if now.now >= hand_on_at {
            let began = shell.fleet.now().now;
            is_busy = !hand_on(&shell.fleet, &live);
            let ended = shell.fleet.now().now;
            // Members of a large upstream take milliseconds to build: at most a fifth of the time.
            hand_on_at = ended.saturating_add(4 * ended.saturating_sub(began));
        }
        if now.now >= next_meter {
            next_meter = now.now.saturating_add(nanos(METER_EVERY));
            meter::write(&shell.fleet.0.cells, &shell.fleet.state().peer, now);
        }
        if saving.is_empty() && (now.now >= next_save || shell.fleet.state().is_to_be_saved) {
            next_save = now.now.saturating_add(nanos(SAVE_EVERY));
            shell.fleet.state().is_to_be_saved = false;
            let fleet = shell.fleet.clone();
            saving.spawn_blocking(move || fleet.save());
        }
        if resolving.is_empty()
            && (now.now >= next_resolve || shell.fleet.state().is_to_be_resolved)
        {
            shell.fleet.state().is_to_be_resolved = false;
            let is_alone = shell.fleet.state().peer.live().is_empty();
            let every = if is_alone {
                RESOLVE_ALONE
            } else {
                RESOLVE_EVERY
            };
            next_resolve = now.now.saturating_add(nanos(every));
            resolving.spawn(resolve(shell.fleet.wanted().seeds.clone()));
        }
        // 5 until there is more
        let at = shell.fleet.state().peer.wake_at();
        // What is being saved ends, and that wakes this.
        let next_save_at = if saving.is_empty() {
            next_save
        } else {
            Nanos::MAX
        };
        let at = at
            .min(next_save_at)
            .min(next_meter)
            .min(next_resolve.max(now.now + 1));
        let mut wait = Duration::from_nanos(at.saturating_sub(shell.fleet.now().now));
        if is_busy {
            wait = wait.min(BUSY);
        } else if shell.fleet.state().peer.has_news() {
            let after = hand_on_at.saturating_sub(shell.fleet.now().now);
            wait = wait.min(Duration::from_nanos(after).max(BUSY));
        }
        let now = shell.fleet.now().now;
        if accept_at > now {
            wait = wait.min(Duration::from_nanos(accept_at - now));
        }
        if is_full {
            // Others on this thread, checks among them, have their turn, however much comes.
            tokio::task::yield_now().await;
        }
        let notified = shell.fleet.0.wake.notified();
        // Each arm may be dropped: all of them are cancel-safe.
        tokio::select! {
            _ = shell.udp.readable() => {}
            accepted = tcp.accept(), if accept_at <= now => match accepted {
                Ok((stream, from)) => shell.accept(stream, from),
                // No descriptors are left, most likely: asked again at once it would say so again.
                Err(_) => accept_at = now.saturating_add(nanos(PAUSE)),
            },
            Some(event) = inbox.recv() => shell.heed(event),
            Some(_) = shell.tasks.join_next() => {}
            Some(_) = saving.join_next() => {}
            Some(found) = resolving.join_next() => {
                // Where nothing is found, those from before are still the best guess.
                if let Ok(seeds) = found && !seeds.is_empty() {
                    let now = shell.fleet.now();
                    shell.fleet.state().peer.set_seeds(seeds, now);
                }
            }
            () = notified => {}
            () = sleep(wait) => {}
            () = stop.cancelled() => break,
        }
        while let Ok(event) = inbox.try_recv() {
            shell.heed(event);
        }
    }
    let fleet = shell.fleet.clone();
    if !fleet.state().is_frozen {
        fleet.state().peer.leave(fleet.now());
        shell.act();
    }
    fleet.save();
    // The others ask no more for this process, which has still to know whom its last clients can be sent to.
    fleet.0.duty.send_replace(Arc::default());
}

/// Binds when the process before has let go. Cancel safe.
async fn succeed(fleet: &Fleet) -> Sockets {
    loop {
        // What is said here meanwhile is told when there is somebody to tell.
        match Sockets::bind(fleet.0.spec.bind) {
            Ok(sockets) => return sockets,
            Err(_in_use) => sleep(SUCCEED_EVERY).await,
        }
    }
}

/// Hands on what is new; `false` = a reload holds the lock, and it is to be tried again.
fn hand_on(fleet: &Fleet, live: &Mutex<Live>) -> bool {
    if !fleet.state().peer.has_news() {
        return true;
    }
    match live.try_lock() {
        Ok(mut live) => live.heed_fleet(),
        Err(TryLockError::Poisoned(error)) => error.into_inner().heed_fleet(),
        Err(TryLockError::WouldBlock) => return false,
    }
    true
}

/// The addresses of seeds. Cancel safe.
async fn resolve(seeds: Vec<Seed>) -> Vec<SocketAddr> {
    let mut found = BTreeSet::new();
    let mut asking = JoinSet::new();
    for seed in seeds {
        match seed {
            Seed::Addr(addr) => {
                found.insert(addr);
            }
            Seed::Dns { name, port } => {
                asking.spawn(async move {
                    let addrs = tokio::net::lookup_host((name.as_str(), port)).await;
                    let addrs = addrs.map(Iterator::collect::<Vec<_>>);
                    addrs.inspect_err(
                        |error| tracing::debug!(name, %error, "fleet: seed cannot be resolved"),
                    )
                });
            }
        }
    }
    // What was found in time will do: one server that is silent keeps nobody from the other names.
    let answers = async {
        while let Some(answer) = asking.join_next().await {
            found.extend(answer.into_iter().flatten().flatten());
        }
    };
    let _ = timeout(RESOLVE_TIMEOUT, answers).await;
    found.into_iter().take(MAX_SEEDS).collect()
}

/// The sockets of a peer, and the tasks of its streams.
struct Shell {
    fleet: Fleet,
    udp: UdpSocket,
    tasks: JoinSet<()>,
    links: HashMap<StreamId, mpsc::Sender<Vec<u8>>>,
    events: mpsc::Sender<Event>,
    buffer: Vec<u8>,
}

// === impl Shell ===

impl Shell {
    /// Takes the datagrams that wait; whether there may be more.
    fn read(&mut self) -> bool {
        let now = self.fleet.now();
        let mut state = self.fleet.state();
        for _ in 0..READS {
            match self.udp.try_recv_from(&mut self.buffer) {
                Ok((length, _from)) => state.peer.datagram(&self.buffer[..length], now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // What ICMP says of a datagram that was sent: membership finds out.
                Err(_) => {}
            }
        }
        true
    }

    /// Does what the peer wants done.
    fn act(&mut self) {
        loop {
            let Some(out) = self.fleet.state().peer.poll() else {
                return;
            };
            match out {
                Out::Datagram { to, bytes } => {
                    // Lost on this machine or on its way is the same: it is said again, or compared.
                    let _ = self.udp.try_send_to(&bytes, to);
                }
                Out::Dial { stream, to, .. } => self.dial(stream, to),
                Out::Message { stream, bytes } => {
                    let sent = self.links.get(&stream).map(|link| link.try_send(bytes));
                    if !matches!(sent, Some(Ok(()))) {
                        self.links.remove(&stream);
                        self.fleet.state().peer.closed(stream);
                    }
                }
                Out::Close { stream } => {
                    self.links.remove(&stream);
                }
            }
        }
    }

    fn dial(&mut self, stream: StreamId, to: SocketAddr) {
        let Ok(random) = random() else {
            return self.fleet.state().peer.closed(stream);
        };
        let (keyring, me) = {
            let state = self.fleet.state();
            (state.keyring.clone(), state.peer.id())
        };
        let greeting = Greeting::first(&keyring, me, random);
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        self.links.insert(stream, outbox);
        let events = self.events.clone();
        self.tasks
            .spawn(stream::dial(stream, to, keyring, greeting, waiting, events));
    }

    fn accept(&mut self, tcp: tokio::net::TcpStream, from: SocketAddr) {
        /// Tasks at once: those of this peer's own streams, those it serves, and as many that prove nothing.
        const MAX_TASKS: usize = 64;
        /// Of them for who comes from where no member is: connections of strangers keep no member out.
        const MAX_STRANGERS: usize = 32;
        let (keyring, me, is_members) = {
            let state = self.fleet.state();
            let mut live = state.peer.live().values();
            let is_members = live.any(|(member, _)| member.addr.ip() == canonical(from).ip());
            (state.keyring.clone(), state.peer.id(), is_members)
        };
        let places = if is_members { MAX_TASKS } else { MAX_STRANGERS };
        if self.tasks.len() >= places {
            return;
        }
        let Ok(random) = random() else {
            return;
        };
        let events = self.events.clone();
        self.tasks
            .spawn(stream::answer(tcp, from, keyring, me, random, events));
    }

    fn heed(&mut self, event: Event) {
        let now = self.fleet.now();
        let mut state = self.fleet.state();
        match event {
            Event::Accepted { peer, link } => {
                if let Some(stream) = state.peer.accepted(peer, now) {
                    let Link { outbox, name } = link;
                    self.links.insert(stream, outbox);
                    // Who has gone since says nothing more.
                    let _ = name.send(stream);
                }
            }
            Event::Opened { stream, peer } => state.peer.opened(stream, peer, now),
            Event::Message { stream, bytes } => state.peer.message(stream, &bytes, now),
            Event::Closed { stream } => {
                self.links.remove(&stream);
                state.peer.closed(stream);
            }
        }
    }
}
