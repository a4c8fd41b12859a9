//! Shared checks: every endpoint is asked by three of five peers, not by all, and by others when one of them dies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::eventually::eventually;
use crate::support::fleet::{Fleet, Peer, Plan};
use crate::support::origin::Origin;
use crate::support::{not_run, now, scaled};

const ENDPOINTS: usize = 20;
const PROBERS: usize = 3;
const INTERVAL: Duration = Duration::from_millis(500);

fn start() -> (Vec<Origin>, Fleet) {
    let origins: Vec<Origin> = (0..ENDPOINTS)
        .map(|n| Origin::named(&n.to_string()))
        .collect();
    let addrs: Vec<SocketAddr> = origins.iter().map(Origin::addr).collect();
    let health =
        "health = { check = 'http', path = '/health', interval = '500ms', timeout = '500ms' }";
    let fleet = Plan::over(5, &addrs, health).start();
    (origins, fleet)
}

/// Waits until the peers that run have divided the checks among them.
#[track_caller]
fn await_divided(fleet: &Fleet) {
    eventually("every endpoint has three peers that ask it", || {
        let peers = fleet.peers.iter().filter(|peer| peer.is_running());
        duties(peers) == PROBERS * ENDPOINTS
    });
}

fn duties<'a>(peers: impl Iterator<Item = &'a Peer>) -> usize {
    let mine = |peer: &Peer| peer.fleet()["duties"]["mine"].as_u64().unwrap_or_default();
    peers.map(mine).sum::<u64>() as usize
}

/// Since when each peer holds which of the others to be what: the same before and after = nobody doubted anybody.
fn seen(fleet: &Fleet) -> BTreeMap<(String, String), String> {
    let peers = fleet.peers.iter().filter(|peer| peer.is_running());
    let all = peers.flat_map(|peer| {
        let of = |member: serde_json::Value| {
            let state = member["state"].to_string();
            ((peer.gossip.to_string(), member["peer"].to_string()), state)
        };
        peer.members().into_iter().map(of).collect::<Vec<_>>()
    });
    all.collect()
}

fn checks(origins: &[Origin]) -> usize {
    origins.iter().map(|origin| origin.count("GET")).sum()
}

/// Checks that did not pass, at all peers: each makes others ask at once.
fn failed(fleet: &Fleet) -> f64 {
    let of = |peer: &Peer| {
        peer.metrics(|series| {
            series.starts_with("isobar_health_checks_total{") && !series.contains("result=\"ok\"")
        })
    };
    fleet.peers.iter().map(of).sum()
}

#[test]
fn endpoints_are_asked_by_three_peers_and_not_by_five() {
    let (origins, fleet) = start();
    let rounds = scaled(10, 25);
    let each_round = PROBERS * ENDPOINTS;
    // Where a peer or an endpoint was doubted meanwhile, as on a machine without time, others ask too: what is
    // counted then says nothing.
    for _ in 0..4 {
        await_divided(&fleet);
        let was = (seen(&fleet), failed(&fleet));
        let (begun, before) = (now(), checks(&origins));
        eventually("checks", || {
            checks(&origins) >= before + rounds * each_round
        });
        let (count, took) = (checks(&origins) - before, begun.elapsed());
        let intervals = took.as_secs_f64() / INTERVAL.as_secs_f64();
        let most = 1.1 * each_round as f64 * intervals + each_round as f64;
        let naive = (fleet.peers.len() * ENDPOINTS) as f64 * intervals;
        eprintln!(
            "{count} checks of {ENDPOINTS} endpoints by 5 peers in {took:?}: {:.2} x k x M, \
             where each for itself would be {naive:.0}",
            count as f64 / (each_round as f64 * intervals)
        );
        if count as f64 <= most && (count as f64) < 0.8 * naive {
            return;
        }
        let is_steady = (seen(&fleet), failed(&fleet)) == was;
        assert!(!is_steady, "{count} checks, at most {most:.0}");
    }
    not_run("this machine has no time for checks");
}

#[test]
fn checks_of_a_peer_that_dies_are_taken_over() {
    let (origins, mut fleet) = start();
    await_divided(&fleet);
    fleet.peers[1].kill();
    let others: Vec<usize> = vec![0, 2, 3, 4];
    eventually("four peers", || {
        others.iter().all(|&n| fleet.peers[n].alive() == 4)
    });
    await_divided(&fleet);
    for origin in &origins {
        let had = origin.count("GET");
        eventually("each endpoint is asked on", || {
            origin.count("GET") >= had + 2 * PROBERS
        });
    }
    fleet.peers[1].start();
    fleet.await_whole();
    await_divided(&fleet);
}
