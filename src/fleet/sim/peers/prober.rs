//! The checks of one peer, as far as its fleet shares them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::*;
use crate::base::clock::nanos;
use crate::config::{Check, HealthSpec};
use crate::fleet::duty::{Changes, Subject};
use crate::health::ballot::Ballot;
use crate::health::duty::Role;
use crate::health::schedule::next_in_phase;
use crate::health::threshold::{Evidence, Threshold};
use crate::upstream::Health;

/// All endpoints that are checked; the same for all peers.
#[derive(Clone)]
pub(in crate::fleet::sim) struct World {
    spec: HealthSpec,
    endpoints: usize,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    dead: BTreeSet<EndpointAddr>,
    asked: u64,
    by: BTreeMap<EndpointAddr, BTreeSet<PeerId>>,
}

pub(in crate::fleet::sim) struct Prober {
    world: World,
    me: PeerId,
    watched: BTreeMap<EndpointAddr, Watch>,
    rng: Rng,
    /// How often something was found down that was not.
    falls: usize,
}

struct Watch {
    subject: Subject,
    role: Role,
    ballot: Ballot,
    /// The next check.
    next: Option<Nanos>,
    /// When what was asked is answered, and whether well.
    answers: Vec<(Nanos, bool)>,
    health: Health,
}

// === impl World ===

impl World {
    pub(super) fn new(endpoints: usize, interval: Duration) -> Self {
        let spec = HealthSpec {
            interval,
            down_interval: interval,
            timeout: Duration::from_millis(500),
            ..HealthSpec::usual(Check::Tcp)
        };
        Self {
            spec,
            endpoints,
            state: Rc::default(),
        }
    }

    pub(super) fn kill(&self, n: usize) {
        self.state.borrow_mut().dead.insert(endpoint(n));
    }

    pub(super) fn raise(&self, n: usize) {
        self.state.borrow_mut().dead.remove(&endpoint(n));
    }

    /// How often endpoints were asked, and the most peers that asked one of them, since this was last called.
    pub(super) fn asked(&self) -> (u64, usize) {
        let state = std::mem::take(&mut *self.state.borrow_mut());
        self.state.borrow_mut().dead = state.dead;
        let most = state.by.values().map(BTreeSet::len).max();
        (state.asked, most.unwrap_or(0))
    }
}

// === impl Prober ===

impl Prober {
    pub(super) fn new(world: &World, peer: &mut Peer, seed: u64) -> Self {
        let subject = |n| Subject::new(app(), endpoint(n), None, &world.spec);
        let subjects: Vec<Subject> = (0..world.endpoints).map(subject).collect();
        peer.set_subjects(subjects.clone());
        let watch = |subject: Subject| {
            let watch = Watch {
                role: Role::Spared { is_ruled: false },
                ballot: Ballot::new(Threshold::new(&world.spec)),
                next: None,
                answers: Vec::new(),
                health: Health::Up,
                subject,
            };
            (watch.subject.endpoint.clone(), watch)
        };
        Self {
            world: world.clone(),
            me: peer.id(),
            watched: subjects.into_iter().map(watch).collect(),
            rng: Rng::new(seed),
            falls: 0,
        }
    }

    /// How often the fleet has found an endpoint down that was not.
    pub(super) fn falls(&self) -> usize {
        self.falls
    }

    /// Of how many endpoints it goes by what it finds by itself.
    pub(super) fn alone(&self) -> usize {
        let judged = self.watched.values().filter(|w| w.role.judges());
        judged.count()
    }

    /// How many endpoints the fleet has found down.
    pub(super) fn down(&self) -> usize {
        let down = self.watched.values().filter(|w| w.health == Health::Down);
        down.count()
    }

    /// What a vote is about.
    pub(super) fn check(&self) -> u64 {
        let first = self.watched.values().next();
        first.map_or(0, |watch| watch.subject.check)
    }

    pub(super) fn wake_at(&self) -> Option<Nanos> {
        let watched = self.watched.values();
        let times = watched.flat_map(|w| w.next.into_iter().chain(w.answers.iter().map(|a| a.0)));
        times.min()
    }

    pub(super) fn wake(&mut self, peer: &mut Peer, clock: Now) {
        let spec = self.world.spec.clone();
        for (addr, watch) in &mut self.watched {
            let now = clock.now;
            let due = |(at, passed): &(Nanos, bool)| (*at <= now).then_some(*passed);
            let answers: Vec<bool> = watch.answers.iter().filter_map(due).collect();
            watch.answers.retain(|(at, _)| *at > now);
            for passed in answers {
                let evidence = if passed {
                    Evidence::Passed
                } else {
                    Evidence::Failed
                };
                let vote = watch.ballot.observe(evidence);
                if let Some(passed) = vote.filter(|_| watch.role.votes()) {
                    let check = watch.subject.check;
                    let why = if passed { "" } else { "timed out" };
                    peer.vote(app(), addr.clone(), passed, check, why.to_owned(), clock);
                }
            }
            if watch.next.is_some_and(|at| at <= now) {
                self.world.ask(addr, self.me, watch, now);
                let after = match watch.role {
                    Role::Prober { phase, .. } => {
                        next_in_phase(&spec, Health::Up, phase, clock.unix_ms * 1_000_000)
                    }
                    Role::Alone | Role::Spared { .. } => nanos(spec.interval),
                };
                watch.next = Some(now + after);
            }
        }
    }

    pub(super) fn take(&mut self, changes: Changes, clock: Now) {
        if let Some(duty) = changes.duty {
            for (addr, watch) in &mut self.watched {
                let role = duty.role("app", addr);
                let began = role.asks() && !watch.role.asks();
                if !role.votes() || !watch.role.votes() {
                    watch.ballot = Ballot::new(Threshold::new(&self.world.spec));
                }
                watch.role = role;
                if began {
                    let spread = nanos(self.world.spec.interval) as f64 * self.rng.unit();
                    watch.next = Some(clock.now + spread as Nanos);
                } else if !role.asks() {
                    watch.next = None;
                    watch.answers.clear();
                }
            }
        }
        for ruled in changes.rulings {
            if let Some(watch) = self.watched.get_mut(&ruled.endpoint) {
                let health = ruled.ruling.health().unwrap_or(watch.health);
                let before = std::mem::replace(&mut watch.health, health);
                self.falls += usize::from(before != health && health == Health::Down);
            }
        }
        for (_, addr) in changes.confirm {
            if let Some(watch) = self.watched.get_mut(&addr) {
                self.world.ask(&addr, self.me, watch, clock.now);
            }
        }
    }
}

impl World {
    fn ask(&self, addr: &EndpointAddr, by: PeerId, watch: &mut Watch, now: Nanos) {
        let mut state = self.state.borrow_mut();
        state.asked += 1;
        state.by.entry(addr.clone()).or_default().insert(by);
        let passes = !state.dead.contains(addr);
        let took = if passes {
            1_000_000
        } else {
            nanos(self.spec.timeout)
        };
        watch.answers.push((now + took, passes));
    }
}
