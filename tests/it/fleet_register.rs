//! Endpoints that register themselves over HTTP: at one peer, and members at all.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::net::SocketAddr;

use crate::support::client::{Client, Response};
use crate::support::eventually::eventually;
use crate::support::fleet::{Fleet, Peer, Plan, TOKEN, await_each};
use crate::support::now;
use crate::support::origin::Origin;

/// The life of what is renewed twice a second.
const TTL: &str = "5s";

/// Peers that take registrations for `app` over one endpoint of the file; `fixed` takes none.
fn start(peers: usize, of_file: SocketAddr) -> Fleet {
    let mut plan = Plan::over(peers, &[of_file], "balance = 'round_robin'");
    plan.tables += "[upstreams.fixed]\nendpoints = ['127.0.0.1:1']\n";
    plan.start_to_register()
}

/// How many registrations it knows.
fn registrations(peer: &Peer) -> u64 {
    peer.fleet()["facts"]["registration"].as_u64().unwrap()
}

fn path(endpoint: SocketAddr, ttl: &str) -> String {
    let query = if ttl.is_empty() {
        String::new()
    } else {
        format!("?ttl={ttl}")
    };
    format!("/v1/upstreams/app/endpoints/{endpoint}{query}")
}

#[track_caller]
fn put(peer: &Peer, endpoint: SocketAddr, ttl: &str) -> Response {
    let answer = peer.registrar("PUT", &path(endpoint, ttl), TOKEN);
    assert!(matches!(answer.status(), 200 | 201), "{}", answer.text());
    answer
}

/// Renews at this peer until that is so.
#[track_caller]
fn renew_until(peer: &Peer, endpoint: SocketAddr, what: &str, mut is_so: impl FnMut() -> bool) {
    let mut renewed = now();
    eventually(what, || {
        if renewed.elapsed().as_millis() > 500 {
            renewed = now();
            let _ = put(peer, endpoint, TTL);
        }
        is_so()
    });
}

#[test]
fn endpoint_registers_at_one_peer_and_is_a_member_at_all() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let fleet = start(3, a.addr());
    let answer = put(&fleet.peers[0], b.addr(), "60s");
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let took = fleet.await_all("a member", |peer| peer.effective(b.addr()) == "active 1");
    eprintln!("who registered is a member at all three after {took:?}");
    for peer in &fleet.peers {
        eventually("it serves", || Client::get(peer.web, "/").text() == "b");
    }
    // What is renewed is not said again: it would change what is known each time. (Peers that have just begun may say
    // something of themselves at the same time.)
    eventually("renewals stay local", || {
        let known = || [0, 2].map(|n| fleet.peers[n].digest());
        let before = known();
        assert_eq!(put(&fleet.peers[0], b.addr(), "60s").status(), 200);
        known() == before
    });
    for peer in [&fleet.peers[0], &fleet.peers[2]] {
        let registered = peer.fleet()["facts"]["registration"].as_u64();
        assert_eq!(registered, Some(1));
    }

    let left = fleet.peers[0].registrar("DELETE", &path(b.addr(), ""), TOKEN);
    assert!(matches!(left.status(), 200 | 204), "{}", left.text());
    let took = fleet.await_all("it has gone", |peer| !peer.has(b.addr()));
    eprintln!("who took it back is gone at all three after {took:?}");
}

#[test]
fn endpoint_that_does_not_renew_is_gone() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let fleet = start(3, a.addr());
    put(&fleet.peers[1], b.addr(), "20s");
    fleet.await_all("a member", |peer| peer.has(b.addr()));
    // A shorter life, from now on; the endpoint says no more.
    put(&fleet.peers[1], b.addr(), "1s");
    let took = fleet.await_all("it has gone", |peer| !peer.has(b.addr()));
    eprintln!("a ttl of 1 s has ended at all three after {took:?}");
}

#[test]
fn who_registered_outlives_the_peer_where_it_did() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let mut fleet = start(3, a.addr());
    let dead = fleet.peers[0].id();
    renew_until(&fleet.peers[0], b.addr(), "a member", || {
        fleet.peers.iter().all(|peer| peer.has(b.addr()))
    });
    let _ = put(&fleet.peers[0], b.addr(), TTL);
    fleet.peers[0].kill();
    let others = [&fleet.peers[1], &fleet.peers[2]];
    // It renews at another peer, as its client would.
    renew_until(others[0], b.addr(), "the registrar is missed", || {
        assert!(others.iter().all(|peer| peer.has(b.addr())));
        others.iter().all(|peer| peer.state_of(&dead) == "down")
    });
    for peer in others {
        assert_eq!(
            registrations(peer),
            2,
            "that of the dead one, and one of its own"
        );
    }
    let left = others[0].registrar("DELETE", &path(b.addr(), ""), TOKEN);
    assert_eq!(left.status(), 200, "{}", left.text());
    await_each(&others, "one registration is no more", |peer| {
        registrations(peer) == 1
    });
    // What the dead one was told holds for three of its lives, and no longer.
    let took = await_each(&others, "it has gone", |peer| !peer.has(b.addr()));
    eprintln!("an orphan of {TTL} is gone {took:?} after it was taken back elsewhere");
}

#[test]
fn who_may_not_register_is_told_why() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let fleet = start(2, a.addr());
    let peer = &fleet.peers[0];
    let cases = [
        (
            path(b.addr(), "10s"),
            "another token than that of tests",
            401,
        ),
        (
            "/v1/upstreams/fixed/endpoints/127.0.0.1:2".to_owned(),
            TOKEN,
            409,
        ),
        (
            "/v1/upstreams/nobody/endpoints/127.0.0.1:2".to_owned(),
            TOKEN,
            404,
        ),
        (path(b.addr(), "61s"), TOKEN, 422),
        (path(b.addr(), "1ms"), TOKEN, 422),
    ];
    for (path, token, status) in cases {
        let answer = peer.registrar("PUT", &path, token);
        assert_eq!(answer.status(), status, "{path}: {}", answer.text());
    }
    for peer in &fleet.peers {
        assert!(!peer.has(b.addr()));
        assert_eq!(registrations(peer), 0);
    }
}
