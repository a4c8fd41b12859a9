//! What it costs to be one of five peers while nothing happens.

use std::time::Duration;

use crate::support::eventually::eventually;
use crate::support::fleet::{Peer, Plan};
use crate::support::origin::Origin;
use crate::support::{now, scaled};

/// How many check an endpoint, as the file has it by default.
const PROBERS: usize = 3;

/// What bytes are for.
const KINDS: [&str; 3] = ["membership", "facts", "sync"];

/// Bytes sent by kind, without headers of UDP and TCP, and CPU in hundredths of a second.
fn cost(peer: &Peer) -> ([f64; 3], u64) {
    let bytes =
        KINDS.map(|kind| peer.metric(&format!("isobar_fleet_sent_bytes_total{{kind=\"{kind}\"}}")));
    (bytes, peer.cpu())
}

#[test]
fn idle_member_of_five_costs_little() {
    let origins: Vec<Origin> = ["a", "b", "c", "d"].map(Origin::named).into();
    let addrs: Vec<_> = origins.iter().map(Origin::addr).collect();
    let fleet = Plan::over(5, &addrs, "health = { check = 'tcp', interval = '5s' }").start();
    fleet.await_equal();
    // What a fleet says as it begins is no cost of standing still: the first votes come an interval after the start.
    let votes = PROBERS * origins.len();
    eventually("every vote is cast and told", || {
        let all = fleet.peers.iter().map(Peer::fleet);
        all.into_iter()
            .all(|fleet| fleet["facts"]["vote"] == votes && fleet["dirty"] == 0)
    });
    let (begun, before) = (now(), fleet.peers.iter().map(cost).collect::<Vec<_>>());
    let window = Duration::from_secs(scaled(5, 28));
    eventually("a while without work", || begun.elapsed() >= window);
    let took = begun.elapsed().as_secs_f64();
    for (peer, (bytes, cpu)) in fleet.peers.iter().zip(before) {
        let after = cost(peer);
        let rates = [0, 1, 2].map(|kind| (after.0[kind] - bytes[kind]) / took);
        let (all, cpu) = (rates.iter().sum::<f64>(), (after.1 - cpu) as f64 / took);
        eprintln!(
            "an idle member of 5 sends {all:.0} bytes/s ({KINDS:?}: {rates:.0?}) and needs {cpu:.2} % of a core"
        );
        // Several times what it needs while it still asks around who else is there; more is a storm.
        assert!(all < 20_000.0, "{all}");
    }
}
