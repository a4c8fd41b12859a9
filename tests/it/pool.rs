//! Connections to endpoints: reuse, what is never reused, limits of what is kept.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

/// A series of the upstream `app`, with one more label.
fn of_app(proxy: &Proxy, name: &str, label: &str) -> f64 {
    proxy.metric(&format!(
        "isobar_upstream_{name}{{upstream=\"app\"{label}}}"
    ))
}

fn pooled(proxy: &Proxy, result: &str) -> f64 {
    of_app(proxy, "pool_total", &format!(",result=\"{result}\""))
}

/// Answers `/hold` once the gate is open, everything else at once.
fn holding(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |r| match r.head.target() {
        "/hold" => vec![
            Step::ReadBody,
            Step::Pass(gate.clone()),
            Step::Send(origin::response(200, "held")),
        ],
        _ => origin::reply(200, r.connection.to_string()),
    })
}

/// Has `n` requests in flight at once, then answers them: `n` connections become idle.
fn open_connections(addr: SocketAddr, gate: &Gate, n: usize) {
    let mut clients: Vec<Client> = (0..n).map(|_| Client::connect(addr)).collect();
    for client in &mut clients {
        client.send("GET /hold HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    gate.await_reached(n);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn requests_of_any_client_ride_one_connection_in_turn() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], "");
    for _ in 0..5 {
        assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
    }
    assert_eq!(origin.accepted(), 1);
    assert_eq!(
        (pooled(&proxy, "fresh"), pooled(&proxy, "reused")),
        (1.0, 4.0)
    );
}

#[test]
fn connection_used_last_is_used_first() {
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let scripted = gates.clone();
    let origin = Origin::start(move |r| {
        let held = r.head.target().strip_prefix("/hold/");
        let mut steps = vec![Step::ReadBody];
        if let Some(n) = held {
            steps.push(Step::Pass(scripted[n.parse::<usize>().unwrap()].clone()));
        }
        steps.push(Step::Send(origin::response(200, r.connection.to_string())));
        steps
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut clients: Vec<Client> = (0..3)
        .map(|n| {
            let mut client = Client::connect(proxy.addr());
            client.send(format!("GET /hold/{n} HTTP/1.1\r\nHost: t\r\n\r\n"));
            gates[n].await_reached(1);
            client
        })
        .collect();
    for n in [2, 0, 1] {
        gates[n].open();
        assert_eq!(clients[n].response().text(), n.to_string());
    }
    for _ in 0..4 {
        assert_eq!(
            Client::get(proxy.addr(), "/").text(),
            "1",
            "given back last"
        );
    }
    assert_eq!(origin.accepted(), 3);
}

#[test]
fn connection_that_closed_while_idle_is_not_handed_out() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], "");
    for round in 1..=3 {
        assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
        assert_eq!(origin.accepted(), round);
        origin.close_all();
        origin.await_open(0);
    }
    assert_eq!(origin.count("GET"), 3, "none was sent in vain");
    assert_eq!(of_app(&proxy, "replays_total", ""), 0.0);
}

#[test]
fn bytes_that_came_while_idle_are_never_an_answer() {
    let gate = Gate::new();
    let evil = gate.clone();
    let origin = Origin::start(move |r| match r.connection {
        0 => vec![
            Step::Send(origin::response(200, "first")),
            Step::Pass(evil.clone()),
            Step::Send(origin::response(200, "evil")),
        ],
        _ => origin::reply(200, "second"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    assert_eq!(Client::get(proxy.addr(), "/").text(), "first");
    gate.open();
    origin.await_done(0);
    assert_eq!(Client::get(proxy.addr(), "/").text(), "second");
    assert_eq!((origin.accepted(), origin.count("GET")), (2, 2));
}

#[test]
fn bytes_behind_a_response_are_never_the_next_answer() {
    let origin = Origin::start(|r| match r.connection {
        0 => origin::raw(
            [
                origin::response(200, "first"),
                origin::response(200, "evil"),
            ]
            .concat(),
        ),
        _ => origin::reply(200, "second"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    assert_eq!(Client::get(proxy.addr(), "/").text(), "first");
    assert_eq!(Client::get(proxy.addr(), "/").text(), "second");
    assert_eq!((origin.accepted(), origin.count("GET")), (2, 2));
}

#[test]
fn endpoint_that_says_close_is_believed() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ));
    let proxy = Proxy::over(&[origin.addr()], "");
    for _ in 0..3 {
        assert_eq!(Client::get(proxy.addr(), "/").text(), "ok");
    }
    assert_eq!((origin.accepted(), origin.count("GET")), (3, 3));
    origin.await_open(0);
}

#[test]
fn endpoint_of_http_10_is_asked_on_a_connection_each() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ));
    let proxy = Proxy::over(&[origin.addr()], "");
    for _ in 0..2 {
        assert_eq!(Client::get(proxy.addr(), "/").text(), "ok");
    }
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn connection_whose_request_was_answered_early_is_not_reused() {
    let origin = Origin::start(|r| match r.head.method() {
        "POST" => vec![Step::Send(origin::response(403, "no")), Step::AwaitClose],
        _ => origin::reply(200, "ok"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.response().status(), 403);
    assert_eq!(Client::get(proxy.addr(), "/").text(), "ok");
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn max_idle_bounds_what_is_kept() {
    let gate = Gate::new();
    let origin = holding(&gate);
    let proxy = Proxy::over(&[origin.addr()], "keepalive = { max_idle = 2 }");
    open_connections(proxy.addr(), &gate, 5);
    origin.await_open(2);
    // An endpoint may see it before it is counted.
    eventually("their count", || {
        of_app(&proxy, "pool_closes_total", ",reason=\"full\"") == 3.0
    });
    assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
    assert_eq!(origin.accepted(), 5);
}

#[test]
fn max_idle_of_zero_is_a_connection_a_request() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], "keepalive = { max_idle = 0 }");
    let mut client = Client::connect(proxy.addr());
    for n in 1..=3 {
        assert_eq!(client.request("GET", "/").text(), "a");
        assert_eq!(origin.accepted(), n);
    }
    origin.await_open(0);
    assert_eq!(pooled(&proxy, "reused"), 0.0);
}

#[test]
fn idle_connection_is_closed_after_idle_timeout() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], "keepalive = { idle_timeout = \"50ms\" }");
    assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
    origin.await_open(0);
    eventually("its count", || {
        of_app(&proxy, "pool_closes_total", ",reason=\"expired\"") == 1.0
    });
}

/// Seen red: the youngest close ever seen bounded reuse for good, and every restart has young ones.
#[test]
fn restart_of_an_endpoint_does_not_end_reuse() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], "");
    assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
    origin.close_all();
    origin.await_open(0);
    for _ in 0..5 {
        assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
        // Longer than what a close at once left of the limit.
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn post_rides_a_kept_connection_once_the_endpoint_is_trusted() {
    let gate = Gate::new();
    let origin = holding(&gate);
    let proxy = Proxy::over(&[origin.addr()], "");
    let post = || {
        let mut client = Client::connect(proxy.addr());
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi");
        client.response()
    };
    assert_eq!(post().status(), 200);
    assert_eq!(post().status(), 200);
    assert_eq!(
        (origin.accepted(), pooled(&proxy, "reused")),
        (2, 0.0),
        "not at first"
    );
    // 40 connections that idle give the evidence in a second.
    open_connections(proxy.addr(), &gate, 40);
    let mut posts = 2;
    while pooled(&proxy, "reused") == 0.0 {
        assert_eq!(post().status(), 200);
        posts += 1;
        assert!(posts < 5_000, "never trusted");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(origin.count("POST"), posts);
}
