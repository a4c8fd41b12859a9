//! A second attempt beside a first one that is late.

use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

/// A proxy that hedges after 10 ms: endpoints in turn, the first gets the first request.
fn hedging(endpoints: &[SocketAddr], more: &str) -> Proxy {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\n\
         [[routes]]\nupstream = 'app'\n\
         retry = {{ hedge_after = '10ms', attempts = 3{more} }}\n\
         [upstreams.app]\nbalance = 'round_robin'\nendpoints = [{}]\n",
        endpoints.join(", ")
    ))
}

fn hedges(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(&format!(
        "isobar_upstream_hedges_total{{upstream=\"app\",result=\"{result}\"}}"
    ))
}

fn outcome(proxy: &Proxy, endpoint: SocketAddr, outcome: &str) -> f64 {
    proxy.metric(&format!(
        "isobar_endpoint_requests_total{{upstream=\"app\",endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}"
    ))
}

/// Says nothing until the gate opens.
fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |_| {
        let mut steps = vec![Step::Pass(gate.clone())];
        steps.extend(origin::reply(200, "first"));
        steps
    })
}

#[test]
fn whoever_answers_first_is_taken_and_the_other_called_off() {
    let gate = Gate::new();
    let (slow, quick) = (held(&gate), Origin::named("second"));
    let proxy = hedging(&[slow.addr(), quick.addr()], "");
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/").text(), "second");
    assert_eq!((hedges(&proxy, "won"), hedges(&proxy, "lost")), (1.0, 0.0));
    assert_eq!(outcome(&proxy, slow.addr(), "cancelled"), 1.0);
    assert_eq!(outcome(&proxy, quick.addr(), "ok"), 1.0);
    // The connection serves on, both the client's and the winner's.
    assert_eq!(client.request("GET", "/").text(), "second");
    assert_eq!(quick.accepted(), 1);
    gate.open();
    slow.await_open(0);
    let in_flight = format!(
        "isobar_endpoint_in_flight{{upstream=\"app\",endpoint=\"{}\"}}",
        slow.addr()
    );
    assert_eq!(proxy.metric(&in_flight), 0.0);
}

#[test]
fn one_that_loses_is_called_off_too() {
    let (first, second) = (Gate::new(), Gate::new());
    let (slow, slower) = (held(&first), held(&second));
    let proxy = hedging(&[slow.addr(), slower.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    second.await_reached(1);
    first.open();
    assert_eq!(client.response().text(), "first");
    assert_eq!((hedges(&proxy, "won"), hedges(&proxy, "lost")), (0.0, 1.0));
    assert_eq!(outcome(&proxy, slower.addr(), "cancelled"), 1.0);
    second.open();
    slower.await_open(0);
}

#[test]
fn if_the_first_breaks_the_second_goes_on() {
    let (first, second) = (Gate::new(), Gate::new());
    let gate = first.clone();
    let breaks = Origin::start(move |_| vec![Step::Pass(gate.clone()), Step::Reset]);
    let slow = held(&second);
    let proxy = hedging(&[breaks.addr(), slow.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    second.await_reached(1);
    first.open();
    eventually("the break to be counted", || {
        outcome(&proxy, breaks.addr(), "reset") == 1.0
    });
    second.open();
    assert_eq!(client.response().text(), "first");
    assert_eq!(slow.requests().len(), 1, "asked once");
}

#[test]
fn if_the_second_breaks_the_first_goes_on() {
    let gate = Gate::new();
    let slow = held(&gate);
    let broken = Origin::always(vec![Step::Reset]);
    let proxy = hedging(&[slow.addr(), broken.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the hedge to break", || {
        outcome(&proxy, broken.addr(), "reset") == 1.0
    });
    gate.open();
    assert_eq!(client.response().text(), "first");
    assert_eq!((hedges(&proxy, "won"), hedges(&proxy, "lost")), (0.0, 1.0));
}

#[test]
fn what_may_not_be_sent_twice_is_not_hedged() {
    let gate = Gate::new();
    let (slow, quick) = (held(&gate), Origin::named("second"));
    let proxy = hedging(&[slow.addr(), quick.addr()], "");
    for request in [
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab",
    ] {
        // Round robin: each of these goes to the slow one, the one between them to the other.
        let mut client = Client::connect(proxy.addr());
        client.send(request);
        slow.await_requests(1);
        client.expect_silence(std::time::Duration::from_millis(50));
        client.reset();
        assert_eq!(Client::get(proxy.addr(), "/").text(), "second");
    }
    assert_eq!((hedges(&proxy, "won"), hedges(&proxy, "lost")), (0.0, 0.0));
    gate.open();
}

#[test]
fn without_budget_nobody_is_hedged() {
    let gate = Gate::new();
    let (slow, quick) = (held(&gate), Origin::named("second"));
    let endpoints = [slow.addr(), quick.addr()];
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\n\
         [[routes]]\nupstream = 'app'\nretry = {{ hedge_after = '10ms', budget = '0%' }}\n\
         [upstreams.app]\nbalance = 'round_robin'\nretry_floor = 0\nendpoints = [{}]\n",
        endpoints.join(", ")
    ));
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the budget to refuse", || {
        proxy.metric("isobar_upstream_retry_budget_refusals_total{upstream=\"app\"}") == 1.0
    });
    gate.open();
    assert_eq!(client.response().text(), "first");
    assert_eq!(quick.requests().len(), 0);
}

