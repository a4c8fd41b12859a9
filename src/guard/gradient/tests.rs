//! The limit against a simulated endpoint, under a virtual clock: Poisson arrivals, of which the
//! limit admits or refuses each, `servers` servers and one queue in order of arrival.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;
const SEED: u64 = 4;

/// How long a request keeps a server.
#[derive(Clone, Copy, Debug)]
enum Work {
    Constant,
    Exponential,
}

#[derive(Debug)]
struct Simulation {
    gradient: Gradient,
    rng: Rng,
    now: Nanos,
    servers: usize,
    mean: Nanos,
    work: Work,
    /// Ends of the requests on servers, each with its arrival.
    busy: BinaryHeap<Reverse<(Nanos, Nanos)>>,
    /// Arrivals of those that wait.
    waiting: VecDeque<Nanos>,
}

/// What a stretch of time gave.
#[derive(Debug, Default)]
struct Outcome {
    latencies: Vec<Nanos>,
    refused: usize,
    /// The limit at each admission or refusal.
    limits: Vec<u32>,
}

// === impl Simulation ===

impl Simulation {
    fn new(gradient: Gradient, servers: usize, mean: Nanos, work: Work) -> Self {
        Self {
            gradient,
            rng: Rng::new(SEED),
            now: 0,
            servers,
            mean,
            work,
            busy: BinaryHeap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Requests a second that the endpoint can do.
    fn capacity(&self) -> f64 {
        self.servers as f64 * 1e9 / self.mean as f64
    }

    /// `seconds` with `rate` arrivals a second.
    fn run(&mut self, seconds: u64, rate: f64) -> Outcome {
        let end = self.now + seconds * S;
        let mut outcome = Outcome::default();
        loop {
            let gap = -(1.0 - self.rng.unit()).ln() / rate;
            let arrival = self.now + (gap * 1e9) as Nanos;
            self.complete_until(arrival.min(end), &mut outcome);
            self.now = arrival.min(end);
            if arrival >= end {
                return outcome;
            }
            let limit = self.gradient.limit();
            outcome.limits.push(limit);
            if self.in_flight() >= limit {
                outcome.refused += 1;
                continue;
            }
            self.waiting.push_back(arrival);
            self.start();
        }
    }

    fn in_flight(&self) -> u32 {
        (self.busy.len() + self.waiting.len()) as u32
    }

    fn complete_until(&mut self, time: Nanos, outcome: &mut Outcome) {
        while let Some(&Reverse((end, arrival))) = self.busy.peek()
            && end <= time
        {
            self.now = end;
            self.gradient.observe(end - arrival, self.in_flight(), end);
            outcome.latencies.push(end - arrival);
            self.busy.pop();
            self.start();
        }
    }

    fn start(&mut self) {
        while self.busy.len() < self.servers
            && let Some(arrival) = self.waiting.pop_front()
        {
            let work = match self.work {
                Work::Constant => self.mean,
                Work::Exponential => {
                    (-(1.0 - self.rng.unit()).ln() * self.mean as f64) as Nanos + 1
                }
            };
            self.busy.push(Reverse((self.now + work, arrival)));
        }
    }
}

// === impl Outcome ===

impl Outcome {
    fn percentile(&self, p: usize) -> Nanos {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * p / 100]
    }

    fn median_limit(&self) -> u32 {
        let mut sorted = self.limits.clone();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    }

    fn last_limit(&self) -> u32 {
        *self.limits.last().unwrap()
    }
}

#[test]
fn overload_settles_near_the_servers_and_latency_stays_low() {
    for (servers, mean) in [(4, 20 * MS), (16, 20 * MS), (64, 60 * MS), (16, 400 * MS)] {
        let gradient = Gradient::new(1, 1_000, SEED);
        let mut simulation = Simulation::new(gradient, servers, mean, Work::Constant);
        let rate = 2.0 * simulation.capacity();
        simulation.run(20, rate);
        // Two minutes, so probes are part of it.
        let outcome = simulation.run(120, rate);
        let of_servers = f64::from(outcome.median_limit()) / servers as f64;
        let case = format!("{servers} servers of {mean} ns, seed {SEED}: {of_servers}");
        assert!((1.0..=2.3).contains(&of_servers), "{case}");
        let highest = f64::from(*outcome.limits.iter().max().unwrap()) / servers as f64;
        assert!(highest <= 2.6, "{case}, at most {highest}");
        let p99 = outcome.percentile(99) as f64 / mean as f64;
        assert!(p99 <= 2.5, "{case}: {p99} times the unloaded latency");
        let done = outcome.latencies.len() as f64 / (120.0 * simulation.capacity());
        assert!(done >= 0.97, "{case}: {done} of the capacity");
    }
}

/// The 90th percentile of exponential times is noisy; the limit may be generous, not runaway, and
/// not so low that it costs work.
#[test]
fn overload_with_varying_work_stays_within_bounds() {
    let gradient = Gradient::new(1, 1_000, SEED);
    let mut simulation = Simulation::new(gradient, 16, 20 * MS, Work::Exponential);
    let rate = 2.0 * simulation.capacity();
    simulation.run(20, rate);
    let outcome = simulation.run(200, rate);
    let highest = *outcome.limits.iter().max().unwrap();
    assert!(highest <= 16 * 6, "{highest}, seed {SEED}");
    let done = outcome.latencies.len() as f64 / (200.0 * simulation.capacity());
    assert!(done >= 0.93, "{done} of the capacity, seed {SEED}");
}

#[test]
fn what_fits_is_not_refused() {
    for work in [Work::Constant, Work::Exponential] {
        let gradient = Gradient::new(1, 1_000, SEED);
        let mut simulation = Simulation::new(gradient, 64, 20 * MS, work);
        let rate = 0.6 * simulation.capacity();
        simulation.run(20, rate);
        let outcome = simulation.run(130, rate);
        let share = outcome.refused as f64 / outcome.limits.len() as f64;
        assert!(share < 0.01, "{work:?}: {share} refused, seed {SEED}");
    }
}

#[test]
fn a_queue_that_was_there_from_the_start_is_found() {
    // The first window is seen with 20 in flight at 2 servers: 10 times the unloaded latency.
    let mut simulation = Simulation::new(Gradient::new(1, 1_000, SEED), 2, 20 * MS, Work::Constant);
    let rate = 4.0 * simulation.capacity();
    simulation.run(30, rate);
    let outcome = simulation.run(30, rate);
    assert!(outcome.median_limit() <= 6, "{outcome:?}");
    assert!(outcome.percentile(99) <= 80 * MS);
}

#[test]
fn twice_the_capacity_is_used_within_seconds() {
    let mut simulation =
        Simulation::new(Gradient::new(1, 1_000, SEED), 16, 20 * MS, Work::Constant);
    let rate = 4.0 * simulation.capacity();
    simulation.run(30, rate);
    let before = simulation.gradient.limit();
    simulation.servers = 32;
    simulation.run(3, rate);
    let outcome = simulation.run(10, rate);
    let done = outcome.latencies.len() as f64 / (10.0 * simulation.capacity());
    assert!(done >= 0.95, "{done} from a limit of {before}, seed {SEED}");
}

#[test]
fn half_the_capacity_is_respected_within_seconds() {
    let mut simulation =
        Simulation::new(Gradient::new(1, 1_000, SEED), 32, 20 * MS, Work::Constant);
    let rate = 2.0 * simulation.capacity();
    simulation.run(30, rate);
    simulation.servers = 8;
    simulation.run(5, rate);
    let outcome = simulation.run(20, rate);
    assert!(outcome.percentile(99) <= 60 * MS, "seed {SEED}");
}

#[test]
fn an_endpoint_that_became_slower_for_good_is_learnt_anew() {
    let mut simulation = Simulation::new(
        Gradient::new(1, 1_000, SEED),
        1_000,
        20 * MS,
        Work::Constant,
    );
    // 20 in flight, then 100; nothing waits at any time.
    let before = simulation.run(90, 1_000.0);
    simulation.mean = 100 * MS;
    simulation.run(10, 1_000.0);
    let outcome = simulation.run(60, 1_000.0);
    let share = outcome.refused as f64 / outcome.limits.len() as f64;
    let limits = (before.last_limit(), outcome.last_limit());
    assert!(
        share < 0.02,
        "{share} refused, limits {limits:?}, seed {SEED}"
    );
}

#[test]
fn an_unused_limit_does_not_grow() {
    let gradient = Gradient::new(1, 1_000, SEED);
    for n in 0..1_000_000 {
        gradient.observe(10 * MS, 9, n * MS);
    }
    assert_eq!(gradient.limit(), 20);
    for n in 1_000_000..1_010_000 {
        gradient.observe(10 * MS, 10, n * MS);
    }
    assert!(gradient.limit() >= 21);
}

/// 20 * 1.25 + sqrt(20) = 29.47.
#[test]
fn a_window_moves_the_limit_as_the_formula_says() {
    let gradient = Gradient::new(1, 1_000, SEED);
    let mut now = 0;
    let mut window = |latency: Nanos, length: u64| {
        for _ in 0..=length {
            gradient.observe(latency, 20, now);
            now += MS;
        }
        gradient.limit()
    };
    assert_eq!(window(10 * MS, 100), 20, "the first teaches the minimum");
    assert_eq!(window(10 * MS, 100), 29);
    // 29.47 * 1.25 / 2 + sqrt(29.47) = 23.85
    assert_eq!(window(20 * MS, 100), 23);
    // No lower than by half, and up: 23.85 / 2 + sqrt(23.85) = 16.81
    assert_eq!(window(90 * MS, 100), 16);
}

#[test]
fn bounds_hold_and_odd_ones_are_mended() {
    for (min, max, first) in [(0, 0, 1), (1, 1, 1), (50, 9, 50), (30, 90, 30), (1, 5, 5)] {
        assert_eq!(
            Gradient::new(min, max, SEED).limit(),
            first,
            "{min} to {max}"
        );
    }
    let most = Gradient::new(u32::MAX, u32::MAX, SEED);
    for n in 0..10_000 {
        most.observe(MS, u32::MAX, n * MS);
    }
    assert_eq!(most.limit(), u32::MAX);
}

#[test]
fn a_busy_or_poisoned_lock_is_no_obstacle() {
    let gradient = Gradient::new(1, 1_000, SEED);
    let guard = gradient.learner.lock().unwrap();
    gradient.observe(MS, 1, 0);
    assert_eq!(gradient.limit(), 20);
    drop(guard);
    std::thread::scope(|scope| {
        let poison = scope.spawn(|| {
            let _guard = gradient.learner.lock().unwrap();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(poison.join().is_err());
    });
    for n in 0..1_000 {
        gradient.observe(MS, 20, n * MS);
    }
    assert!(gradient.limit() > 20);
}

proptest! {
    #[test]
    fn nothing_leads_out_of_the_bounds(
        min in 0u32..100,
        max in 0u32..2_000,
        seed in any::<u64>(),
        stretches in proptest::collection::vec(
            (0u64..1 << 40, any::<u32>(), -3_000i64..3_000_000_000), 1..60,
        ),
    ) {
        let gradient = Gradient::new(min, max, seed);
        let mut now = 5 * S;
        for (latency, in_flight, gap) in stretches {
            for n in 0..30 {
                now = now.saturating_add_signed(gap);
                gradient.observe(latency * (n % 3), in_flight, now);
                let least = min.max(1);
                prop_assert!((least..=max.max(least)).contains(&gradient.limit()));
            }
        }
    }
}
