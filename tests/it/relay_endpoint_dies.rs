//! Endpoints that break off, talk nonsense or say too much: never a complete-looking answer, never
//! a poisoned connection.

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step, pattern};
use crate::support::proxy::Proxy;
use crate::support::wire::Broken;

/// A client asks for `/` and gets `status` with this reason; its connection goes on, on a new
/// connection to the endpoint.
#[track_caller]
fn expect_refused(steps: Vec<Step>, status: u16, details: &str) {
    let origin = Origin::start(move |r| match r.head.target() {
        "/" => steps.clone(),
        _ => origin::reply(200, "next"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let response = client.request("GET", "/");
    let told = response.field("proxy-status").unwrap_or_default();
    assert_eq!(response.status(), status, "{told}");
    assert!(told.contains(&format!("details=\"{details}\"")), "{told}");
    assert_eq!(client.request("GET", "/next").text(), "next");
    assert_eq!((origin.accepted(), origin.requests().len()), (2, 2));
}

fn send(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Send(bytes.into())
}

#[test]
fn close_before_the_head_is_a_502() {
    expect_refused(vec![Step::Close], 502, "endpoint_reset");
    expect_refused(vec![Step::Reset], 502, "endpoint_reset");
    expect_refused(vec![Step::Finish, Step::AwaitClose], 502, "endpoint_reset");
}

#[test]
fn close_in_mid_head_is_a_502() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Ha";
    expect_refused(vec![send(half), Step::Close], 502, "response_incomplete");
    expect_refused(vec![send("H"), Step::Close], 502, "response_incomplete");
}

#[test]
fn nonsense_instead_of_a_head_is_a_502() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        "\0\0\0\0\0\0\0\0\0\0",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
    ] {
        expect_refused(vec![send(bytes), Step::AwaitClose], 502, "bad_response");
    }
}

#[test]
fn equal_content_lengths_are_one() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ));
    let proxy = Proxy::over(&[origin.addr()], "");
    let response = Client::get(proxy.addr(), "/");
    assert_eq!(response.field("content-length"), Some("5"));
    assert_eq!(response.text(), "hello");
}

#[test]
fn response_head_may_be_large_but_not_endless() {
    let head = |size: usize| {
        let value = "v".repeat(1000);
        let fields: Vec<String> = (0..size / 1000)
            .map(|n| format!("X-{n}: {value}\r\n"))
            .collect();
        let fields = fields.concat();
        send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok"
        ))
    };
    let origin = Origin::always(vec![head(60_000)]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let response = Client::get(proxy.addr(), "/");
    assert_eq!(
        (response.head.fields.len(), response.text().as_str()),
        (61, "ok")
    );

    expect_refused(
        vec![head(70_000), Step::AwaitClose],
        502,
        "response_head_too_large",
    );
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(300));
    expect_refused(
        vec![send(many), Step::AwaitClose],
        502,
        "response_head_too_large",
    );
}

