//! Streams that are given up: by the client, by the endpoint, with their connection.

use h2::Reason;
use serde_json::Value;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::h2::{H2Client, next, read_all, request, run, send_all, spawn, within};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::h2raw::{self, H2};
use crate::support::origin::{Origin, Step, response};
use crate::support::watched::Watched;
use crate::support::wire::Broken;

const TO_H2: &str = "protocol = 'h2'";

fn gone(lines: &[Value]) -> usize {
    lines
        .iter()
        .filter(|line| line["reason"] == "client_gone")
        .count()
}

/// Before the response's head, and in the middle of its body.
#[test]
fn client_that_resets_cancels_the_exchange_at_the_endpoint() {
    let h1 = Origin::start(|request| match request.head.target() {
        "/silent" => vec![Step::ReadBody, Step::AwaitClose],
        "/begun" => vec![
            Step::ReadBody,
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec()),
            Step::AwaitClose,
        ],
        _ => vec![Step::ReadBody, Step::Send(response(200, "ok"))],
    });
    let h2 = H2Origin::start(|mut exchange: Exchange| async move {
        match &*exchange.seen.path.clone() {
            "/silent" => exchange.await_reset().await,
            "/begun" => {
                exchange.head(200, &[]);
                exchange.data(b"hello").await;
                exchange.await_reset().await;
            }
            _ => exchange.reply("ok").await,
        }
    });
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Watched::over(addr, "", more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let asked = request("GET", "/silent").body(()).unwrap();
            let (response, mut send) = client.open(asked, true).await.unwrap();
            if more.is_empty() {
                h1.await_requests(1);
            } else {
                h2.await_requests(1);
            }
            send.send_reset(Reason::CANCEL);
            drop(response);
            proxy.await_log("a client that went", |lines| gone(lines) == 1);
            let asked = request("GET", "/begun").body(()).unwrap();
            let (response, mut send) = client.open(asked, true).await.unwrap();
            let mut recv = within("a response", response).await.unwrap().into_body();
            assert_eq!(next(&mut recv).await.unwrap().unwrap(), "hello");
            send.send_reset(Reason::CANCEL);
            drop(recv);
            proxy.await_log("two that went", |lines| gone(lines) == 2);
            // The connection serves on.
            assert_eq!(client.get("/").await.text(), "ok");
        });
        proxy.await_metric("isobar_http_requests_in_flight{route=\"web\"}", 0.0);
        let open = format!("isobar_endpoint_in_flight{{upstream=\"app\",endpoint=\"{addr}\"}}");
        proxy.await_metric(&open, 0.0);
    }
    for n in 0..2 {
        h1.await_done(n);
        assert_eq!(h2.await_done(n).reset, Some(Reason::CANCEL));
    }
    assert_eq!(h2.accepted(), 1, "only the streams were given up");
}

/// Even in the middle of its upload.
#[test]
fn client_that_resets_its_upload_cancels_the_exchange() {
    let h1 = Origin::always(vec![Step::ReadBody]);
    let h2 = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
    });
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Watched::over(addr, "", more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let asked = request("POST", "/").body(()).unwrap();
            let (_response, mut send) = client.open(asked, false).await.unwrap();
            send_all(&mut send, b"hello", false).await.unwrap();
            if more.is_empty() {
                h1.await_requests(1);
            } else {
                h2.await_requests(1);
            }
            send.send_reset(Reason::CANCEL);
            let line = proxy.log(1).remove(0);
            assert_eq!(line["reason"], "client_gone");
        });
    }
    assert!(h1.await_done(0).broken.is_some());
    assert!(
        h2.await_done(0).body.is_empty(),
        "it was not told that it ended"
    );
}

/// A truncated response is never taken for a whole one.
#[test]
fn endpoint_that_breaks_off_resets_the_client() {
    let h1 = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec()),
        Step::ReadBody,
        Step::Close,
    ]);
    let chunks = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
        Step::ReadBody,
        Step::Close,
    ]);
    let h2 = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.head(200, &[]);
        exchange.data(b"hello").await;
        // A reset takes back what was not sent yet: not before the client has had it.
        exchange.read().await;
        exchange.reset(Reason::INTERNAL_ERROR);
    });
    for (addr, more) in [(h1.addr(), ""), (chunks.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Watched::over(addr, "", more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let asked = request("POST", "/").body(()).unwrap();
            let (response, mut send) = client.open(asked, false).await.unwrap();
            let response = within("a response", response).await.unwrap();
            let mut recv = response.into_body();
            assert_eq!(next(&mut recv).await.unwrap().unwrap(), "hello");
            let _ = send_all(&mut send, b"", true).await;
            let error = read_all(&mut recv).await.unwrap_err();
            assert!(error.is_reset(), "{error}");
        });
        let line = proxy.log(1).remove(0);
        assert_eq!(line["reason"], "response_incomplete");
    }
    let proxy = Watched::over(h2.addr(), "", TO_H2);
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.exactly(10), b"5\r\nhello\r\n");
    client.send("0\r\n\r\n");
    match client.broken() {
        Broken::Closed(bytes) => assert_eq!(bytes, b"", "not the last chunk"),
        Broken::Reset => {}
        other => panic!("{other:?}"),
    }
}

