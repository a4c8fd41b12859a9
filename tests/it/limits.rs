//! The limits of a listener and the refusals of its routes: each with its status, its reason in
//! body, `Proxy-Status`, metric and access log, and an answer that arrives whole.

use std::io::Read;
use std::net::Shutdown;

use isobar::telemetry::reason::Reason;

use crate::support::client::Client;
use crate::support::origin::{self, Origin, Step};
use crate::support::unreachable::Refusing;
use crate::support::watched::{Watched, expect_answer};
use crate::support::wire::Broken;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn head_above_max_header_bytes_is_431() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_header_bytes = \"1KiB\"", "");
    let head = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    let mut client = watched.connect();
    client.send(head(1024));
    assert_eq!(client.response().text(), "a", "as long as allowed");
    client.send(head(1025));
    watched.expect_refusal(&mut client, Reason::HeadTooLarge, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn head_above_max_header_bytes_is_431_byte_by_byte() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_header_bytes = \"1KiB\"", "");
    let mut client = watched.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    for _ in 0..1024 {
        if !client.try_send("x") {
            break;
        }
    }
    watched.expect_refusal(&mut client, Reason::HeadTooLarge, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn head_of_100_kib_in_one_write_is_431_and_the_answer_arrives() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "", "");
    let mut client = watched.connect();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(100 << 10)
    ));
    watched.expect_refusal(&mut client, Reason::HeadTooLarge, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn fields_above_max_headers_are_431() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_headers = 10", "");
    let head = |fields: usize| {
        let more = "X: y\r\n".repeat(fields - 1);
        format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n")
    };
    let mut client = watched.connect();
    client.send(head(10));
    assert_eq!(client.response().text(), "a", "as many as allowed");
    client.send(head(11));
    watched.expect_refusal(&mut client, Reason::TooManyFields, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.requests().len(), 1);
}

/// Seen red as 431: what there was of the target was taken for a head, and nothing told apart.
#[test]
fn target_above_max_header_bytes_is_414() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_header_bytes = \"1KiB\"", "");
    let mut client = watched.connect();
    client.send(format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "x".repeat(2000)
    ));
    watched.expect_refusal(&mut client, Reason::TargetTooLong, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn length_above_max_body_bytes_is_413_before_an_endpoint_hears_of_it() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_body_bytes = \"10B\"", "");
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(client.response().text(), "a", "as long as allowed");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n");
    watched.expect_refusal(&mut client, Reason::BodyTooLarge, Some("web"));
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn chunks_above_max_body_bytes_are_413_and_the_endpoint_gets_no_end() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_body_bytes = \"10B\"", "");
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n");
    origin.await_requests(1);
    client.send("6\r\n567890\r\n");
    watched.expect_refusal(&mut client, Reason::BodyTooLarge, Some("web"));
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert!(origin.await_done(0).broken.is_some());
    origin.await_open(0);
}

/// Seen red: after 256 KiB the connection was closed with bytes unread, which resets it, and a
/// client that sends all before it reads lost the answer.
#[test]
fn answer_survives_a_client_that_sends_megabytes_more() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_body_bytes = \"1KiB\"", "");
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 16777216\r\n\r\n");
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..16 {
        client.send(&megabyte);
    }
    watched.expect_refusal(&mut client, Reason::BodyTooLarge, Some("web"));
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.accepted(), 0);
}

/// Seen red: they were closed without a word, and a client could not tell why.
#[test]
fn connections_above_max_connections_are_told_503_and_closed() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_connections = 2", "");
    let mut first = watched.connect();
    let mut second = watched.connect();
    assert_eq!(first.request("GET", "/").status(), 200);
    assert_eq!(second.request("GET", "/").status(), 200);
    let mut third = watched.connect();
    // It says its request, as clients do; the answer was on its way before.
    third.send(GET);
    third.send(GET);
    watched.expect_refusal(&mut third, Reason::ConnectionsLimit, None);
    assert_eq!(
        third.broken(),
        Broken::Closed(Vec::new()),
        "the answer is not reset away"
    );
    assert_eq!(origin.requests().len(), 2);
    // Those inside notice nothing, and a place that comes free is given away.
    assert_eq!(first.request("GET", "/").status(), 200);
    drop(second);
    watched.await_metric("isobar_listener_connections{listener=\"web\"}", 1.0);
    assert_eq!(watched.connect().request("GET", "/").status(), 200);
}

/// Whoever comes in numbers is told as well; only how the connection ends is not promised then.
#[test]
fn flood_above_max_connections_is_turned_away_and_harms_nobody_inside() {
    const FLOOD: usize = 400;
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_connections = 1", "");
    let mut inside = watched.connect();
    assert_eq!(inside.request("GET", "/").status(), 200);
    let flood: Vec<Client> = (0..FLOOD).map(|_| watched.connect()).collect();
    for mut client in flood {
        assert_eq!(client.response().status(), 503);
        client.expect_closed();
    }
    let turned_away =
        "isobar_listener_refusals_total{listener=\"web\",reason=\"connections_limit\"}";
    watched.await_metric(turned_away, FLOOD as f64);
    watched.await_metric("isobar_listener_connections{listener=\"web\"}", 1.0);
    assert_eq!(inside.request("GET", "/").status(), 200);
}

#[test]
fn pipelined_flood_is_served_up_to_max_pipelined_and_the_last_answer_says_so() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_pipelined = 4", "");
    let mut client = watched.connect();
    client.send(GET.repeat(1000));
    for n in 1..=4 {
        let response = client.response();
        assert_eq!(response.status(), 200);
        let close = (n == 4).then_some("close");
        assert_eq!(response.field("connection"), close, "response {n}");
    }
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn request_after_request_is_no_flood() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "max_pipelined = 4", "");
    let mut client = watched.connect();
    for _ in 0..20 {
        assert_eq!(client.request("GET", "/").field("connection"), None);
    }
}

