//! The limits of routes: how often (`rate_limit`), and how many at once (`max_concurrent`).
//!
//! Rates are one an hour here: what is let through is the burst, to the request, however slow the
//! machine.

use std::net::SocketAddr;

use isobar::telemetry::reason::Reason;

use crate::support::client::{Client, Response};
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::watched::{Watched, expect_answer};

/// The routes of a test over one upstream.
fn routes(endpoint: SocketAddr, routes: &str) -> String {
    format!("{routes}\n[upstreams.app]\nendpoints = ['{endpoint}']\n")
}

/// One route `api` with these keys, for everything.
fn route(endpoint: SocketAddr, keys: &str) -> String {
    let one = format!("[[routes]]\nname = 'api'\nupstream = 'app'\n{keys}");
    routes(endpoint, &one)
}

/// The same, with two workers.
fn two_workers(endpoint: SocketAddr, keys: &str) -> String {
    format!(
        "[process]\nworkers = 2\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\n{}",
        route(endpoint, keys)
    )
}

fn ask(mut client: Client, field: &str) -> Response {
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{field}\r\n"));
    client.response()
}

/// How many of `n` requests with that field are let through; the others must be refused as they should.
#[track_caller]
fn let_through(addr: SocketAddr, field: &str, n: usize) -> usize {
    let mut passed = 0;
    for _ in 0..n {
        let answer = ask(Client::connect(addr), field);
        if answer.status() == 200 {
            passed += 1;
        } else {
            expect_answer(&answer, Reason::RateLimit);
            let after = answer.field("retry-after").map(str::parse::<u32>);
            let Some(Ok(after)) = after else {
                panic!("no Retry-After: {:?}", answer.head);
            };
            assert!((1..=3600).contains(&after), "one comes every hour: {after}");
        }
    }
    passed
}

#[test]
fn a_burst_is_let_through_to_the_request_by_whatever_key() {
    let origin = Origin::named("a");
    for (key, one, other) in [
        ("route", "", ""),
        ("header:x-user", "X-User: one\r\n", "X-User: other\r\n"),
        ("header:x-user", "X-User: one\r\n", ""),
        (
            "cookie:id",
            "Cookie: a=b; id=one\r\n",
            "Cookie: id=other\r\n",
        ),
        ("cookie:id", "Cookie: id=one\r\n", "Cookie: ida=one\r\n"),
    ] {
        let limit = format!("rate_limit = {{ key = '{key}', rate = 1, per = '1h', burst = 5 }}");
        let watched = Watched::start("", &route(origin.addr(), &limit));
        let before = origin.requests().len();
        assert_eq!(let_through(watched.addr(), one, 12), 5, "{key} {one}");
        let others = if key == "route" { 0 } else { 5 };
        assert_eq!(
            let_through(watched.addr(), other, 8),
            others,
            "{key} {other}"
        );
        assert_eq!(origin.requests().len() - before, 5 + others);
        let refused = "isobar_http_refusals_total{route=\"api\",reason=\"rate_limit\"}";
        watched.await_metric(refused, (20 - 5 - others) as f64);
        let lines = watched.await_log("20 lines", |lines| lines.len() >= 20);
        let refused = lines.iter().filter(|l| l["reason"] == "rate_limit");
        let refused: Vec<_> = refused.collect();
        assert_eq!(refused.len(), 20 - 5 - others);
        for line in refused {
            assert_eq!(
                (&line["status"], &line["who"]),
                (&429.into(), &"client".into())
            );
            assert_eq!(
                (&line["route"], line["upstream"].is_string()),
                (&"api".into(), false)
            );
        }
    }
}

#[test]
fn clients_are_counted_apart() {
    let origin = Origin::named("a");
    let limit = "rate_limit = { rate = 1, per = '1h', burst = 3 }";
    let watched = Watched::start("", &route(origin.addr(), limit));
    assert_eq!(let_through(watched.addr(), "", 5), 3);
    // The whole of 127.0.0.0/8 is this machine.
    let other = || Client::connect_from([127, 0, 0, 2].into(), watched.addr());
    let answers: Vec<u16> = (0..4).map(|_| ask(other(), "").status()).collect();
    assert_eq!(answers, [200, 200, 200, 429]);
}

