//! This process as a peer of its fleet: sockets and clocks around [`Peer`], and the way between it and what is
//! live here.
//!
//! One task on the control runtime, [`run`]: it reads what waits before it looks at the clock (or its own absence
//! would look like that of others), lets the peer do what is due, sends what it wants sent, and hands on what is
//! new. A stream is a task of its own. Nothing here waits for a worker, nor a worker for it. A fault of the peer ends
//! the fleet for this process, and nothing else (`guard`).
//!
//! Locks: `Live` first, then the peer; never the other way round.

mod guard;
mod meter;
mod run;
mod save;
mod seeds;
mod shell;
mod start;
mod status;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Clock, Nanos};
use crate::config::{self, Name};
use crate::fleet::Now;
use crate::fleet::duty::{Changes, Subject};
use crate::fleet::fact::{Fact, Key, Value};
use crate::fleet::facts::Flaw;
use crate::fleet::id::PeerId;
use crate::fleet::peer::{self, NotRegistered, Peer, StreamId};
use crate::fleet::seal::Keyring;
use crate::fleet::standing::{Seen, Terms};
use crate::health::checker::Vote;
use crate::health::duty::{Duty, Role};
use crate::telemetry::metrics::fleet::{FleetCells, VerdictTo};
use crate::upstream::overrides::{Changed, Told};
use crate::upstream::{Endpoint, Health};

