//! The breaker of an upstream, over all of its workers.

use super::*;

const BREAKER: &str = "outlier = 'off'\nbreaker = { failure_ratio = '50%', min_requests = 20, \
                       window = '10s', open_for = '2s', trials = 3 }";

fn sim(upstream: &str, seed: u64) -> Sim {
    let setup = Setup {
        upstream,
        retry: "attempts = 1",
        ..Setup::default()
    };
    let mut sim = setup.sim(seed);
    sim.offer(200.0);
    sim
}

/// Attempts after one time and before another.
fn attempts_between(sim: &Sim, from: Nanos, to: Nanos) -> usize {
    let times = sim.attempts.iter().map(|(at, _)| *at);
    times.filter(|at| (from + 1..to).contains(at)).count()
}

#[test]
fn it_opens_refuses_at_once_lets_exactly_its_trials_through_and_closes() {
    each_seed(3, 20, |seed| {
        let mut sim = sim(BREAKER, seed);
        sim.at(5.0, |sim| sim.all_do(Does::Fail));
        // Well again, and so slow that all workers have asked before the first trial has ended.
        sim.at(15.0, |sim| {
            for server in &mut sim.servers {
                server.does = Does::Serve;
                server.service = Service::Constant(300 * MS);
            }
        });
        sim.run_until(20.0);

        let changes: Vec<_> = sim.changes.iter().map(|(_, change)| *change).collect();
        let at = |i: usize| sim.changes[i].0;
        let last = changes.len() - 1;
        assert!(matches!(changes[0], Change::Opened(_)), "seed {seed}");
        for pair in changes[1..last - 1].chunks(2) {
            assert_eq!(pair, [Change::HalfOpened, Change::Reopened], "seed {seed}");
        }
        assert_eq!(changes[last - 1..], [Change::HalfOpened, Change::Closed]);
        // A share of 50 % in 10 s: it takes as many failures as there were answers before.
        assert!((time(5.1)..time(11.0)).contains(&at(0)), "seed {seed}");
        for i in (0..last - 1).step_by(2) {
            assert_eq!((at(i + 1) - at(i)) / SECOND, 2, "open for 2 s, seed {seed}");
            // A trial that fails is over before the next request comes, nearly always.
            let trials = attempts_between(&sim, at(i), at(i + 2));
            assert!((1..=3).contains(&trials), "seed {seed}: {trials}");
        }
        assert_eq!(
            attempts_between(&sim, at(last - 2), at(last)),
            3,
            "seed {seed}"
        );
        let refused = sim.done.iter().filter(|d| d.end == End::Breaker);
        assert!(refused.clone().count() > 500, "seed {seed}");
        assert!(refused.into_iter().all(|d| d.at == d.arrived));
        let after = sim.arrived(18.5, 19.5);
        assert_eq!(count(&after, End::Answered), after.len(), "seed {seed}");
    });
}

#[test]
fn never_more_in_flight_than_it_allows() {
    each_seed(1, 10, |seed| {
        let mut sim = sim("breaker = { max_in_flight = 10 }", seed);
        sim.servers
            .iter_mut()
            .for_each(|s| s.service = Service::Constant(SECOND));
        sim.run_until(0.9);
        assert_eq!(sim.attempts.len(), 10, "seed {seed}");
        sim.run_until(10.0);
        assert!((91..=100).contains(&sim.attempts.len()), "seed {seed}");
    });
}

#[test]
fn never_more_in_the_line_than_it_allows() {
    each_seed(1, 10, |seed| {
        let limits = "max_connections = 1\nbreaker = { max_pending = 5 }";
        let mut sim = sim(limits, seed);
        sim.servers
            .iter_mut()
            .for_each(|s| s.service = Service::Constant(10 * SECOND));
        sim.run_until(1.0);
        assert_eq!(sim.upstream.waiting.len(), 5, "seed {seed}");
        assert_eq!(sim.attempts.len(), 5, "seed {seed}");
        assert_eq!(
            count(&sim.done, End::Breaker),
            sim.done.len(),
            "seed {seed}"
        );
    });
}