#[test]
fn a_connection_that_is_kept_is_counted_by_requests_and_stays_open() {
    let origin = Origin::named("a");
    let limit = "rate_limit = { rate = 1, per = '1h', burst = 2 }";
    let watched = Watched::start("", &route(origin.addr(), limit));
    let mut client = watched.connect();
    let statuses: Vec<u16> = (0..4)
        .map(|_| client.request("GET", "/").status())
        .collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[test]
fn it_is_exact_across_workers() {
    let origin = Origin::named("a");
    let limit = "rate_limit = { key = 'route', rate = 1, per = '1h', burst = 20 }";
    let proxy = Proxy::start(&two_workers(origin.addr(), limit));
    let addr = proxy.addr();
    let threads: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || let_through(addr, "", 10)))
        .collect();
    let passed = threads.into_iter().map(|t| t.join().expect("a thread"));
    assert_eq!(passed.sum::<usize>(), 20);
}

#[test]
fn every_one_of_several_limits_counts_what_those_before_it_let_pass() {
    let origin = Origin::named("a");
    let limits = "rate_limit = [\
                    { key = 'route', rate = 1, per = '1h', burst = 4 },\
                    { key = 'header:x-user', rate = 1, per = '1h', burst = 2 } ]";
    let watched = Watched::start("", &route(origin.addr(), limits));
    let statuses: Vec<u16> = ["one", "one", "one", "two", "two"]
        .map(|user| ask(watched.connect(), &format!("X-User: {user}\r\n")).status())
        .into();
    assert_eq!(statuses, [200, 200, 429, 200, 429]);
}

#[test]
fn other_routes_are_not_touched() {
    let origin = Origin::named("a");
    let two = "[[routes]]\nname = 'api'\npath = '/'\nupstream = 'app'\n\
               rate_limit = { rate = 1, per = '1h' }\n\
               [[routes]]\nname = 'other'\npath = '/other'\nupstream = 'app'\n";
    let watched = Watched::start("", &routes(origin.addr(), two));
    assert_eq!(let_through(watched.addr(), "", 3), 1);
    for _ in 0..3 {
        assert_eq!(Client::get(watched.addr(), "/other").status(), 200);
    }
}

#[test]
fn observe_counts_and_refuses_nobody() {
    let origin = Origin::named("a");
    let limit = "rate_limit = { rate = 1, per = '1h', burst = 3, mode = 'observe' }";
    let watched = Watched::start("", &route(origin.addr(), limit));
    assert_eq!(let_through(watched.addr(), "", 10), 10);
    watched.await_metric(
        "isobar_http_observed_refusals_total{route=\"api\",reason=\"rate_limit\"}",
        7.0,
    );
    let refused = "isobar_http_refusals_total{route=\"api\",reason=\"rate_limit\"}";
    assert_eq!(watched.proxy.metric(refused), 0.0);
}

#[test]
fn what_was_counted_outlives_a_reload_of_other_things() {
    let origin = Origin::named("a");
    let limit = "rate_limit = { key = 'route', rate = 1, per = '1h', burst = 4 }";
    let before = two_workers(origin.addr(), limit);
    let proxy = Proxy::start(&before);
    assert_eq!(let_through(proxy.addr(), "", 3), 3);
    let other = format!("{limit}\ntimeout = '20s'\n[[routes]]\npath = '/more'\nupstream = 'app'\n");
    proxy.reload(
        &two_workers(origin.addr(), &other)
            .replace("workers = 2\n", "workers = 2\nwatch = false\n"),
    );
    assert_eq!(let_through(proxy.addr(), "", 5), 1);
    // Another limit begins anew.
    proxy.reload(&before.replace("burst = 4", "burst = 6"));
    assert_eq!(let_through(proxy.addr(), "", 10), 6);
}

// === max_concurrent ===

/// An origin that answers when the gate is opened.
fn held(gate: &Gate) -> Origin {
    let answer = origin::response(200, "a");
    Origin::always(vec![Step::Pass(gate.clone()), Step::Send(answer)])
}

