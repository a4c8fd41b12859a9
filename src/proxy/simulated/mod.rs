//! Workers, endpoints and clients under a virtual clock: no sockets, no waiting, and no threads but in
//! [`limits`].
//!
//! What is real: the configuration, the compiled upstream with its published members, each worker's
//! view of it, tickets, the line, the breaker, the budget, ejections, and what decides on another
//! attempt. What is simulated: clients (Poisson arrivals, open loop), endpoints (queues with so many
//! places), the control thread, and the order in which `attempt.rs` and `queue.rs` ask the real
//! objects, which [`flow`] follows.
//!
//! A run depends on its seed alone (with threads on the scheduler, too). `ISOBAR_SEED=n cargo test --lib simulated` runs every simulation
//! with that one; without it each has a few of its own, more of them under `ISOBAR_LONG=1`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use tokio::sync::mpsc::Receiver;

use crate::balance::Factory;
use crate::base::clock::Nanos;
use crate::base::rng::Rng;
use crate::config::{self, Retry};
use crate::guard::breaker::Change;
use crate::guard::outlier::Trip;
use crate::runtime::compile::{Compiler, FromFiles, Known, Wanted};
use crate::runtime::ejections::{Ejections, Verdict};
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::{
    Admission, Admits, Endpoint, Health, LocalUpstream, Signal, Signals, Ticket, Upstream, Waiter,
};

use super::retry::Tries;

mod breaker;
mod fairness;
mod flow;
mod hedging;
mod last_resort;
mod limits;
mod outage;
mod outliers;
mod overload;
mod slow_endpoint;
mod slow_start;
mod tiers;

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;

/// Not zero, and later than any time that something counts back from.
const BEGIN: Nanos = 1_000 * SECOND;

/// From a signal to the control thread's change of members: a wake-up of another thread.
const CONTROL_LAG: Nanos = MS;

/// What a connect, or an answer without work, takes.
const ROUND_TRIP: Nanos = MS / 5;

/// A simulated proxy with its clients and endpoints.
struct Sim {
    now: Nanos,
    seed: u64,
    upstream: Arc<Upstream>,
    workers: Vec<(LocalUpstream, Rng)>,
    servers: Vec<Server>,
    exchanges: Vec<Option<Exchange>>,
    /// Finished ones, in the order of their ends.
    done: Vec<Done>,
    /// When and where each attempt went.
    attempts: Vec<(Nanos, usize)>,
    /// What the breaker did.
    changes: Vec<(Nanos, Change)>,
    /// When somebody was ejected.
    ejected: Vec<Nanos>,
    retry: &'static Retry,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    scripts: BTreeMap<u64, Script>,
    numbered: u64,
    rng: Rng,
    /// Arrivals a second; 0 = none.
    rate: f64,
    /// Counts changes of the rate: arrivals drawn before one are void.
    phase: u64,
    ejections: Ejections,
    signals: Receiver<Signal>,
    /// On its way to the control thread.
    heard: VecDeque<(Arc<Endpoint>, Trip)>,
    woken: Arc<Mutex<Vec<usize>>>,
    /// A plain queue in the place of the upstream's line, for contrast.
    fifo: Option<VecDeque<(Nanos, usize)>>,
}

/// What a simulation is made of; the texts are TOML.
#[derive(Clone, Copy)]
struct Setup<'t> {
    endpoints: usize,
    workers: usize,
    /// Lines of `[upstreams.app]`.
    upstream: &'t str,
    /// Lines of `[routes.retry]`.
    retry: &'t str,
}

/// An endpoint: a first-come-first-served queue in front of so many places.
#[derive(Clone, Debug)]
struct Server {
    does: Does,
    service: Service,
    /// When each place is free.
    free_at: Vec<Nanos>,
}

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Works on it.
    Serve,
    /// Answers 500 at once.
    Fail,
    /// Says nothing for ever.
    Hang,
    /// Refuses the connection.
    Refuse,
}

