//! Priorities, zones and backups: what each tier gets as endpoints go down.

use crate::upstream::{Picked, Tried};

use super::*;

const PICKS: usize = 10_000;

/// A share of 10,000 picks has a standard deviation of at most half a percent.
const CLOSE: f64 = 2.5;

fn sim(endpoints: &str, process: &str, upstream: &str) -> Sim {
    let setup = Setup {
        upstream,
        ..Setup::default()
    };
    Sim::new(&setup.config_of(endpoints, process), 1, 1, None)
}

/// Endpoints `10.0.ZONE.0` and on, each with `more`.
fn entries(net: usize, count: usize, more: &str) -> String {
    (0..count)
        .map(|i| format!("{{ address = '10.0.{net}.{i}:80'{more} }}, "))
        .collect()
}

/// Takes these down and brings all others up.
fn set_down(sim: &mut Sim, is_down: impl Fn(usize) -> bool) {
    let endpoints = sim.upstream.members.load().endpoints.clone();
    for (i, endpoint) in endpoints.iter().enumerate() {
        endpoint.set_health(if is_down(i) { Health::Down } else { Health::Up });
    }
    sim.upstream.publish_health(sim.now);
}

/// Percent of the picks of the first `first` endpoints; `None` = nobody is picked.
fn percent(sim: &mut Sim, first: usize) -> Option<f64> {
    let mut hits = 0;
    for _ in 0..PICKS {
        let (local, rng) = &mut sim.workers[0];
        match local.pick(None, &Tried::default(), false, sim.now, rng) {
            Picked::One(ticket) => hits += usize::from(ticket.index < first),
            Picked::Nobody => return None,
            Picked::Full => panic!("there are no limits"),
        }
    }
    Some(hits as f64 * 100.0 / PICKS as f64)
}

fn assert_percent(sim: &mut Sim, first: usize, expected: f64, what: &str) {
    let got = percent(sim, first).unwrap();
    // Nothing and everything are exact.
    let close = if expected % 100.0 == 0.0 { 0.0 } else { CLOSE };
    assert!((got - expected).abs() <= close, "{what}: {got} %");
}

/// The rows of "Priority levels" in Envoy's documentation: healthy percent of priorities 0 and 1, and
/// the percent of traffic of priority 0.
#[test]
fn priorities_share_as_envoys_documentation_has_it() {
    let rows = [
        ((100, 100), 100.0),
        ((72, 72), 100.0),
        ((71, 71), 99.0),
        ((50, 50), 70.0),
        ((25, 100), 35.0),
        ((25, 25), 50.0),
        ((0, 100), 0.0),
        ((100, 0), 100.0),
        ((1, 0), 100.0),
    ];
    for policy in ["round_robin", "least_request", "peak_ewma", "maglev"] {
        let both = entries(0, 100, "") + &entries(1, 100, ", priority = 1");
        let mut sim = sim(&both, "", &format!("balance = '{policy}'"));
        for ((p0, p1), expected) in rows {
            set_down(&mut sim, |i| i % 100 >= if i < 100 { p0 } else { p1 });
            let what = format!("{policy}: {p0} % and {p1} % are up");
            assert_percent(&mut sim, 100, expected, &what);
        }
        set_down(&mut sim, |_| true);
        assert_eq!(percent(&mut sim, 100), None, "{policy}");
    }
}

#[test]
fn the_own_zone_keeps_what_it_can_carry() {
    let zones = entries(0, 4, ", zone = 'a'") + &entries(1, 8, ", zone = 'b'");
    let mut sim = sim(&zones, "zone = 'a'", "");
    let rows = [(0, 100.0), (1, 100.0), (2, 70.0), (3, 35.0), (4, 0.0)];
    for (down, expected) in rows {
        set_down(&mut sim, |i| i < down);
        assert_percent(&mut sim, 4, expected, &format!("{down} of 4 are down"));
    }
    // The other zone cannot take what is left over.
    set_down(&mut sim, |i| !(2..4).contains(&i));
    assert_percent(&mut sim, 4, 100.0, "2 of 4 and all others are down");
}

