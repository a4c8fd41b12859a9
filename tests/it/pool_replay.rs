//! Requests whose connection died: which are sent once more, and which never are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::client::{Client, Response};
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Request, Step};
use crate::support::proxy::Proxy;
use crate::support::unreachable::Refusing;

fn replays(proxy: &Proxy) -> f64 {
    proxy.metric("isobar_upstream_replays_total{upstream=\"app\"}")
}

/// Answers what `breaks` does not break; breaks the rest with `steps`.
fn breaking(breaks: fn(&Request) -> bool, steps: Vec<Step>) -> Origin {
    Origin::start(move |r| {
        if breaks(r) {
            steps.clone()
        } else {
            origin::reply(200, "ok")
        }
    })
}

fn on_reused(r: &Request) -> bool {
    r.connection == 0 && r.nth == 1
}

/// A request after one that leaves its connection in the pool.
fn second(proxy: &Proxy, request: &str) -> Response {
    assert_eq!(Client::get(proxy.addr(), "/first").status(), 200);
    let mut client = Client::connect(proxy.addr());
    client.send(request);
    client.response()
}

fn failed_with(response: &Response, reason: &str) {
    assert_eq!(response.status(), 502);
    let told = response.field("proxy-status").unwrap_or_default();
    assert!(told.ends_with(&format!("details=\"{reason}\"")), "{told}");
}

const GET: &str = "GET /second HTTP/1.1\r\nHost: t\r\n\r\n";
const PUT: &str = "PUT /second HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";
const POST: &str = "POST /second HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn get_on_a_reused_connection_that_dies_is_sent_once_more() {
    for death in [Step::Close, Step::Reset] {
        let origin = breaking(on_reused, vec![death]);
        let proxy = Proxy::over(&[origin.addr()], "");
        assert_eq!(second(&proxy, GET).text(), "ok");
        assert_eq!((origin.count("GET"), origin.accepted()), (3, 2));
        assert_eq!(replays(&proxy), 1.0);
    }
}

#[test]
fn put_is_sent_once_more_with_its_whole_body() {
    for read in [vec![Step::ReadBody, Step::Close], vec![Step::Reset]] {
        let origin = breaking(on_reused, read);
        let proxy = Proxy::over(&[origin.addr()], "");
        assert_eq!(second(&proxy, PUT).text(), "ok");
        let last = origin.await_done(2);
        assert_eq!((last.connection, last.nth), (1, 0));
        assert_eq!(last.head.method(), "PUT");
        assert_eq!(last.body.data, b"hello");
        assert_eq!((origin.count("PUT"), replays(&proxy)), (2, 1.0));
    }
}

#[test]
fn replay_is_the_same_request_to_the_byte() {
    let origin = breaking(on_reused, vec![Step::ReadBody, Step::Reset]);
    let proxy = Proxy::over(&[origin.addr()], "");
    assert_eq!(second(&proxy, PUT).status(), 200);
    let (lost, again) = (origin.await_done(1), origin.await_done(2));
    assert_eq!(lost.head.raw, again.head.raw);
}

#[test]
fn put_whose_body_comes_later_is_not_put_at_risk() {
    let origin = breaking(on_reused, vec![Step::ReadBody, Step::Reset]);
    let proxy = Proxy::over(&[origin.addr()], "");
    assert_eq!(Client::get(proxy.addr(), "/first").status(), 200);
    let mut client = Client::connect(proxy.addr());
    let (head, body) = PUT.split_at(PUT.len() - 5);
    client.send(head);
    origin.await_requests(2);
    client.send(body);
    assert_eq!(client.response().status(), 200);
    assert_eq!((origin.count("PUT"), origin.accepted()), (1, 2));
}

#[test]
fn replay_is_done_once() {
    let origin = breaking(|r| r.head.target() == "/second", vec![Step::Close]);
    let proxy = Proxy::over(&[origin.addr()], "");
    failed_with(&second(&proxy, GET), "endpoint_reset");
    assert_eq!(origin.count("GET"), 3, "the first, and /second twice");
    assert_eq!(replays(&proxy), 1.0);
}

#[test]
fn nothing_is_replayed_once_a_byte_of_a_response_came() {
    for bytes in [
        "H",
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    ] {
        let steps = vec![Step::Send(bytes.as_bytes().to_vec()), Step::Close];
        let origin = breaking(on_reused, steps);
        let proxy = Proxy::over(&[origin.addr()], "");
        failed_with(&second(&proxy, GET), "response_incomplete");
        assert_eq!((origin.count("GET"), replays(&proxy)), (2, 0.0), "{bytes}");
    }
}