/// How long a request takes.
#[derive(Clone, Copy, Debug)]
enum Service {
    Constant(Nanos),
    /// Exponential with this mean.
    Exponential(Nanos),
}

struct Exchange {
    worker: usize,
    arrived: Nanos,
    picked: Nanos,
    /// Attempts so far: what an earlier one still brings is void.
    attempt: u32,
    tries: Tries<'static>,
    ticket: Option<Ticket>,
    /// The second attempt beside the first, and when it began.
    second: Option<(Ticket, Nanos)>,
    admission: Option<Admission>,
    waiting: Option<(Waiter, IsCalled)>,
}

/// Whether it has been called and has not looked for room since.
type IsCalled = bool;

/// What happens at a time.
type Script = Box<dyn FnOnce(&mut Sim)>;

#[derive(Clone, Copy, Debug)]
struct Done {
    arrived: Nanos,
    at: Nanos,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// The endpoint's 500 went to the client.
    Failed,
    Unconnected,
    TimedOut,
    Breaker,
    NoEndpoint,
    QueueFull,
    QueueTimeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive {
        phase: u64,
    },
    Comes {
        exchange: usize,
        attempt: u32,
        what: What,
    },
    Again {
        exchange: usize,
    },
    /// The first attempt is late.
    Late {
        exchange: usize,
    },
    QueueTimeout {
        exchange: usize,
        attempt: u32,
    },
    Heed,
    Tick,
    Script(u64),
}

/// What comes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Answer,
    Error,
    Refusal,
    Timeout,
}

struct Wakes {
    exchange: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

// === impl Setup ===

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            endpoints: 5,
            workers: 4,
            upstream: "",
            retry: "",
        }
    }
}

impl Setup<'_> {
    fn config(&self) -> config::Config {
        let endpoints: Vec<String> = (0..self.endpoints)
            .map(|i| format!("'10.0.0.{i}:80'"))
            .collect();
        self.config_of(&endpoints.join(", "), "")
    }

    /// With these entries of `endpoints`, and more of `[process]`.
    fn config_of(&self, endpoints: &str, process: &str) -> config::Config {
        let text = format!(
            "[process]\n{process}\n[listeners.web]\nbind = ':8080'\n\
             [[routes]]\nupstream = 'app'\n[routes.retry]\n{}\n\
             [upstreams.app]\nendpoints = [{endpoints}]\n{}\n",
            self.retry, self.upstream
        );
        config::parse("simulated.toml", &text)
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
            .config
    }

    fn sim(&self, seed: u64) -> Sim {
        Sim::new(&self.config(), self.workers, seed, None)
    }

    fn with_policy(&self, seed: u64, policy: Factory) -> Sim {
        Sim::new(&self.config(), self.workers, seed, Some(policy))
    }
}

// === impl Sim ===

impl Sim {
    fn new(config: &config::Config, workers: usize, seed: u64, policy: Option<Factory>) -> Self {
        let (sender, signals) = Signals::channel();
        let custom = policy.map(|policy| ("app".to_owned(), policy));
        let registry = Arc::new(Registry::new(workers));
        let mut compiler = Compiler::new(custom.into_iter().collect(), registry, sender, seed);
        let wanted = |spec: &config::Upstream| {
            let endpoints = spec.endpoints.iter();
            endpoints
                .map(|e| Wanted {
                    addr: e.addr.clone(),
                    weight: e.weight,
                    admits: Admits::All,
                    zone: None,
                    is_unproven: false,
                })
                .collect()
        };
        let mut snapshot = compiler.compile(
            config,
            &[0],
            None,
            &Known::new(),
            &FromFiles::default(),
            wanted,
        );
        let upstream = snapshot.upstreams.remove(0);
        let retry = snapshot.plans.remove(0).retry;
        let mut rng = Rng::new(seed);
        let servers = upstream.spec.endpoints.iter().map(|_| Server {
            does: Does::Serve,
            service: Service::Exponential(10 * MS),
            free_at: vec![0; 10],
        });
        let mut sim = Self {
            now: BEGIN,
            seed,
            workers: (0..workers)
                .map(|_| {
                    (
                        LocalUpstream::new(upstream.clone(), None),
                        Rng::new(rng.next_u64()),
                    )
                })
                .collect(),
            servers: servers.collect(),
            upstream,
            exchanges: Vec::new(),
            done: Vec::new(),
            attempts: Vec::new(),
            changes: Vec::new(),
            ejected: Vec::new(),
            retry: Box::leak(Box::new(retry)),
            events: BinaryHeap::new(),
            scripts: BTreeMap::new(),
            numbered: 0,
            rng,
            rate: 0.0,
            phase: 0,
            ejections: Ejections::default(),
            signals,
            heard: VecDeque::new(),
            woken: Arc::default(),
            fifo: None,
        };
        sim.schedule(BEGIN + SECOND, Event::Tick);
        sim
    }