#[test]
fn a_zone_without_endpoints_and_endpoints_without_a_zone() {
    let mut elsewhere = sim(&entries(0, 4, ", zone = 'b'"), "zone = 'a'", "");
    assert_percent(&mut elsewhere, 4, 100.0, "nobody in the own zone");
    // Who says nothing of its zone is near.
    let some = entries(0, 2, "") + &entries(1, 2, ", zone = 'b'");
    let mut sim = sim(&some, "zone = 'a'", "");
    assert_percent(&mut sim, 2, 100.0, "without a zone");
}

/// Within one priority; a lower priority of the own zone comes after a higher one elsewhere.
#[test]
fn a_priority_counts_more_than_a_zone() {
    let all = entries(0, 4, ", zone = 'b'") + &entries(1, 4, ", zone = 'a', priority = 1");
    let mut sim = sim(&all, "zone = 'a'", "");
    assert_percent(&mut sim, 4, 100.0, "all are up");
    set_down(&mut sim, |i| i < 2);
    assert_percent(&mut sim, 4, 70.0, "half of priority 0 is down");
}

#[test]
fn a_backup_serves_only_while_nobody_else_can() {
    let all = entries(0, 3, "") + &entries(1, 1, ", backup = true");
    for (when, when_all_down) in [("fail_closed", None), ("fail_open", Some(100.0))] {
        let mut sim = sim(&all, "", &format!("when_unhealthy = '{when}'"));
        assert_percent(&mut sim, 3, 100.0, "all are up");
        set_down(&mut sim, |i| i < 1);
        assert_percent(&mut sim, 3, 100.0, "1 of 3 is down");
        set_down(&mut sim, |i| i < 2);
        assert_percent(&mut sim, 3, 100.0, "2 of 3 are down");
        set_down(&mut sim, |i| i < 3);
        assert_percent(&mut sim, 3, 0.0, "only the backup is up");
        set_down(&mut sim, |i| i != 2);
        assert_percent(&mut sim, 3, 100.0, "the backup is down, too");
        set_down(&mut sim, |_| true);
        assert_eq!(percent(&mut sim, 3), when_all_down, "{when}");
    }
}

/// It seemed to be the last one that is ready, as the others had no share yet: every request failed
/// while they stood by.
#[test]
fn the_only_one_of_its_tier_is_ejected_while_another_tier_can_serve() {
    let backup = entries(0, 1, "") + &entries(1, 1, ", backup = true");
    let zones = entries(0, 1, ", zone = 'a'") + &entries(1, 3, ", zone = 'b'");
    for (endpoints, process) in [(backup, ""), (zones, "zone = 'a'")] {
        let mut sim = sim(&endpoints, process, "outlier = {}");
        sim.offer(100.0);
        sim.at(1.0, |sim| sim.servers[0].does = Does::Fail);
        sim.run_until(5.0);
        // Five in a row, and one at most that came before the control thread had heard.
        let failed = count(&sim.done, End::Failed);
        assert!((5..=6).contains(&failed), "{endpoints}: {failed}");
        assert_eq!(sim.share(0, 1.2, 5.0), 0.0, "{endpoints}");
    }
}

/// One call went out when the backup came up, and who was called passed it on only if it saw room in
/// a tier that had a share.
#[test]
fn all_who_wait_go_to_a_second_tier_that_comes_up() {
    let endpoints = entries(0, 1, "") + &entries(1, 1, ", priority = 1");
    let mut sim = sim(
        &endpoints,
        "",
        "max_connections = 5\nqueue = { timeout = '60s' }",
    );
    sim.all_do(Does::Hang);
    sim.check(1, Health::Down);
    sim.offer(100.0);
    sim.at(1.0, |sim| sim.offer(0.0));
    sim.at(1.0, |sim| sim.check(1, Health::Up));
    sim.run_until(0.9);
    assert_eq!(sim.attempts_by_server(0.0, 2.0), [5, 0]);
    sim.run_until(1.1);
    assert_eq!(sim.attempts_by_server(0.0, 2.0), [5, 5]);
}