/// After enough responses the proxy knows what is late: only a request that takes longer is hedged.
#[test]
fn a_learnt_percentile_hedges_what_is_late() {
    let gate = Gate::new();
    let late = gate.clone();
    let origin = move |name: &'static str| {
        let late = late.clone();
        Origin::start(move |request| {
            let mut steps = Vec::new();
            if name == "first" && request.head.start.contains("/late") {
                steps.push(Step::Pass(late.clone()));
            }
            steps.extend(origin::reply(200, name));
            steps
        })
    };
    let (first, second) = (origin("first"), origin("second"));
    let endpoints = [first.addr(), second.addr()].map(|e| format!("'{e}'"));
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\n\
         [[routes]]\nupstream = 'app'\nretry = {{ hedge_after = 'p99' }}\n\
         [upstreams.app]\nbalance = 'round_robin'\nretry_floor = 10000\nendpoints = [{}]\n",
        endpoints.join(", ")
    ));
    let mut client = Client::connect(proxy.addr());
    for _ in 0..400 {
        assert_eq!(client.request("GET", "/").status(), 200);
    }
    // Whichever of the two comes first gets it; of two such requests one meets the one that waits.
    let mut won = 0.0;
    for _ in 0..2 {
        let before = hedges(&proxy, "won");
        assert_eq!(client.request("GET", "/late").text(), "second");
        won += hedges(&proxy, "won") - before;
    }
    assert!(won >= 1.0, "{won}");
    gate.open();
}

/// An answer that says "not well" is none to be taken: the first attempt may do better.
#[test]
fn a_second_one_that_fails_fast_does_not_win() {
    let gate = Gate::new();
    let slow = held(&gate);
    let broken = Origin::always(origin::reply(500, "broken"));
    let proxy = hedging(&[slow.addr(), broken.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the hedge to fail", || {
        outcome(&proxy, broken.addr(), "server_error") == 1.0
    });
    gate.open();
    assert_eq!(client.response().text(), "first");
    assert_eq!((hedges(&proxy, "won"), hedges(&proxy, "lost")), (0.0, 1.0));
}

/// The first one's answer is one that the route tries elsewhere: elsewhere it is tried already.
#[test]
fn a_second_one_is_taken_for_the_retry_of_a_status() {
    let (first, second) = (Gate::new(), Gate::new());
    let gate = first.clone();
    let sick = Origin::start(move |_| {
        let mut steps = vec![Step::Pass(gate.clone())];
        steps.extend(origin::reply(503, "sick"));
        steps
    });
    let slow = held(&second);
    let proxy = hedging(&[sick.addr(), slow.addr()], ", on = ['503']");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    second.await_reached(1);
    first.open();
    eventually("the first answer to be counted", || {
        outcome(&proxy, sick.addr(), "server_error") == 1.0
    });
    second.open();
    assert_eq!(client.response().text(), "first");
    assert_eq!(slow.requests().len(), 1, "asked once");
}