pub use run::run;
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
    /// The peer has failed so, and is asked no more.
    stopped: Option<String>,
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
        // Where the fleet has ended it holds here all the same.
        self.with(|state| {
            for part in parts {
                let (key, value) = words(upstream, endpoint, part);
                if let Err(flaw) = say(&mut state.peer, key, value, now) {
                    // Whoever says something has asked before; of what is recalled, nobody could.
                    tracing::error!(
                        "fleet: what was said of endpoint {endpoint} of upstream `{upstream}` cannot be told to the \
                         other peers, and does not hold: {flaw}; when that is mended, say it again"
                    );
                }
            }
            state.is_to_be_saved = true;
        });
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
        let could = self.with(|state| {
            parts.iter().try_for_each(|part| {
                let (key, value) = words(upstream, endpoint, part.clone());
                state.peer.could_say(key, value)
            })
        });
        // Where the fleet has ended nobody is told.
        could.unwrap_or(Ok(()))
    }

    /// Upstreams of which the fleet says something else than when it was last asked.
    pub fn news(&self) -> BTreeSet<Name> {
        let news = self.with(|state| state.peer.news().upstreams);
        news.unwrap_or_default()
    }

    /// Whether there is something for [`news`](Self::news) or [`duty_changes`](Self::duty_changes).
    fn has_news(&self) -> bool {
        let has_news = self.with(|state| state.peer.has_news());
        has_news.unwrap_or(false)
    }

    /// All that the fleet says of an upstream; `seen` is what its endpoints are here. `None` = the fleet has ended here:
    /// what it said last holds.
    pub fn told(
        &self,
        spec: &config::Upstream,
        seen: &dyn Fn(&EndpointAddr) -> Seen,
    ) -> Option<Told> {
        let now = self.now();
        self.with(|state| state.peer.told(spec, seen, now))
    }

    /// Whether what is held of what is said of an upstream depends on what checks find of one of these endpoints.
    pub fn hangs_on_any<'a>(
        &self,
        upstream: &str,
        endpoints: impl IntoIterator<Item = &'a EndpointAddr>,
    ) -> bool {
        let mut endpoints = endpoints.into_iter();
        let hangs = self.with(|state| {
            let brake = state.peer.brake();
            endpoints.any(|endpoint| brake.hangs_on(upstream, endpoint))
        });
        hangs.unwrap_or(false)
    }

    /// An endpoint registers here, or renews that; at whom. `None` = the fleet has ended here.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn register(
        &self,
        upstream: &Name,
        endpoint: &EndpointAddr,
        terms: Terms,
    ) -> Option<Result<PeerId, NotRegistered>> {
        let now = self.now();
        let registered = self.with(|state| {
            state.peer.register(upstream, endpoint, terms, now)?;
            Ok(state.peer.id())
        });
        self.0.wake.notify_one();
        registered
    }

    /// An endpoint takes back that it registered here; whether it had.
    pub fn deregister(&self, upstream: &Name, endpoint: &EndpointAddr) -> bool {
        let now = self.now();
        let was_there = self.with(|state| state.peer.deregister(upstream, endpoint, now));
        self.0.wake.notify_one();
        was_there.unwrap_or(false)
    }

    /// Whether an endpoint is registered here.
    pub fn is_registered(&self, upstream: &str, endpoint: &EndpointAddr) -> bool {
        let is_registered = self.with(|state| state.peer.is_registered(upstream, endpoint));
        is_registered.unwrap_or(false)
    }

    /// Whether an endpoint is registered at anybody.
    pub fn has_registration(&self, upstream: &str, endpoint: &EndpointAddr) -> bool {
        let is_registered = |fact: &Fact| matches!(fact.value, Value::Registered { .. });
        let has_one = self.with(|state| {
            let mut facts = state.peer.facts().of_endpoint(upstream, endpoint);
            facts.any(is_registered)
        });
        has_one.unwrap_or(false)
    }

    /// Whether nothing is taken in, since a successor starts.
    pub fn is_frozen(&self) -> bool {
        self.state().is_frozen
    }

    /// Says which configuration is served here: a hash.
    pub fn serves(&self, config: u64) {
        let now = self.now();
        self.with(|state| state.peer.serves(config, now));
        self.0.wake.notify_one();
    }

    /// Goes on with other secrets.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.with(|state| {
            if state.keyring != keyring {
                state.peer.set_keyring(keyring.clone());
                state.keyring = keyring;
            }
        });
    }

    /// Goes on as a new configuration has it, as far as a running peer can; `upstreams` are those that it has.
    pub fn reconfigure(&self, spec: &Arc<config::Fleet>, upstreams: &BTreeSet<Name>) {
        let before = self.0.wanted.swap(spec.clone());
        let now = self.now();
        let terms = peer::Terms {
            max_clock_skew: spec.max_clock_skew,
            max_remove: spec.max_remove,
            probers: spec.probers as usize,
            zone: spec.zone.clone(),
        };
        self.with(|state| {
            state.peer.retain(|name| upstreams.contains(name));
            if before != *spec {
                state.peer.set_terms(terms, now);
                state.is_to_be_resolved |= before.seeds != spec.seeds;
            }
        });
        self.0.wake.notify_one();
    }

    /// How the last reload has it, of which a running peer takes over what does not hang on sockets and identity.
    pub fn wanted(&self) -> Arc<config::Fleet> {
        self.0.wanted.load_full()
    }

    /// Who is checked by the configuration that is served now, and what follows from that.
    pub fn subjects(&self, subjects: Vec<Subject>) -> Changes {
        let now = self.now();
        let changes = self.with(|state| {
            state.peer.set_subjects(subjects);
            state.peer.duty_changes(now)
        });
        self.0.wake.notify_one();
        changes.unwrap_or_default()
    }

    /// What has followed from what peers found since.
    pub fn duty_changes(&self) -> Changes {
        let now = self.now();
        let changes = self.with(|state| state.peer.duty_changes(now));
        changes.unwrap_or_default()
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
        let probers = self.with(|state| {
            let probers = state.peer.duties().probers(upstream, &endpoint.addr);
            probers.to_vec()
        });
        (role, probers.unwrap_or_default())
    }

    /// Says what checks found here.
    pub fn vote(&self, votes: Vec<Vote>) {
        if votes.is_empty() {
            return;
        }
        let now = self.now();
        self.with(|state| {
            for vote in votes {
                state.peer.vote(
                    vote.upstream,
                    vote.endpoint.addr.clone(),
                    vote.passed,
                    vote.check,
                    vote.why,
                    now,
                );
            }
        });
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
