//! Clients that go away: their endpoint connection goes with them, and nobody else notices.

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::wire::Broken;

/// `/` is answered by `steps`, everything else at once.
fn origin_with(steps: Vec<Step>) -> Origin {
    Origin::start(move |r| match r.head.target() {
        "/" => steps.clone(),
        _ => origin::reply(200, "next"),
    })
}

#[track_caller]
fn expect_next(proxy: &Proxy, origin: &Origin) {
    assert_eq!(Client::get(proxy.addr(), "/next").text(), "next");
    origin.await_open(1);
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn reset_while_waiting_frees_the_endpoint() {
    let origin = origin_with(vec![Step::AwaitClose]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    origin.await_requests(1);
    client.reset();
    origin.await_done(0);
    expect_next(&proxy, &origin);
}

#[test]
fn client_that_dies_in_mid_upload_frees_the_endpoint() {
    for framing in ["Content-Length: 500000", "Transfer-Encoding: chunked"] {
        for is_reset in [true, false] {
            let origin = origin_with(vec![Step::ReadBody]);
            let proxy = Proxy::over(&[origin.addr()], "");
            let mut client = Client::connect(proxy.addr());
            client.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n"));
            client.send("5\r\nhello\r\n");
            origin.await_requests(1);
            if is_reset {
                client.reset();
            } else {
                drop(client);
            }
            let seen = origin.await_done(0);
            assert!(
                seen.broken.is_some(),
                "{framing}: it must not look complete"
            );
            expect_next(&proxy, &origin);
        }
    }
}

#[test]
fn client_that_dies_in_mid_download_frees_the_endpoint() {
    let origin = origin_with(origin::filled(50_000_000));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    client.exactly(1000);
    drop(client);
    assert_eq!(origin.await_done(0).broken, Some(Broken::Reset));
    expect_next(&proxy, &origin);
}

#[test]
fn client_that_dies_in_a_silent_stream_frees_the_endpoint() {
    // Events that come now and then: nothing is written that would tell us of the reset.
    for head in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    ] {
        let origin = origin_with(vec![Step::Send(head.into()), Step::AwaitClose]);
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.head().status(), 200);
        client.exactly(5);
        client.reset();
        origin.await_done(0);
        expect_next(&proxy, &origin);
    }
}

#[test]
fn request_pipelined_during_a_download_is_answered_after_it() {
    let gate = Gate::new();
    let origin = origin_with(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n".to_vec()),
        Step::Pass(gate.clone()),
        Step::Fill(500_000),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    client.send("POST /n HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabcGET /m HTTP/1.1\r\nHost: t\r\n\r\n");
    client.finish();
    gate.open();
    assert_eq!(client.exactly(500_000).len(), 500_000);
    assert_eq!(client.response().text(), "next");
    assert_eq!(client.response().text(), "next");
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(origin.await_done(1).body.data, b"abc");
}

#[test]
fn client_gone_before_its_request_was_whole_never_reaches_the_endpoint() {
    let origin = origin_with(Vec::new());
    let proxy = Proxy::over(&[origin.addr()], "");
    for is_reset in [true, false] {
        let mut client = Client::connect(proxy.addr());
        client.send("GET / HTTP/1.1\r\nHost: t\r\nX-Half: ");
        if is_reset {
            client.reset();
        } else {
            client.finish();
            assert_eq!(client.read_to_end(), b"");
        }
    }
    assert_eq!(Client::get(proxy.addr(), "/next").text(), "next");
    assert_eq!(origin.requests().len(), 1);
}