    /// Does something at `seconds` after the begin.
    fn at(&mut self, seconds: f64, script: impl FnOnce(&mut Sim) + 'static) {
        self.numbered += 1;
        let number = self.numbered;
        self.scripts.insert(number, Box::new(script));
        self.schedule(time(seconds), Event::Script(number));
    }

    /// What all endpoints do from now on.
    fn all_do(&mut self, does: Does) {
        for server in &mut self.servers {
            server.does = does;
        }
    }

    /// From now on so many requests a second.
    fn offer(&mut self, rate: f64) {
        self.rate = rate;
        self.phase += 1;
        self.schedule_arrival();
    }

    /// Goes on to `seconds` after the begin.
    fn run_until(&mut self, seconds: f64) {
        let until = time(seconds);
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.happen(event);
            self.wake();
            self.listen();
        }
        self.now = until;
    }

    /// No more arrivals; until the last exchange has ended.
    fn finish(&mut self) {
        self.offer(0.0);
        for _ in 0..1_000 {
            if self.exchanges.iter().all(Option::is_none) {
                return;
            }
            self.run_until((self.now - BEGIN) as f64 / SECOND as f64 + 0.1);
        }
        panic!("seed {}: exchanges that never end", self.seed);
    }

    /// What a check found; `Live::judge`.
    fn check(&mut self, server: usize, health: Health) {
        let endpoint = self.upstream.members.load().endpoints[server].clone();
        endpoint.set_health(health);
        if health == Health::Up {
            self.ejections.pardon(&endpoint, self.now);
            self.upstream.forget(&endpoint);
        }
        self.upstream.publish_health(self.now);
    }

    fn schedule(&mut self, at: Nanos, event: Event) {
        self.numbered += 1;
        self.events.push(Reverse((at, self.numbered, event)));
    }

    fn schedule_arrival(&mut self) {
        if self.rate > 0.0 {
            let gap = exponential(&mut self.rng) / self.rate * SECOND as f64;
            let phase = self.phase;
            self.schedule(self.now + gap as Nanos, Event::Arrive { phase });
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { phase } if phase != self.phase => {}
            Event::Arrive { .. } => {
                self.schedule_arrival();
                let worker = self.rng.below(self.workers.len());
                self.arrive(worker);
            }
            Event::Comes {
                exchange,
                attempt,
                what,
            } => self.comes(exchange, attempt, what),
            Event::Again { exchange } => self.pick(exchange),
            Event::Late { exchange } => self.late(exchange),
            Event::QueueTimeout { exchange, attempt } => self.queue_timeout(exchange, attempt),
            Event::Heed => self.heed(),
            Event::Tick => self.tick(),
            Event::Script(number) => {
                if let Some(script) = self.scripts.remove(&number) {
                    script(self);
                }
            }
        }
    }

    /// The control thread is told, and wakes up.
    fn listen(&mut self) {
        while let Ok(signal) = self.signals.try_recv() {
            match signal {
                Signal::Breaker { change, .. } => self.changes.push((self.now, change)),
                Signal::Said { .. } => {}
                Signal::Tripped { endpoint, trip, .. } => {
                    self.heard.push_back((endpoint, trip));
                    self.schedule(self.now + CONTROL_LAG, Event::Heed);
                }
            }
        }
    }

    /// `Live::heed`
    fn heed(&mut self) {
        let Some((endpoint, trip)) = self.heard.pop_front() else {
            return;
        };
        let at = (self.now, self.now / MS);
        let verdict = self.ejections.convict(&self.upstream, &endpoint, &trip, at);
        if let Verdict::Ejected(_) = verdict {
            self.upstream.publish_health(self.now);
            self.ejected.push(self.now);
        }
    }

    /// What `Live` and the workers do each second.
    fn tick(&mut self) {
        self.schedule(self.now + SECOND, Event::Tick);
        let released = self.ejections.release(self.now);
        for (_, endpoint) in &released {
            self.upstream.forget(endpoint);
        }
        if !released.is_empty() {
            self.upstream.publish_health(self.now);
        }
        self.upstream.note_exchanges(self.now);
        for (worker, (local, _)) in self.workers.iter().enumerate() {
            local.sweep(self.now, worker);
        }
    }

    // === what came out ===

    /// Exchanges that arrived from `from` to `to`, in seconds after the begin.
    fn arrived(&self, from: f64, to: f64) -> Vec<Done> {
        let times = time(from)..time(to);
        let done = self.done.iter().copied();
        done.filter(|d| times.contains(&d.arrived)).collect()
    }

    /// Attempts by server in that time.
    fn attempts_by_server(&self, from: f64, to: f64) -> Vec<usize> {
        let times = time(from)..time(to);
        let mut counts = vec![0; self.servers.len()];
        for (_, server) in self.attempts.iter().filter(|(at, _)| times.contains(at)) {
            counts[*server] += 1;
        }
        counts
    }

    /// What a server got of all attempts in that time, over an even share.
    fn share(&self, server: usize, from: f64, to: f64) -> f64 {
        let counts = self.attempts_by_server(from, to);
        let all: usize = counts.iter().sum();
        (counts[server] * counts.len()) as f64 / all.max(1) as f64
    }
}

