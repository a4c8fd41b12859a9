//! Origin and client talk to each other: what the other tests lean on stands by itself.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::client::Client;
use super::gate::Gate;
use super::origin::{self, Greeting, Origin, Step};
use super::wire::Broken;

#[test]
fn fixed_answer_on_a_kept_connection() {
    let origin = Origin::named("a");
    let mut client = Client::connect(origin.addr());
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/x").text(), "a");
    }
    assert_eq!(
        (origin.accepted(), origin.count("GET"), origin.count("POST")),
        (1, 3, 0)
    );
    let last = origin.await_done(2);
    assert_eq!((last.nth, last.head.target()), (2, "/x"));
    drop(client);
    origin.await_open(0);
}

#[test]
fn request_is_mirrored_to_the_byte() {
    let origin = Origin::always(origin::mirror());
    let sent = "POST /p HTTP/1.1\r\nhOsT:  t\r\nTransfer-Encoding: chunked\r\n\r\n\
                3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n";
    let mut client = Client::connect(origin.addr());
    client.send_byte_by_byte(sent);
    assert_eq!(client.response().text(), sent);
    let seen = origin.await_done(0);
    assert_eq!(seen.body.data, b"abc");
    assert_eq!(seen.body.trailers, [("T".to_owned(), "v".to_owned())]);
    assert_eq!(seen.head.field("host"), Some("t"));
}

#[test]
fn split_anywhere_is_one_request() {
    let origin = Origin::always(origin::mirror());
    let sent = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";
    let mut client = Client::connect(origin.addr());
    for cut in 0..=sent.len() {
        client.send_split(sent, &[cut]);
        assert_eq!(client.response().body.data, sent, "cut at {cut}");
    }
}

#[test]
fn chunks_trailers_and_informational_heads() {
    let mut steps = origin::chunked(&["ab", "cde"], &[("X-T", "1")]);
    steps.insert(
        1,
        Step::Send(b"HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n".to_vec()),
    );
    let origin = Origin::always(steps);
    let response = Client::get(origin.addr(), "/");
    assert_eq!(response.informational[0].status(), 103);
    assert_eq!(response.text(), "abcde");
    assert_eq!(response.body.trailers, [("X-T".to_owned(), "1".to_owned())]);
}

#[test]
fn body_until_close_and_large_body() {
    let origin = Origin::start(|request| match request.head.target() {
        "/close" => origin::until_close("all of it"),
        _ => origin::filled(1_000_000),
    });
    assert_eq!(Client::get(origin.addr(), "/close").text(), "all of it");
    let large = Client::get(origin.addr(), "/large").body.data;
    assert!(large == origin::pattern(0, 1_000_000));
}

#[test]
fn early_answer_comes_before_the_upload_ends() {
    let origin = Origin::always(vec![
        Step::ReadSome(2),
        Step::Send(origin::response(413, "no")),
        Step::AwaitClose,
    ]);
    let mut client = Client::connect(origin.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nab");
    assert_eq!(client.response().status(), 413);
    client.send("more");
    client.finish();
    assert_eq!(origin.await_done(0).rest, b"more");
}

#[test]
fn gate_holds_the_second_half_of_a_head() {
    let gate = Gate::new();
    let origin = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nConte".to_vec()),
        Step::Pass(gate.clone()),
        Step::Send(b"nt-Length: 2\r\n\r\nok".to_vec()),
    ]);
    let mut client = Client::connect(origin.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    gate.await_reached(1);
    assert_eq!(client.exactly(22), b"HTTP/1.1 200 OK\r\nConte");
    client.expect_silence(Duration::from_millis(20));
    gate.open();
    assert_eq!(client.exactly(18), b"nt-Length: 2\r\n\r\nok");
}

#[test]
fn tunnel_echoes_until_fin() {
    let origin = Origin::always(origin::tunnel());
    let mut client = Client::connect(origin.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping");
    client.finish();
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(origin.await_done(0).rest, b"ping");
}

#[test]
fn reset_is_not_a_close() {
    let origin = Origin::always(vec![Step::Reset]);
    let mut client = Client::connect(origin.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.broken(), Broken::Reset);

    let origin = Origin::always(vec![Step::Close]);
    let mut client = Client::connect(origin.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
}

#[test]
fn greetings_come_before_any_request() {
    let origin = Origin::build(|_| origin::reply(200, "served"))
        .greeting(|n| match n {
            0 => Greeting::Close,
            1 => Greeting::Reset,
            2 => Greeting::Send(b"unasked".to_vec()),
            _ => Greeting::Serve,
        })
        .start();
    assert_eq!(
        Client::connect(origin.addr()).broken(),
        Broken::Closed(Vec::new())
    );
    origin.await_open(0);
    // The reset may come before `connect` has returned.
    match Client::try_connect(origin.addr()) {
        Ok(mut client) => assert_eq!(client.broken(), Broken::Reset),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(Client::connect(origin.addr()).exactly(7), b"unasked");
    assert_eq!(Client::get(origin.addr(), "/").text(), "served");
}

#[test]
fn idle_connection_is_closed_after_its_time() {
    let origin = Origin::build(|_| origin::reply(200, ""))
        .idle_close(|n| (n == 0).then_some(Duration::from_millis(10)))
        .start();
    let mut first = Client::connect(origin.addr());
    assert_eq!(first.request("GET", "/").status(), 200);
    first.expect_closed();
    let mut second = Client::connect(origin.addr());
    assert_eq!(second.request("GET", "/").status(), 200);
    second.expect_silence(Duration::from_millis(30));
    origin.close_all();
    second.expect_closed();
}

#[test]
fn request_cut_off_by_the_client_is_kept_as_broken() {
    let origin = Origin::always(origin::mirror());
    let mut client = Client::connect(origin.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc");
    client.finish();
    assert_eq!(
        origin.await_done(0).broken,
        Some(Broken::Closed(b"abc".to_vec()))
    );
}

#[test]
fn source_address_is_the_test_s_to_choose() {
    let origin = Origin::named("a");
    let local = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let mut client = Client::connect_from(local, origin.addr());
    assert_eq!(client.local_addr().ip(), local);
    assert_eq!(client.request("GET", "/").status(), 200);
}