const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn no_more_than_max_concurrent_of_fifty_are_let_in() {
    let gate = Gate::new();
    let origin = held(&gate);
    let proxy = Proxy::start(&two_workers(origin.addr(), "max_concurrent = 10"));
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut clients {
        client.send(GET);
    }
    origin.await_requests(10);
    let refused = "isobar_http_refusals_total{route=\"api\",reason=\"route_limit\"}";
    eventually("40 refusals", || proxy.metric(refused) == 40.0);
    assert_eq!(origin.requests().len(), 10);
    gate.open();
    let mut passed = 0;
    for client in &mut clients {
        let answer = client.response();
        if answer.status() == 200 {
            passed += 1;
        } else {
            expect_answer(&answer, Reason::RouteLimit);
            assert_eq!(answer.field("retry-after"), Some("1"));
        }
    }
    assert_eq!(passed, 10);
    // All places are free again.
    let in_flight = "isobar_http_requests_in_flight{route=\"api\"}";
    eventually("nothing in flight", || proxy.metric(in_flight) == 0.0);
    assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
}

#[test]
fn place_of_a_client_that_aborts_is_free_again() {
    let origin = Origin::start(|request| match request.head.target() {
        "/held" => vec![Step::AwaitClose],
        _ => origin::reply(200, "a"),
    });
    let watched = Watched::start("", &route(origin.addr(), "max_concurrent = 1"));
    let mut holder = watched.connect();
    holder.send("GET /held HTTP/1.1\r\nHost: t\r\n\r\n");
    origin.await_requests(1);
    watched.expect_refusal(&mut sent(&watched), Reason::RouteLimit, Some("api"));
    holder.reset();
    eventually("its place is free", || {
        Client::get(watched.addr(), "/").status() == 200
    });
}

/// A client that has asked.
fn sent(watched: &Watched) -> Client {
    let mut client = watched.connect();
    client.send(GET);
    client
}

#[test]
fn tunnel_holds_its_place_for_as_long_as_it_is_open() {
    let origin = Origin::start(|request| match request.head.field("upgrade") {
        Some(_) => origin::tunnel(),
        None => origin::reply(200, "a"),
    });
    let watched = Watched::start("", &route(origin.addr(), "max_concurrent = 1"));
    let mut tunnel = watched.connect();
    tunnel.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(tunnel.head().status(), 101);
    tunnel.send("ping");
    assert_eq!(tunnel.exactly(4), b"ping");
    watched.expect_refusal(&mut sent(&watched), Reason::RouteLimit, Some("api"));
    tunnel.finish();
    assert_eq!(tunnel.read_to_end(), b"");
    eventually("its place is free", || {
        Client::get(watched.addr(), "/").status() == 200
    });
}

#[test]
fn observed_max_concurrent_counts_and_refuses_nobody() {
    let gate = Gate::new();
    let origin = held(&gate);
    let limit = "max_concurrent = { limit = 2, mode = 'observe' }";
    let watched = Watched::start("", &route(origin.addr(), limit));
    let mut clients: Vec<_> = (0..5).map(|_| sent(&watched)).collect();
    origin.await_requests(5);
    watched.await_metric(
        "isobar_http_observed_refusals_total{route=\"api\",reason=\"route_limit\"}",
        3.0,
    );
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn reload_that_raises_max_concurrent_counts_those_who_are_in() {
    let gate = Gate::new();
    let origin = held(&gate);
    let proxy = Proxy::start(&two_workers(origin.addr(), "max_concurrent = 2"));
    let mut held: Vec<_> = (0..2).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut held {
        client.send(GET);
    }
    origin.await_requests(2);
    proxy.reload(&two_workers(origin.addr(), "max_concurrent = 3"));
    let mut third = Client::connect(proxy.addr());
    third.send(GET);
    origin.await_requests(3);
    let refused = Client::get(proxy.addr(), "/");
    expect_answer(&refused, Reason::RouteLimit);
    gate.open();
    for client in held.iter_mut().chain([&mut third]) {
        assert_eq!(client.response().status(), 200);
    }
}