#[test]
fn refusals_of_routes_keep_the_connection_of_a_request_without_a_body() {
    let origin = Origin::named("a");
    let watched = Watched::start(
        "",
        &format!(
            "[[routes]]\nhost = \"a\"\npath = \"/x\"\nupstream = \"app\"\n\
             [[routes]]\nhost = \"a\"\nname = \"empty\"\npath = \"/empty\"\nupstream = \"empty\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n[upstreams.empty]\nendpoints = []\n",
            origin.addr()
        ),
    );
    let mut client = watched.connect();
    for (request, reason, route) in [
        ("GET /y HTTP/1.1\r\nHost: a\r\n\r\n", Reason::NoRoute, None),
        (
            "GET /x HTTP/1.1\r\nHost: b\r\n\r\n",
            Reason::Misdirected,
            None,
        ),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            Reason::MethodRefused,
            None,
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
            Reason::Expectation,
            None,
        ),
        (
            "GET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::NoEndpoint,
            Some("empty"),
        ),
    ] {
        client.send(request);
        watched.expect_refusal(&mut client, reason, route);
    }
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().text(), "a");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn method_refused_names_the_methods_that_are_not() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "", "");
    let mut client = watched.connect();
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    let allow = client.response().field("allow").map(str::to_owned);
    assert!(allow.is_some_and(|methods| methods.contains("GET") && !methods.contains("CONNECT")));
}

#[test]
fn refusal_of_a_request_with_a_body_closes_and_does_not_take_the_body_for_a_request() {
    let origin = Origin::named("a");
    let watched = Watched::start(
        "",
        &format!(
            "[[routes]]\nhost = \"a\"\npath = \"/x\"\nupstream = \"app\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            origin.addr()
        ),
    );
    let body = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = watched.connect();
    client.send(format!(
        "POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let response = client.response();
    expect_answer(&response, Reason::NoRoute);
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn coding_and_version_that_nobody_speaks_are_501_and_505() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "", "");
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    watched.expect_refusal(&mut client, Reason::TransferCoding, None);
    let mut client = watched.connect();
    client.send("GET / HTTP/2.0\r\nHost: a\r\n\r\n");
    watched.expect_refusal(&mut client, Reason::Version, None);
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn endpoint_that_refuses_connections_is_502() {
    let refusing = Refusing::new();
    let watched = Watched::over(refusing.addr, "", "");
    let mut client = watched.connect();
    client.send(GET);
    watched.expect_refusal(&mut client, Reason::ConnectRefused, Some("web"));
    // The client's connection is as good as before.
    client.send(GET);
    expect_answer(&client.response(), Reason::ConnectRefused);
}

#[test]
fn error_answer_to_head_has_no_body() {
    let refusing = Refusing::new();
    let watched = Watched::over(refusing.addr, "", "");
    let mut client = watched.connect();
    for _ in 0..2 {
        assert_eq!(client.request("HEAD", "/").status(), 502);
    }
}

#[test]
fn response_head_above_64_kib_is_502() {
    let origin = Origin::always(vec![
        Step::ReadBody,
        Step::Send(
            format!(
                "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n",
                "x".repeat(64 << 10)
            )
            .into_bytes(),
        ),
        Step::AwaitClose,
    ]);
    let watched = Watched::over(origin.addr(), "", "");
    let mut client = watched.connect();
    client.send(GET);
    watched.expect_refusal(&mut client, Reason::ResponseHeadTooLarge, Some("web"));
    origin.await_open(0);
}

#[test]
fn two_hundred_half_heads_disturb_nobody_and_leave_nothing_behind() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "", "");
    let halves: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = watched.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
            client
        })
        .collect();
    watched.await_metric("isobar_listener_connections{listener=\"web\"}", 200.0);
    let mut other = watched.connect();
    for _ in 0..50 {
        assert_eq!(other.request("GET", "/").text(), "a");
    }
    // One buffer each and no more, and all of them come back.
    watched.await_metric("isobar_buffers{state=\"in_use\"}", 200.0);
    drop(halves);
    watched.await_metric("isobar_listener_connections{listener=\"web\"}", 1.0);
    watched.await_metric("isobar_buffers{state=\"in_use\"}", 0.0);
    // No exchange and no line, but counted.
    let gone = "isobar_listener_refusals_total{listener=\"web\",reason=\"client_gone\"}";
    watched.await_metric(gone, 200.0);
    assert_eq!(origin.requests().len(), 50);
}

#[test]
fn client_that_never_reads_holds_up_only_itself() {
    const BODY: usize = 64 << 20;
    let origin = Origin::start(|request| match request.head.target() {
        "/big" => origin::filled(BODY),
        _ => origin::reply(200, "small"),
    });
    let watched = Watched::over(origin.addr(), "idle_timeout = \"200ms\"", "");
    let mut deaf = watched.connect();
    deaf.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.await_requests(1);
    assert_eq!(watched.connect().request("GET", "/").text(), "small");
    let line = watched.expect_recorded(Reason::ClientIdle, Some("web"));
    assert_eq!(line["status"], 200);
    // Backpressure: the endpoint could not send what nobody takes, and hears the end of it.
    assert!(origin.await_done(0).broken.is_some());
    let mut read = Vec::new();
    let _ = deaf.stream().shutdown(Shutdown::Write);
    let end = deaf.stream().read_to_end(&mut read);
    assert!(end.is_err(), "cut short and not to be taken for complete");
    assert!(read.len() < BODY);
}