// === impl Server ===

impl Server {
    /// When a request that comes `now` is answered.
    fn serve(&mut self, now: Nanos, rng: &mut Rng) -> Nanos {
        let work = match self.service {
            Service::Constant(time) => time,
            Service::Exponential(mean) => (exponential(rng) * mean as f64) as Nanos,
        };
        let place = self.free_at.iter_mut().min().unwrap();
        *place = (*place).max(now) + work;
        *place
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push(self.exchange);
    }
}

// === numbers ===

fn time(seconds: f64) -> Nanos {
    BEGIN + (seconds * SECOND as f64) as Nanos
}

/// Exponential with mean 1.
fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.unit()).ln()
}

/// How many ended so.
fn count(done: &[Done], end: End) -> usize {
    done.iter().filter(|d| d.end == end).count()
}

/// The percentile of the times that answers took, in milliseconds.
fn latency_ms(done: &[Done], percentile: f64) -> f64 {
    let answered = done.iter().filter(|d| d.end == End::Answered);
    let mut times: Vec<Nanos> = answered.map(|d| d.at - d.arrived).collect();
    assert!(!times.is_empty(), "nothing was answered");
    let rank = ((times.len() - 1) as f64 * percentile / 100.0) as usize;
    *times.select_nth_unstable(rank).1 as f64 / MS as f64
}

/// `few` seeds, `many` of a long run, or the one asked for; each printed before its run.
fn each_seed(few: u64, many: u64, mut run: impl FnMut(u64)) {
    let wanted = std::env::var("ISOBAR_SEED").ok();
    let seeds = match wanted.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        None if std::env::var_os("ISOBAR_LONG").is_some() => 1..=many,
        None => 1..=few,
    };
    for seed in seeds {
        eprintln!("ISOBAR_SEED={seed}");
        run(seed);
    }
}
