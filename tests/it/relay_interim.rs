//! Interim responses, and responses without a body.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn endpoint_s_100_reaches_a_client_that_waits_for_it() {
    let gate = Gate::new();
    let origin = Origin::always(vec![
        Step::Pass(gate.clone()),
        Step::Send(CONTINUE.to_vec()),
        Step::ReadBody,
        Step::Send(origin::response(200, "thanks")),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("PUT / HTTP/1.1\r\nHost: t\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n");
    let seen = origin.await_requests(1);
    assert_eq!(seen[0].head.field("expect"), Some("100-Continue"));
    // The proxy must not say it by itself.
    client.expect_silence(Duration::from_millis(30));
    gate.open();
    assert_eq!(client.head().raw, CONTINUE);
    client.send("hello");
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), response.field("connection")),
        ("thanks", None)
    );
    assert_eq!(origin.await_done(0).body.data, b"hello");
    assert_eq!(client.request("GET", "/").text(), "thanks");
}

#[test]
fn final_answer_instead_of_100_reaches_the_client() {
    let origin = Origin::always(vec![
        Step::Send(origin::response(417, "no")),
        Step::AwaitClose,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("PUT / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (417, "no"));
    assert!(response.informational.is_empty());
    // Nobody knows whether the body will come: this connection cannot go on.
    assert_eq!(response.field("connection"), Some("close"));
    client.finish();
    assert_eq!(client.read_to_end(), b"");
    origin.await_open(0);
}

#[test]
fn client_that_expects_and_sends_at_once_is_served() {
    let origin = Origin::always(vec![
        Step::Send(CONTINUE.to_vec()),
        Step::ReadBody,
        Step::Send(origin::response(200, "thanks")),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for n in 0..3 {
        client.send(
            "PUT / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        );
        let response = client.response();
        assert_eq!(response.informational.len(), 1);
        assert_eq!(response.text(), "thanks");
        assert_eq!(origin.await_done(n).body.data, b"hello");
    }
}

fn hinting() -> Vec<Step> {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x-hop\r\n\
        X-Hop: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n";
    vec![
        Step::ReadBody,
        Step::Send(interim.as_bytes().to_vec()),
        Step::Send(origin::response(200, "done")),
    ]
}

#[test]
fn several_interim_responses_are_forwarded_in_order() {
    let origin = Origin::always(hinting());
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for _ in 0..3 {
        let response = client.request("GET", "/");
        let seen: Vec<_> = response
            .informational
            .iter()
            .map(|h| (h.status(), h.field("link"), h.fields.len()))
            .collect();
        assert_eq!(
            seen,
            [
                (103, Some("</a>; rel=preload"), 1),
                (102, None, 0),
                (103, Some("</b>"), 1)
            ]
        );
        assert_eq!(response.text(), "done");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn interim_response_is_not_held_back() {
    let gate = Gate::new();
    let origin = Origin::always(vec![
        Step::Send(b"HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n".to_vec()),
        Step::Pass(gate.clone()),
        Step::Send(origin::response(200, "done")),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.head().status(), 103);
    gate.open();
    assert_eq!(client.response().text(), "done");
}

#[test]
fn http_1_0_gets_no_interim_response() {
    let origin = Origin::always(hinting());
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.read_to_end(), b"done");
    assert_eq!(origin.requests()[0].head.field("expect"), None);
}

#[test]
fn endpoint_that_dies_after_an_interim_response_gets_no_second_request() {
    let origin = Origin::start(|r| match r.nth {
        0 => origin::reply(200, "a"),
        _ => vec![
            Step::Send(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
            Step::Close,
        ],
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/").text(), "a");
    let response = client.request("GET", "/");
    assert_eq!((response.informational.len(), response.status()), (1, 502));
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn responses_without_a_body_are_followed_by_the_next() {
    let origin = Origin::start(|r| {
        origin::raw(match (r.head.method(), r.head.target()) {
            ("HEAD", "/length") => "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
            ("HEAD", "/chunked") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            ("HEAD", _) => "HTTP/1.1 200 OK\r\nX-No: length\r\n\r\n",
            (_, "/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            (_, "/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n",
            _ => "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        })
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for (method, target, status, length) in [
        ("HEAD", "/length", 200, Some("12345")),
        ("HEAD", "/chunked", 200, None),
        ("HEAD", "/none", 200, None),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("99")),
        ("HEAD", "/length", 200, Some("12345")),
        ("GET", "/205", 205, Some("0")),
    ] {
        let response = client.request(method, target);
        assert_eq!(response.status(), status, "{method} {target}");
        assert_eq!(
            response.field("content-length"),
            length,
            "{method} {target}"
        );
        assert_eq!(response.field("connection"), None, "{method} {target}");
    }
    assert_eq!(origin.accepted(), 1);
}