/// An upload that breaks off after the endpoint has begun its answer: bytes that are no chunk, more than
/// is allowed, a client that ends in the middle. The endpoint must not take what came for all of it; it
/// was told the end of a complete body.
#[test]
fn upload_that_breaks_off_behind_an_early_answer_is_reset_at_the_endpoint() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.head(200, &[]);
        exchange.data(b"early").await;
        assert!(!exchange.read().await, "the upload ended well");
        exchange.await_reset().await;
    });
    let proxy = Watched::over(origin.addr(), "max_body_bytes = '8KiB'", TO_H2);
    let breaks: [fn(&mut Client); 3] = [
        |client| client.send("zz\r\n"),
        |client| client.send([b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n0\r\n\r\n"].concat()),
        Client::finish,
    ];
    for (n, break_off) in breaks.into_iter().enumerate() {
        let mut client = Client::connect(proxy.addr());
        client
            .send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.exactly(10), b"5\r\nearly\r\n");
        break_off(&mut client);
        assert_eq!(origin.await_done(n).reset, Some(Reason::CANCEL), "{n}");
    }
    assert_eq!(origin.accepted(), 1, "only the streams were given up");
}

/// An endpoint that resets the stream before it answers: nothing was begun, so it is told in words.
#[test]
fn endpoint_that_resets_before_its_answer_is_a_502() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.reset(Reason::INTERNAL_ERROR);
    });
    let proxy = Watched::over(origin.addr(), "", TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let asked = request("POST", "/").body(()).unwrap();
        let answer = client.exchange(asked, b"x").await.unwrap();
        assert_eq!(answer.status, 502);
    });
    let line = proxy.log(1).remove(0);
    assert_eq!(line["reason"], "endpoint_reset");
    assert_eq!(origin.requests().len(), 1, "a POST is not sent twice");
}

/// The endpoint's connection dies under ten streams: each of them ends, and those that may be are
/// asked again on another.
#[test]
fn connection_that_dies_with_ten_streams() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = H2Origin::start(move |mut exchange: Exchange| {
        let gate = held.clone();
        async move {
            if exchange.seen.connection > 0 {
                return exchange.reply("again").await;
            }
            exchange.read().await;
            exchange.pass(&gate).await;
            exchange.kill_connection();
        }
    });
    let proxy = Watched::over(origin.addr(), "", TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let mut all = Vec::new();
        for _ in 0..10 {
            let client = client.clone();
            let asked = request("POST", "/").body(()).unwrap();
            all.push(spawn(async move { client.exchange(asked, b"x").await }));
        }
        gate.await_reached(10);
        gate.open();
        for one in all {
            let answer = one.await.unwrap().unwrap();
            assert_eq!(answer.status, 502);
        }
        assert_eq!(client.get("/").await.text(), "again");
    });
    origin.await_open(1);
    proxy.await_metric("isobar_http_requests_in_flight{route=\"web\"}", 0.0);
    eventually("eleven lines", || proxy.log(11).len() == 11);
}

/// REFUSED_STREAM says that nothing was done: sent again whatever the method, once.
#[test]
fn refused_stream_is_sent_again() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        if exchange.id == 0 {
            exchange.reset(Reason::REFUSED_STREAM);
        } else {
            exchange.read().await;
            assert_eq!(exchange.seen.body, b"hello");
            exchange.reply("second").await;
        }
    });
    let proxy = Watched::over(origin.addr(), "", TO_H2);
    // In one piece: a body that was not here with its head is not kept to be sent again.
    let mut client = H2::connect(proxy.addr());
    let stream = client.stream();
    let head = h2raw::request("POST", "/", &[("content-length", "5")]);
    let head = h2raw::headers(stream, 0, head);
    client.send([head, h2raw::data(stream, h2raw::END_STREAM, "hello")].concat());
    let answer = client.answer(stream);
    assert_eq!((answer.status, &*answer.body), (Some(200), &b"second"[..]));
    assert_eq!(origin.requests().len(), 2);
    proxy.await_metric("isobar_upstream_replays_total{upstream=\"app\"}", 1.0);
}

/// GOAWAY: requests in flight end well, new ones go over a new connection.
#[test]
fn endpoint_that_leaves_loses_nothing() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = H2Origin::start(move |exchange: Exchange| {
        let gate = held.clone();
        async move {
            if exchange.seen.path == "/held" {
                exchange.leave();
                exchange.pass(&gate).await;
                return exchange.reply("held").await;
            }
            exchange.reply("other").await;
        }
    });
    let proxy = Watched::over(origin.addr(), "", TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let held = {
            let client = client.clone();
            spawn(async move { client.get("/held").await.text() })
        };
        gate.await_reached(1);
        // It may still be taken by the old connection until the GOAWAY has come.
        let mut all = Vec::new();
        while origin.accepted() < 2 {
            let asked = request("POST", "/").body(()).unwrap();
            all.push(client.exchange(asked, b"").await.unwrap().text());
        }
        assert!(all.iter().all(|text| text == "other"), "{all:?}");
        gate.open();
        assert_eq!(held.await.unwrap(), "held");
    });
    origin.await_open(1);
}
