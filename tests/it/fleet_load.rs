//! Five peers over four endpoints under load: what is said at one, or dies, is so at all of them soon, and costs
//! nobody a request.

#![expect(clippy::print_stderr, reason = "a test's figures are printed")]

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::asking::Asking;
use crate::support::child::Server;
use crate::support::fleet::{Fleet, Peer, Plan};

/// What peers are to agree within where others test too. On a machine that has time for it what is said is so at all
/// within 2 s, and what checks find within 5 s.
const AGREED: Duration = Duration::from_secs(10);

/// Waits until all say so, and holds how long it took against what it may take.
#[track_caller]
fn agree(fleet: &Fleet, what: &str, is_so: impl Fn(&Peer) -> bool) {
    let took = fleet.await_all(what, is_so);
    eprintln!("{what}: at all five after {took:?}");
    assert!(took < AGREED, "{what}: {took:?}");
}

/// Waits until all five say this of an endpoint.
#[track_caller]
fn agree_on(fleet: &Fleet, what: &str, endpoint: SocketAddr, effective: &str) {
    agree(fleet, what, |peer| peer.effective(endpoint) == effective);
}

#[test]
fn five_peers_agree_and_nobody_loses_a_request() {
    let mut servers: Vec<Server> = (0..4).map(|n| Server::start(&n.to_string())).collect();
    let addrs: Vec<SocketAddr> = servers.iter().map(Server::addr).collect();
    let health = "health = { check = 'http', path = '/health', interval = '1s' }";
    let fleet = Plan::over(5, &addrs[..3], health).start();
    let at = |n: usize| &fleet.peers[n];
    let proxies: Vec<SocketAddr> = fleet.peers.iter().map(|peer| peer.web).collect();
    let load = Asking::start(&proxies);
    load.await_more(20);

    let added = addrs[3];
    at(0).add(added);
    agree_on(&fleet, "an endpoint that was added", added, "active 1");
    load.await_more(10);
    at(1).set_state(added, "drain");
    agree_on(&fleet, "a drain", added, "drain 1");
    at(2).set_state(added, "active");
    agree_on(&fleet, "the end of a drain", added, "active 1");
    at(3).set_weight(added, 7);
    agree_on(&fleet, "a weight", added, "active 7");
    at(4).set_state(addrs[0], "disable");
    agree_on(
        &fleet,
        "an endpoint of the file that is disabled",
        addrs[0],
        "disable 1",
    );
    load.await_more(10);
    at(0).set_state(addrs[0], "active");
    agree_on(&fleet, "its end", addrs[0], "active 1");
    at(1).remove(added);
    agree_on(&fleet, "an endpoint that was removed", added, "-");
    load.await_more(10);

    let died = addrs[1];
    agree(&fleet, "checks that passed", |peer| {
        peer.health(died) == "up"
    });
    servers[1].kill();
    agree(&fleet, "an endpoint that died", |peer| {
        peer.health(died) == "down"
    });
    load.await_more(20);
    servers[1].restart();
    agree(&fleet, "its return", |peer| peer.health(died) == "up");
    load.await_more(20);

    let (answers, failures) = load.end();
    eprintln!("{answers} requests");
    assert!(failures.is_empty(), "{failures:#?}");
    fleet.await_equal();
    // Every effect is in the history of those who were told, with the peer that caused it.
    let teller = at(1).id();
    for peer in [0, 2, 3, 4].map(at) {
        let history = peer.control.json("/v1/history").to_string();
        assert!(history.contains(&teller), "{history}");
    }
}
