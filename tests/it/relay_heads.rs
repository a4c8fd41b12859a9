//! Heads on their way through: written anew, hop-by-hop fields gone, connections kept.

use crate::support::client::Client;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

/// Adds nothing of its own, so that heads can be compared whole.
const PLAIN: &str = "[listeners.web.forwarding]\nx_forwarded = false\nrequest_id = \"off\"\n";

fn fields(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn one_endpoint_connection_serves_many_requests_and_clients() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut first = Client::connect(proxy.addr());
    let mut second = Client::connect(proxy.addr());
    for _ in 0..3 {
        assert_eq!(first.request("GET", "/").text(), "a");
        assert_eq!(second.request("GET", "/").text(), "a");
    }
    assert_eq!((origin.accepted(), origin.requests().len()), (1, 6));
}

#[test]
fn request_head_keeps_names_and_order_and_loses_hop_by_hop_fields() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    let mut client = Client::connect(proxy.addr());
    client.send(
        "GET /x?y=z HTTP/1.1\r\nX-ONE:1\r\nhOsT:   test\t\r\nx-two: 2  2 \r\n\
         Connection: x-mine, Keep-Alive, host, x-absent\r\nX-Mine: secret\r\nKeep-Alive: timeout=9\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nX-One: again\r\nupgrade: h2c\r\n\
         Accept: */*\r\nX-Empty:\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    let head = origin.await_done(0).head;
    assert_eq!(head.start, "GET /x?y=z HTTP/1.1");
    assert_eq!(
        head.fields,
        fields(&[
            ("Host", "test"),
            ("X-ONE", "1"),
            ("x-two", "2  2"),
            ("X-One", "again"),
            ("Accept", "*/*"),
            ("X-Empty", ""),
        ])
    );
}

#[test]
fn response_head_keeps_names_and_order_and_loses_hop_by_hop_fields() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 299 Quite  Fine\r\nX-b: 1\r\nsET-cookie: a=1\r\nConnection: X-Gone, content-length\r\n\
         x-gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nSet-Cookie: b=2\r\n\
         Upgrade: h2c\r\nContent-length: 2\r\nX-A:  v \r\n\r\nok",
    ));
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    let mut client = Client::connect(proxy.addr());
    for _ in 0..2 {
        let response = client.request("GET", "/");
        assert_eq!(response.head.start, "HTTP/1.1 299 Quite  Fine");
        assert_eq!(
            response.head.fields,
            fields(&[
                ("X-b", "1"),
                ("sET-cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("Content-length", "2"),
                ("X-A", "v"),
            ])
        );
        assert_eq!(response.text(), "ok");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn close_of_one_side_is_not_passed_to_the_other() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ));
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    let mut client = Client::connect(proxy.addr());
    for n in 1..=2 {
        let response = client.request("GET", "/");
        assert_eq!(
            (response.text().as_str(), response.field("connection")),
            ("ok", None)
        );
        assert_eq!(
            origin.accepted(),
            n,
            "what the endpoint closes is not reused"
        );
    }

    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    for _ in 0..2 {
        let mut client = Client::connect(proxy.addr());
        client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response().field("connection"), Some("close"));
        assert_eq!(client.read_to_end(), b"");
    }
    assert_eq!(origin.accepted(), 1);
    assert_eq!(origin.requests()[1].head.field("connection"), None);
}

#[test]
fn targets_are_forwarded_in_origin_form() {
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    let mut client = Client::connect(proxy.addr());
    for (n, (line, host, want, want_host)) in [
        (
            "GET http://Example.com:81/a?b=c",
            "Example.com:81",
            "GET /a?b=c",
            "Example.com:81",
        ),
        (
            "GET http://example.com",
            "example.com",
            "GET /",
            "example.com",
        ),
        (
            "GET http://example.com?q",
            "example.com",
            "GET /?q",
            "example.com",
        ),
        ("OPTIONS *", "h", "OPTIONS *", "h"),
        ("OPTIONS http://h", "h", "OPTIONS *", "h"),
        ("OPTIONS http://h/", "h", "OPTIONS /", "h"),
        ("GET /a/./b/../c?x=/../y", "h", "GET /a/c?x=/../y", "h"),
        ("GET /../%2e%2E/z/%2e", "h", "GET /z/", "h"),
        ("GET //a//b", "h", "GET //a//b", "h"),
        ("GET /%41?", "h", "GET /%41?", "h"),
    ]
    .into_iter()
    .enumerate()
    {
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().status(), 200, "{line}");
        let head = origin.await_done(n).head;
        assert_eq!(head.start, format!("{want} HTTP/1.1"), "{line}");
        assert_eq!(head.field("host"), Some(want_host), "{line}");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn http_1_0_client_without_keep_alive_gets_a_body_until_close() {
    let origin = Origin::start(|r| match r.head.target() {
        "/chunked" => origin::chunked(&["abc", "de"], &[("X-T", "1")]),
        "/close" => origin::until_close("abcde"),
        _ => origin::reply(200, "abcde"),
    });
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    for target in ["/chunked", "/close", "/length"] {
        let mut client = Client::connect(proxy.addr());
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.field("transfer-encoding"), None, "{target}");
        assert_eq!(head.field("connection"), Some("close"), "{target}");
        assert_eq!(client.read_to_end(), b"abcde", "{target}");
    }
    let head = &origin.requests()[0].head;
    assert_eq!(head.start, "GET /chunked HTTP/1.1");
    assert_eq!(head.field("host"), Some(""));
}

#[test]
fn http_1_0_client_that_asks_is_kept_where_the_length_is_known() {
    let origin = Origin::start(|r| match r.head.target() {
        "/chunked" => origin::chunked(&["abc"], &[]),
        _ => origin::reply(200, "abc"),
    });
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    let mut client = Client::connect(proxy.addr());
    for _ in 0..2 {
        client.send("GET /length HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let response = client.response();
        assert_eq!(response.field("connection"), Some("keep-alive"));
        assert_eq!(response.text(), "abc");
    }
    client.send("GET /chunked HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    let head = client.head();
    assert_eq!(head.field("connection"), Some("close"));
    assert_eq!(head.field("transfer-encoding"), None);
    assert_eq!(client.read_to_end(), b"abc");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn http_1_0_endpoint_is_kept_only_if_it_says_so() {
    let origin = Origin::start(|r| match r.head.target() {
        "/kept" => {
            origin::raw("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        }
        "/plain" => origin::raw("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        _ => vec![
            Step::ReadBody,
            Step::Send(b"HTTP/1.0 200 OK\r\n\r\nok".to_vec()),
            Step::Close,
        ],
    });
    let proxy = Proxy::over(&[origin.addr()], PLAIN);
    let mut client = Client::connect(proxy.addr());
    // Which endpoint connections there have been after each request.
    for (target, accepted) in [
        ("/kept", 1),
        ("/kept", 1),
        ("/plain", 1),
        ("/plain", 2),
        ("/close", 3),
        ("/kept", 4),
    ] {
        let response = client.request("GET", target);
        assert_eq!(response.head.start, "HTTP/1.1 200 OK");
        assert_eq!(response.text(), "ok", "{target}");
        assert_eq!(origin.accepted(), accepted, "{target}");
    }
}
