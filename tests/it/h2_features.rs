//! What routes and upstreams do, for clients and endpoints of HTTP/2 as for any other.

use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::h2::{H2Client, request, run, spawn};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::proxy::Proxy;
use crate::support::watched::Watched;

const TO_H2: &str = "protocol = 'h2'";

/// Says nothing until the gate opens, then its name; it is told when nobody waits any more.
fn held(gate: &Gate) -> H2Origin {
    let gate = gate.clone();
    H2Origin::start(move |mut exchange: Exchange| {
        let gate = gate.clone();
        async move {
            if exchange.seen.path == "/reset" {
                return exchange.await_reset().await;
            }
            exchange.pass(&gate).await;
            exchange.reply("held").await;
        }
    })
}

#[test]
fn second_attempt_that_answers_first_calls_the_other_off() {
    let slow = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.await_reset().await;
    });
    let quick = H2Origin::named("second");
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\n\
         [[routes]]\nupstream = 'app'\nretry = {{ hedge_after = '10ms', attempts = 3 }}\n\
         [upstreams.app]\nbalance = 'round_robin'\n{TO_H2}\nendpoints = ['{}', '{}']\n",
        slow.addr(),
        quick.addr()
    ));
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        for _ in 0..4 {
            assert_eq!(client.get("/").await.text(), "second");
        }
    });
    assert_eq!(slow.await_done(0).reset, Some(h2::Reason::CANCEL));
    assert_eq!((slow.accepted(), quick.accepted()), (1, 1));
    eventually("all is over", || {
        proxy.metric("isobar_upstream_in_flight{upstream=\"app\"}") == 0.0
    });
}

/// `max_connections` bounds exchanges: those above it wait in line.
#[test]
fn line_in_front_of_an_endpoint() {
    let gate = Gate::new();
    let origin = held(&gate);
    let proxy = Watched::over(
        origin.addr(),
        "",
        &format!("{TO_H2}\nmax_connections = 2\nqueue = {{ timeout = '60s' }}"),
    );
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let all: Vec<_> = (0..6)
            .map(|_| {
                let client = client.clone();
                spawn(async move { client.get("/").await.text() })
            })
            .collect();
        proxy.await_metric("isobar_upstream_queue_length{upstream=\"app\"}", 4.0);
        eventually("two are on their way", || origin.requests().len() == 2);
        // One that gives up leaves the line.
        let asked = request("GET", "/").body(()).unwrap();
        let (response, mut send) = client.open(asked, true).await.unwrap();
        proxy.await_metric("isobar_upstream_queue_length{upstream=\"app\"}", 5.0);
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        proxy.await_metric("isobar_upstream_queue_length{upstream=\"app\"}", 4.0);
        gate.open();
        for one in all {
            assert_eq!(one.await.unwrap(), "held");
        }
    });
    assert_eq!(origin.requests().len(), 6);
}

#[test]
fn cookie_keeps_a_client_at_its_endpoint() {
    let origins = [
        H2Origin::named("a"),
        H2Origin::named("b"),
        H2Origin::named("c"),
    ];
    let addrs: Vec<SocketAddr> = origins.iter().map(H2Origin::addr).collect();
    let sticky = format!("{TO_H2}\nsticky = {{ cookie = 'lb' }}");
    let proxy = Proxy::over(&addrs, &sticky);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let first = client.get("/").await;
        let cookie = first
            .field("set-cookie")
            .unwrap()
            .split(';')
            .next()
            .unwrap();
        for _ in 0..5 {
            // In crumbs, as browsers send them.
            let asked = request("GET", "/")
                .header("cookie", "a=1")
                .header("cookie", cookie)
                .header("cookie", "z=2");
            let answer = client.exchange(asked.body(()).unwrap(), b"").await.unwrap();
            assert_eq!(answer.text(), first.text());
            assert_eq!(answer.field("set-cookie"), None);
        }
    });
}

#[test]
fn rate_limit_counts_streams() {
    let origin = H2Origin::named("one");
    let proxy = Watched::start(
        "",
        &format!(
            "[[routes]]\nname = 'api'\nupstream = 'app'\n\
             rate_limit = {{ rate = 1, per = '1h', burst = 3 }}\n\
             [upstreams.app]\nendpoints = ['{}']\n{TO_H2}",
            origin.addr()
        ),
    );
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        for n in 0..5 {
            let answer = client.get("/").await;
            let wanted = if n < 3 { 200 } else { 429 };
            assert_eq!(answer.status, wanted, "{n}");
            assert_eq!(answer.field("retry-after").is_some(), n >= 3);
        }
    });
    assert_eq!(origin.requests().len(), 3);
}

/// The body is larger than the listener allows: told or not, the client hears it and the stream ends.
#[test]
fn body_that_is_too_large_is_refused() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
    });
    let proxy = Watched::over(origin.addr(), "max_body_bytes = '1KiB'", TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        for length in [Some("2000"), None] {
            let asked = request("POST", "/");
            let asked = match length {
                Some(length) => asked.header("content-length", length),
                None => asked,
            };
            let answer = client.exchange(asked.body(()).unwrap(), &[7; 2000]).await;
            assert_eq!(answer.unwrap().status, 413, "{length:?}");
        }
        // The connection serves on.
        let asked = request("CONNECT", "/").method("GET").body(()).unwrap();
        let (response, mut send) = client.open(asked, true).await.unwrap();
        origin.await_requests(1);
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
    });
}

/// Without a route, an upstream or an endpoint: in words, over either version.
#[test]
fn errors_are_told_in_words() {
    let proxy = Watched::start(
        "",
        "[[routes]]\nname = 'api'\npath = '/only'\nrespond = { body = 'x' }",
    );
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, 404);
        assert!(answer.text().starts_with("404 no_route"));
        assert!(answer.field("proxy-status").is_some());
        assert_eq!(answer.field("connection"), None);
    });
    assert_eq!(Client::get(proxy.addr(), "/").status(), 404);
}

/// A response of the proxy's own.
#[test]
fn fixed_responses_and_redirects() {
    let proxy = Watched::start(
        "",
        "[[routes]]\nname = 'a'\npath = '/a'\nrespond = { body = 'hello' }\n\
         [[routes]]\nname = 'b'\npath = '/b'\nredirect = { to = 'https://other.example/' }",
    );
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let answer = client.get("/a").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "hello")
        );
        let asked = request("HEAD", "/a").body(()).unwrap();
        let answer = client.exchange(asked, b"").await.unwrap();
        assert_eq!(answer.field("content-length"), Some("5"));
        let answer = client.get("/b").await;
        assert!(answer.status.is_redirection(), "{answer:?}");
        assert_eq!(answer.field("location"), Some("https://other.example/"));
    });
}