/// The client sees `status` 200 and then a cut.
#[track_caller]
fn expect_cut(steps: &[Step], request: &str) {
    let steps = steps.to_vec();
    let origin = Origin::start(move |r| match r.head.target() {
        "/" => steps.clone(),
        _ => origin::reply(200, "next"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send(request);
    // The reset may overtake what was sent before it; a FIN must never come.
    assert_eq!(client.broken(), Broken::Reset);
    let response = Client::get(proxy.addr(), "/next");
    assert_eq!(response.text(), "next");
    assert_eq!(origin.accepted(), 2);
}

const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn close_in_mid_body_by_length_is_a_cut() {
    let head = send("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n");
    for end in [Step::Close, Step::Reset] {
        expect_cut(&[head.clone(), end.clone()], GET);
        expect_cut(&[head.clone(), send("half"), end.clone()], GET);
        expect_cut(&[head.clone(), Step::Fill(49), end], GET);
    }
}

#[test]
fn close_in_mid_chunks_is_a_cut() {
    let head = send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for rest in [
        "",
        "5",
        "5\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "0\r\n",
        "0\r\nX-T: v\r\n",
    ] {
        expect_cut(&[head.clone(), send(rest), Step::Close], GET);
    }
    // A client of HTTP/1.0 knows the end of a body only by FIN.
    expect_cut(
        &[head, send("5\r\nhello\r\n"), Step::Close],
        "GET / HTTP/1.0\r\n\r\n",
    );
}

#[test]
fn broken_chunk_syntax_is_a_cut() {
    let head = send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for rest in [
        "5\r\nhello!\r\n0\r\n\r\n",
        "xyz\r\n",
        "5\nhello\n0\n\n",
        "-1\r\n",
        "\r\n",
    ] {
        // The client has the head by then; a break that comes with the head is a 502.
        let gate = Gate::new();
        let steps = vec![
            head.clone(),
            Step::Pass(gate.clone()),
            send(rest),
            Step::AwaitClose,
        ];
        let origin = Origin::always(steps);
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        client.send(GET);
        assert_eq!(client.head().status(), 200);
        gate.open();
        assert_eq!(client.broken(), Broken::Reset, "{rest:?}");
    }
}

#[test]
fn reset_ends_no_body_that_ends_by_closing() {
    let head = send("HTTP/1.1 200 OK\r\n\r\nsome of it");
    let gate = Gate::new();
    for version in ["1.0", "1.1"] {
        let origin = Origin::always(vec![head.clone(), Step::Pass(gate.clone()), Step::Reset]);
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        client.send(format!("GET / HTTP/{version}\r\nHost: t\r\n\r\n"));
        client.head();
        gate.open();
        assert_eq!(client.broken(), Broken::Reset, "{version}");
    }
}

#[test]
fn bytes_behind_a_response_never_reach_the_next_client() {
    let poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for size in [0, 5, 16_000, 66_000, 131_072, 2_000_000] {
        for late in [false, true] {
            let origin = Origin::start(move |r| match r.head.target() {
                "/" => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                    let mut body = pattern(0, size);
                    let after = if late { poison.to_vec() } else { Vec::new() };
                    if !late {
                        body.extend_from_slice(poison);
                    }
                    vec![send([head.into_bytes(), body].concat()), send(after)]
                }
                _ => origin::reply(200, "clean"),
            });
            let proxy = Proxy::over(&[origin.addr()], "");
            let mut client = Client::connect(proxy.addr());
            let response = client.request("GET", "/");
            assert!(response.body.data == pattern(0, size));
            // All of it lies in the proxy's socket.
            origin.await_done(0);
            assert_eq!(
                client.request("GET", "/next").text(),
                "clean",
                "{size} {late}"
            );
            assert_eq!(origin.accepted(), 2);
            assert_eq!(
                client.request("POST", "/next").text(),
                "clean",
                "{size} {late}"
            );
        }
    }
}

#[test]
fn body_where_none_may_be_never_reaches_the_next_client() {
    let bad = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 53\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
    ] {
        let origin = Origin::start(move |r| match r.head.target() {
            "/" => vec![send(format!("{head}{bad}"))],
            _ => origin::reply(200, "clean"),
        });
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        assert!(client.request(method, "/").body.data.is_empty());
        assert_eq!(client.request("GET", "/next").text(), "clean");
        assert_eq!(origin.accepted(), 2);
    }
}

#[test]
fn connection_with_an_unfinished_upload_is_not_reused() {
    let origin = Origin::start(|r| match r.head.target() {
        "/" => vec![send(origin::response(200, "early")), Step::AwaitClose],
        _ => origin::reply(200, "next"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nsome");
    assert_eq!(client.response().text(), "early");
    assert_eq!(Client::get(proxy.addr(), "/next").text(), "next");
    assert_eq!(origin.accepted(), 2);
}
