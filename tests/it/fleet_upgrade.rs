//! The program of a peer is replaced while its fleet runs: it is the same peer, and nothing is lost.

use crate::support::asking::Asking;
use crate::support::fleet::{Fleet, Peer, Plan, TOKEN};
use crate::support::origin::Origin;
use crate::support::unreachable::Refusing;

/// Peers that take registrations.
fn start(origin: &Origin) -> Fleet {
    Plan::over(3, &[origin.addr()], "").start_to_register()
}

#[test]
fn successor_is_the_same_peer_and_nothing_is_lost() {
    let (origin, added, registered) = (Origin::named("a"), Origin::named("a"), Origin::named("a"));
    let mut fleet = start(&origin);
    let ids: Vec<String> = fleet.peers.iter().map(Peer::id).collect();
    fleet.peers[0].add(added.addr());
    let path = format!("/v1/upstreams/app/endpoints/{}?ttl=60s", registered.addr());
    let answer = fleet.peers[0].registrar("PUT", &path, TOKEN);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let is_told = |peer: &Peer| peer.has(added.addr()) && peer.has(registered.addr());
    fleet.await_all("what was said", is_told);
    let proxies: Vec<_> = fleet.peers.iter().map(|peer| peer.web).collect();
    let load = Asking::start(&proxies);
    load.await_more(10);

    let began = fleet.peers[0].fleet()["members"].clone();
    fleet.peers[0].upgrade();
    eprintln!(
        "before {began}, after {}",
        fleet.peers[1].fleet()["members"]
    );
    assert_eq!(fleet.peers[0].id(), ids[0], "the same peer");
    assert!(fleet.peers.iter().all(is_told));
    // It speaks with the others as before, and they with it.
    let new = Refusing::new();
    fleet.peers[0].add(new.addr);
    let took = fleet.await_all("what the successor says", |peer| peer.has(new.addr));
    fleet.peers[0].remove(new.addr);
    fleet.await_all("what the successor says", |peer| !peer.has(new.addr));
    eprintln!("what the successor says is so at all after {took:?}");
    let new = Refusing::new();
    fleet.peers[1].add(new.addr);
    fleet.await_all("what the successor is told", |peer| peer.has(new.addr));
    fleet.peers[1].remove(new.addr);
    fleet.await_whole();
    // Endpoints go on registering there.
    let again = fleet.peers[0].registrar("PUT", &path, TOKEN);
    assert_eq!(again.status(), 200, "{}", again.text());
    assert!(fleet.peers.iter().all(is_told));
    for peer in &fleet.peers {
        assert_eq!(peer.members().len(), 3);
    }
    load.await_more(10);
    let (answers, failures) = load.end();
    eprintln!("{answers} requests");
    assert!(failures.is_empty(), "{failures:#?}");
    fleet.await_equal();
}
