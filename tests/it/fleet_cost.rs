//! What it costs to be one of five peers while nothing happens.

#![expect(clippy::print_stderr, reason = "a test's figures are printed")]

use std::time::Duration;

use crate::support::eventually::eventually;
use crate::support::fleet::{Peer, Plan};
use crate::support::origin::Origin;
use crate::support::{now, scaled};

/// Bytes sent, without headers of UDP and TCP, and CPU in hundredths of a second.
fn cost(peer: &Peer) -> (f64, u64) {
    let bytes = peer.metric_sum("isobar_fleet_sent_bytes_total");
    (bytes, peer.cpu())
}

#[test]
fn idle_member_of_five_costs_little() {
    let origins: Vec<Origin> = ["a", "b", "c", "d"].map(Origin::named).into();
    let addrs: Vec<_> = origins.iter().map(Origin::addr).collect();
    let fleet = Plan::over(5, &addrs, "health = { check = 'tcp', interval = '5s' }").start();
    fleet.await_equal();
    eventually("everything was told", || {
        fleet.peers.iter().all(|peer| peer.fleet()["dirty"] == 0)
    });
    let (begun, before) = (now(), fleet.peers.iter().map(cost).collect::<Vec<_>>());
    let window = Duration::from_secs(scaled(5, 28));
    eventually("a while without work", || begun.elapsed() >= window);
    let took = begun.elapsed().as_secs_f64();
    for (peer, (bytes, cpu)) in fleet.peers.iter().zip(before) {
        let after = cost(peer);
        let rate = (after.0 - bytes) / took;
        let cpu = (after.1 - cpu) as f64 / took;
        eprintln!(
            "an idle member of 5 sends {rate:.0} bytes/s and needs {cpu:.2} % of a core, over {took:.0} s"
        );
        // A tenth of a kilobyte for each other; ten times that is a storm.
        assert!(rate < 5000.0, "{rate}");
    }
}
