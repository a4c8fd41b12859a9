//! One of five endpoints fails fast: how much it gets meanwhile, and how soon it has its share again.

use super::*;

/// Policies that do not go by a key or an order.
pub(super) const POLICIES: [&str; 5] = [
    "round_robin",
    "weighted",
    "random",
    "least_request",
    "peak_ewma",
];

/// Endpoint 0 answers 500 at once from 5 s to 25 s; 1,000 requests a second.
fn one_fails(policy: &str, upstream: &str, seed: u64) -> Sim {
    let upstream = format!("balance = '{policy}'\n{upstream}");
    let setup = Setup {
        upstream: &upstream,
        ..Setup::default()
    };
    let mut sim = setup.sim(seed);
    sim.offer(1_000.0);
    sim.at(5.0, |sim| sim.servers[0].does = Does::Fail);
    sim.at(25.0, |sim| sim.servers[0].does = Does::Serve);
    sim
}

fn share_of_all(sim: &Sim, from: f64, to: f64) -> f64 {
    sim.share(0, from, to) / sim.servers.len() as f64
}

/// Ejections of 1 s, 2 s, 4 s, 4 s …: without checks nobody else finds out that it is well.
#[test]
fn what_fails_fast_gets_two_percent_and_comes_back_when_its_time_is_over() {
    for policy in POLICIES {
        each_seed(1, 10, |seed| {
            let outlier = "outlier = { eject_for = '1s', max_eject = '4s' }";
            let mut sim = one_fails(policy, outlier, seed);
            sim.run_until(45.0);
            // peak_ewma itself leaves it alone, long before the fifth failure in a row.
            let is_ejected = sim.ejected.first().is_some_and(|at| *at < time(5.5));
            assert!(is_ejected || policy == "peak_ewma", "{policy}, seed {seed}");
            let all = count(&sim.arrived(5.0, 25.0), End::Failed);
            let failing = share_of_all(&sim, 5.0, 25.0);
            let again = sim.share(0, 35.0, 45.0);
            eprintln!(
                "{policy}: failed {all} of 20,000, failing {:.2} %, again {again:.2}",
                failing * 100.0
            );
            assert!(failing <= 0.02, "{policy}, seed {seed}: {failing}");
            assert!(again >= 0.8, "{policy}, seed {seed}: {again}");
        });
    }
}

/// The times of the defaults, and checks that find it down after 3 s and up 2 s after it is well.
#[test]
fn a_check_that_finds_it_up_ends_the_ejection() {
    for policy in POLICIES {
        each_seed(1, 10, |seed| {
            let mut sim = one_fails(policy, "outlier = {}", seed);
            sim.at(8.0, |sim| sim.check(0, Health::Down));
            sim.at(27.0, |sim| sim.check(0, Health::Up));
            sim.run_until(45.0);
            let failing = share_of_all(&sim, 5.0, 25.0);
            let again = sim.share(0, 35.0, 45.0);
            eprintln!(
                "{policy}: failing {:.3} %, again {again:.2}",
                failing * 100.0
            );
            assert!(failing <= 0.001, "{policy}, seed {seed}: {failing}");
            assert!(again >= 0.8, "{policy}, seed {seed}: {again}");
            assert!(sim.ejected.len() <= 1, "{policy}, seed {seed}");
        });
    }
}

/// Nobody ejects: what a policy itself makes of an endpoint that is idle because it fails at once.
#[test]
fn peak_ewma_takes_a_fast_failure_for_slow_and_least_request_does_not() {
    each_seed(2, 10, |seed| {
        let share = |policy| {
            let mut sim = one_fails(policy, "outlier = 'off'", seed);
            sim.run_until(25.0);
            share_of_all(&sim, 5.0, 25.0)
        };
        let (ewma, least) = (share("peak_ewma"), share("least_request"));
        eprintln!("share: peak_ewma {ewma:.4}, least_request {least:.4}");
        assert!(ewma <= 0.02, "seed {seed}: {ewma}");
        assert!(least > 0.2, "seed {seed}: {least}");
    });
}
