//! An endpoint that has recovered gets its share bit by bit.

use crate::upstream::{Picked, Tried};

use super::outliers::POLICIES;
use super::*;

/// Endpoint 0 is down from the first second to the fifth.
fn recovered(upstream: &str, rate: f64, seed: u64) -> Sim {
    let setup = Setup {
        upstream,
        ..Setup::default()
    };
    let mut sim = setup.sim(seed);
    sim.offer(rate);
    sim.at(1.0, |sim| sim.check(0, Health::Down));
    sim.at(5.0, |sim| sim.check(0, Health::Up));
    sim
}

#[test]
fn shares_follow_the_ramp_from_a_tenth_to_the_whole() {
    for policy in POLICIES {
        each_seed(1, 10, |seed| {
            let upstream = format!("balance = '{policy}'\nslow_start = '10s'");
            let mut sim = recovered(&upstream, 1_000.0, seed);
            sim.run_until(18.0);
            let shares: Vec<f64> = (5..18)
                .map(|s| sim.share(0, f64::from(s), f64::from(s + 1)))
                .collect();
            let text: Vec<String> = shares.iter().map(|s| format!("{s:.2}")).collect();
            eprintln!("{policy}: {}", text.join(" "));
            for (second, share) in shares.iter().enumerate() {
                let ramp = ((second as f64 + 0.5) / 10.0).clamp(0.1, 1.0);
                // Two choices take the idle one of two, as it is most of the time: twice as often.
                let (least, most) = match policy {
                    "least_request" | "peak_ewma" => (ramp - 0.25, (ramp * 2.0).min(1.0) + 0.25),
                    // 200 a second by chance: four standard deviations.
                    "random" => (ramp - 0.3, ramp + 0.3),
                    _ => (ramp - 0.15, ramp + 0.15),
                };
                assert!(
                    (least..most).contains(share),
                    "{policy}, second {second}, seed {seed}: {share}, not {ramp}"
                );
            }
        });
    }
}

#[test]
fn without_a_window_it_gets_its_share_at_once() {
    each_seed(1, 10, |seed| {
        let mut sim = recovered("balance = 'round_robin'", 1_000.0, seed);
        sim.run_until(7.0);
        assert_eq!(sim.share(0, 2.0, 5.0), 0.0);
        assert!(sim.share(0, 5.0, 6.0) > 0.98, "seed {seed}");
    });
}

#[test]
fn where_everybody_is_new_nobody_ramps() {
    each_seed(1, 10, |seed| {
        let upstream = "balance = 'round_robin'\nslow_start = '10s'";
        let setup = Setup {
            upstream,
            ..Setup::default()
        };
        let mut sim = setup.sim(seed);
        sim.offer(1_000.0);
        sim.run_until(1.0);
        let shares: Vec<f64> = (0..5).map(|i| sim.share(i, 0.0, 1.0)).collect();
        assert!(shares.iter().all(|s| *s > 0.98), "seed {seed}: {shares:?}");
        // All go, and all come back together: nobody is there to spare them either.
        sim.at(2.0, |sim| (0..5).for_each(|i| sim.check(i, Health::Down)));
        sim.at(3.0, |sim| {
            let endpoints = sim.upstream.members.load().endpoints.clone();
            endpoints.iter().for_each(|e| e.set_health(Health::Up));
            sim.upstream.publish_health(sim.now);
        });
        sim.run_until(4.0);
        let shares: Vec<f64> = (0..5).map(|i| sim.share(i, 3.0, 4.0)).collect();
        assert!(shares.iter().all(|s| *s > 0.98), "seed {seed}: {shares:?}");
    });
}

#[test]
fn who_goes_again_before_the_end_begins_anew() {
    each_seed(1, 10, |seed| {
        let mut sim = recovered("balance = 'round_robin'\nslow_start = '10s'", 1_000.0, seed);
        sim.at(13.0, |sim| sim.check(0, Health::Down));
        sim.at(14.0, |sim| sim.check(0, Health::Up));
        sim.run_until(15.0);
        assert!(sim.share(0, 12.0, 13.0) > 0.6, "seed {seed}");
        assert_eq!(sim.share(0, 13.0, 14.0), 0.0);
        assert!(sim.share(0, 14.0, 15.0) < 0.2, "seed {seed}");
    });
}

/// An ejection that ends is a recovery, too.
#[test]
fn an_ejection_is_followed_by_a_ramp() {
    each_seed(1, 10, |seed| {
        let upstream =
            "balance = 'round_robin'\nslow_start = '10s'\noutlier = { eject_for = '2s' }";
        let setup = Setup {
            upstream,
            ..Setup::default()
        };
        let mut sim = setup.sim(seed);
        sim.offer(1_000.0);
        sim.at(1.0, |sim| sim.servers[0].does = Does::Fail);
        sim.at(2.0, |sim| sim.servers[0].does = Does::Serve);
        sim.run_until(8.0);
        let released = (sim.ejected[0] + 3 * SECOND - BEGIN) as f64 / SECOND as f64;
        let after = sim.share(0, released, released + 1.0);
        assert!(after > 0.0 && after < 0.25, "seed {seed}: {after}");
    });
}

/// What keys and orders decide is not for a ramp to change: `isobar check` says so, too.
#[test]
fn policies_that_go_by_a_key_or_an_order_do_not_ramp() {
    for policy in ["ring_hash", "maglev", "rendezvous", "first"] {
        let upstream = format!("balance = '{policy}'\nslow_start = '10s'");
        let setup = Setup {
            upstream: &upstream,
            ..Setup::default()
        };
        let mut sim = setup.sim(1);
        let owner = |sim: &mut Sim, key: u64| {
            let (local, rng) = &mut sim.workers[0];
            let key = key.to_le_bytes();
            match local.pick(Some(&key), &Tried::default(), false, sim.now, rng) {
                Picked::One(ticket) => ticket.index,
                Picked::Full | Picked::Nobody => panic!("{policy}"),
            }
        };
        let before: Vec<usize> = (0..200).map(|key| owner(&mut sim, key)).collect();
        assert!(before.contains(&0), "{policy}");
        sim.check(0, Health::Down);
        sim.now += SECOND;
        sim.check(0, Health::Up);
        sim.now += SECOND;
        let after: Vec<usize> = (0..200).map(|key| owner(&mut sim, key)).collect();
        assert_eq!(after, before, "{policy}");
    }
}
