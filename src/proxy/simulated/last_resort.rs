//! Whoever is left serves: ejections, checks and `when_unhealthy` together.

use super::*;

const EJECT_ALL: &str = "outlier = { eject_for = '60s', max_ejected = '100%' }";

fn ready(sim: &Sim) -> Vec<usize> {
    let members = sim.upstream.members.load();
    (0..sim.servers.len())
        .filter(|i| members.ready[*i])
        .collect()
}

fn all_fail(upstream: &str, seed: u64) -> Sim {
    let setup = Setup {
        upstream,
        ..Setup::default()
    };
    let mut sim = setup.sim(seed);
    sim.offer(500.0);
    sim.at(1.0, |sim| sim.all_do(Does::Fail));
    sim.run_until(3.0);
    sim
}

#[test]
fn half_are_ejected_by_default_and_the_last_one_never() {
    each_seed(3, 20, |seed| {
        assert_eq!(
            ready(&all_fail("outlier = {}", seed)).len(),
            3,
            "seed {seed}"
        );
        let sim = all_fail(EJECT_ALL, seed);
        assert_eq!(
            (ready(&sim).len(), sim.ejected.len()),
            (1, 4),
            "seed {seed}"
        );
        // It goes on getting everything, failing or not.
        let last = ready(&sim)[0];
        assert!(sim.share(last, 2.0, 3.0) > 4.99, "seed {seed}");
    });
}

#[test]
fn when_checks_take_the_last_one_down_the_ejected_serve() {
    each_seed(3, 20, |seed| {
        let mut sim = all_fail(EJECT_ALL, seed);
        let last = ready(&sim)[0];
        sim.all_do(Does::Serve);
        sim.check(last, Health::Down);
        assert_eq!(ready(&sim).len(), 4, "seed {seed}");
        sim.run_until(4.0);
        let done = sim.arrived(3.0, 3.9);
        assert_eq!(count(&done, End::Answered), done.len(), "seed {seed}");
        assert_eq!(sim.share(last, 3.0, 4.0), 0.0, "seed {seed}");
        // It is back: the others are still ejected.
        sim.check(last, Health::Up);
        assert_eq!(ready(&sim), [last], "seed {seed}");
    });
}

#[test]
fn when_all_are_down_when_unhealthy_decides() {
    for (when, serves) in [("fail_closed", false), ("fail_open", true)] {
        let upstream = format!("when_unhealthy = '{when}'");
        let setup = Setup {
            upstream: &upstream,
            ..Setup::default()
        };
        let mut sim = setup.sim(1);
        sim.offer(500.0);
        sim.at(1.0, |sim| (0..5).for_each(|i| sim.check(i, Health::Down)));
        sim.at(2.0, |sim| sim.check(3, Health::Up));
        sim.run_until(3.0);
        let down = sim.arrived(1.0, 2.0);
        let end = if serves {
            End::Answered
        } else {
            End::NoEndpoint
        };
        assert_eq!(count(&down, end), down.len(), "{when}");
        assert_eq!(sim.share(3, 2.0, 3.0), 5.0, "{when}: one is up");
    }
}

/// Endpoints fail, recover, go down and up as they like.
#[test]
fn while_anybody_is_up_somebody_is_ready() {
    each_seed(2, 50, |seed| {
        let setup = Setup {
            upstream: "outlier = { eject_for = '1s', max_eject = '4s', max_ejected = '100%' }",
            ..Setup::default()
        };
        let mut sim = setup.sim(seed);
        sim.offer(100.0);
        for step in 0..200 {
            let chosen = sim.rng.below(5);
            match sim.rng.below(4) {
                0 => sim.check(chosen, Health::Down),
                1 => sim.check(chosen, Health::Up),
                2 => sim.servers[chosen].does = Does::Fail,
                _ => sim.servers[chosen].does = Does::Serve,
            }
            sim.run_until(f64::from(step) / 2.0);
            let members = sim.upstream.members.load();
            let mut endpoints = members.endpoints.iter();
            let is_anybody_up = endpoints.any(|e| e.health() != Health::Down);
            assert_eq!(
                members.ready.contains(&true),
                is_anybody_up,
                "step {step}, seed {seed}"
            );
        }
    });
}

/// A rack fails at once: the control thread hears of all before it publishes anything, and the last one
/// that is ready stays all the same.
#[test]
fn of_those_that_fail_together_the_last_one_is_spared() {
    let setup = Setup {
        endpoints: 3,
        upstream: "outlier = { max_ejected = '100%' }",
        ..Setup::default()
    };
    let mut sim = setup.sim(1);
    let endpoints = sim.upstream.members.load().endpoints.clone();
    let at = (sim.now, sim.now / MS);
    let verdicts = endpoints.iter().map(|endpoint| {
        let verdict = sim
            .ejections
            .convict(&sim.upstream, endpoint, &Trip::Connects(3), at);
        matches!(verdict, Verdict::Ejected(_))
    });
    assert_eq!(verdicts.collect::<Vec<_>>(), [true, true, false]);
    sim.upstream.publish_health(sim.now);
    assert_eq!(*sim.upstream.members.load().ready, [false, false, true]);
}