#[test]
fn fresh_connection_that_dies_is_not_replayed() {
    for request in [GET, PUT, POST] {
        let origin = Origin::always(vec![Step::ReadBody, Step::Close]);
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        client.send(request);
        failed_with(&client.response(), "endpoint_reset");
        assert_eq!((origin.requests().len(), origin.accepted()), (1, 1));
        assert_eq!(replays(&proxy), 0.0);
    }
}

#[test]
fn post_that_lost_the_race_is_told_so_and_never_sent_again() {
    let dies = Arc::new(AtomicBool::new(false));
    let gate = Gate::new();
    let (dying, held) = (Arc::clone(&dies), gate.clone());
    let origin = Origin::start(move |r| match r.head.target() {
        "/hold" => vec![
            Step::Pass(held.clone()),
            Step::Send(origin::response(200, "held")),
        ],
        "/second" if r.nth > 0 && dying.load(Ordering::SeqCst) => vec![Step::ReadBody, Step::Reset],
        _ => origin::reply(200, "ok"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    // Many connections that idle: the endpoint earns the trust without which no POST rides any.
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut clients {
        client.send("GET /hold HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    gate.await_reached(40);
    gate.open();
    for client in &mut clients {
        client.response();
    }
    let reused = || proxy.metric("isobar_upstream_pool_total{upstream=\"app\",result=\"reused\"}");
    let mut client = Client::connect(proxy.addr());
    let mut posts = 0;
    while reused() == 0.0 {
        client.send(POST);
        assert_eq!(client.response().status(), 200);
        posts += 1;
        assert!(posts < 5_000, "never trusted");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    dies.store(true, Ordering::SeqCst);
    client.send(POST);
    failed_with(&client.response(), "endpoint_reset");
    posts += 1;
    assert_eq!(origin.count("POST"), posts, "it came once");
    assert_eq!(replays(&proxy), 0.0);
    // The endpoint has lost that trust.
    let mut client = Client::connect(proxy.addr());
    client.send(POST);
    assert_eq!(client.response().status(), 200);
}

#[test]
fn refused_connect_goes_to_the_next_endpoint_for_any_method() {
    let refusing = Refusing::new();
    let origin = Origin::named("ok");
    let proxy = Proxy::over(&[refusing.addr, origin.addr()], "");
    for request in [GET, PUT, POST, GET, PUT, POST] {
        let mut client = Client::connect(proxy.addr());
        client.send(request);
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(origin.requests().len(), 6);
    assert_eq!(origin.count("POST"), 2);
    let retries = "isobar_upstream_retries_total{upstream=\"app\",reason=\"connect\"}";
    let failures = "isobar_upstream_connect_failures_total{upstream=\"app\",reason=\"refused\"}";
    assert!(proxy.metric(retries) >= 3.0);
    assert_eq!(proxy.metric(retries), proxy.metric(failures));
    assert_eq!(replays(&proxy), 0.0);
}

#[test]
fn attempts_are_bounded() {
    let refusing: Vec<Refusing> = (0..5).map(|_| Refusing::new()).collect();
    let addrs: Vec<_> = refusing.iter().map(|r| r.addr).collect();
    for (endpoints, attempts) in [(5, 3.0), (2, 2.0), (1, 1.0)] {
        let proxy = Proxy::over(&addrs[..endpoints], "");
        failed_with(&Client::get(proxy.addr(), "/"), "connect_refused");
        let name = "isobar_upstream_connect_failures_total{upstream=\"app\",reason=\"refused\"}";
        assert_eq!(proxy.metric(name), attempts, "{endpoints} endpoints");
    }
}

#[test]
fn log_tells_attempts_and_the_endpoint_that_answered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let refusing = [Refusing::new(), Refusing::new()];
    let origin = Origin::named("ok");
    let more = format!("[log.access]\nformat = \"json\"\nto = {file:?}");
    let proxy = Proxy::over(&[refusing[0].addr, refusing[1].addr, origin.addr()], &more);
    // In turn from the first: two are refused.
    assert_eq!(Client::get(proxy.addr(), "/").text(), "ok");
    proxy.shutdown();
    let line = std::fs::read_to_string(file).unwrap();
    let record: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(record["attempts"], 3, "{line}");
    assert_eq!(record["endpoint"], origin.addr().to_string(), "{line}");
    assert_eq!(record["status"], 200, "{line}");
}
