//! Time limits: of a head, of silence on either side, of a connect, of a whole exchange. Values are
//! small and waits are for what happens, so that a slow machine only takes longer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use isobar::telemetry::reason::Reason;

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::unreachable::Blackhole;
use crate::support::watched::{Watched, expect_answer};
use crate::support::wire::Broken;
use crate::support::{DEADLINE, deadline, now, remaining};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The series of requests to the upstream that ended so.
fn outcome(outcome: &str) -> String {
    format!("isobar_upstream_requests_total{{upstream=\"app\",outcome=\"{outcome}\"}}")
}

/// Reads the head and never answers.
fn silent() -> Origin {
    Origin::always(vec![Step::AwaitClose])
}

#[test]
fn half_a_head_is_408_after_header_timeout() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "header_timeout = \"200ms\"", "");
    let mut client = watched.connect();
    client.send("GET / HTTP/1.1\r\n");
    watched.expect_refusal(&mut client, Reason::HeaderTimeout, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn byte_after_byte_does_not_extend_header_timeout() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "header_timeout = \"300ms\"", "");
    let mut client = watched.connect();
    client.send("GET / HTTP/1.1\r\nX: ");
    client
        .stream()
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    let end = deadline();
    // A byte every 10 ms is far below every other limit for these ten seconds.
    while client.stream().peek(&mut [0]).is_err() {
        let _ = remaining(end, "the answer to a head that never ends");
        client.send("x");
    }
    watched.expect_refusal(&mut client, Reason::HeaderTimeout, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
}

#[test]
fn header_timeout_holds_for_the_second_head_too() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "header_timeout = \"200ms\"", "");
    let mut client = watched.connect();
    client.send(format!("{GET}GET / HT"));
    assert_eq!(client.response().text(), "a");
    watched.expect_refusal(&mut client, Reason::HeaderTimeout, None);
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
}

#[test]
fn connection_without_a_byte_is_closed_silently_after_header_timeout() {
    let origin = Origin::named("a");
    let watched = Watched::over(
        origin.addr(),
        "header_timeout = \"200ms\"\nkeepalive_timeout = \"1h\"",
        "",
    );
    let mut client = watched.connect();
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    watched.await_metric("isobar_listener_connections{listener=\"web\"}", 0.0);
    watched.log(0);
}

#[test]
fn idle_connection_is_closed_silently_after_keepalive_timeout() {
    let origin = Origin::named("a");
    let watched = Watched::over(
        origin.addr(),
        "header_timeout = \"1h\"\nkeepalive_timeout = \"200ms\"",
        "",
    );
    let mut client = watched.connect();
    assert_eq!(client.request("GET", "/").text(), "a");
    assert_eq!(client.request("GET", "/").text(), "a");
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    watched.log(2);
}

#[test]
fn upload_that_stops_is_408_after_the_listeners_idle_timeout() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "idle_timeout = \"200ms\"", "");
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    watched.expect_refusal(&mut client, Reason::ClientIdle, Some("web"));
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    assert!(origin.await_done(0).broken.is_some());
}

#[test]
fn upload_that_moves_is_not_idle() {
    let origin = Origin::always(origin::mirror());
    let watched = Watched::over(
        origin.addr(),
        "idle_timeout = \"300ms\"",
        "idle_timeout = \"300ms\"",
    );
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n");
    for _ in 0..60 {
        // 60 x 20 ms: four times the limit in all.
        client.expect_silence(Duration::from_millis(20));
        client.send("x");
    }
    assert_eq!(client.response().status(), 200);
}

#[test]
fn silent_endpoint_is_504_after_the_upstreams_idle_timeout() {
    let origin = silent();
    let watched = Watched::over(origin.addr(), "", "idle_timeout = \"200ms\"");
    let mut client = watched.connect();
    client.send(GET);
    watched.expect_refusal(&mut client, Reason::EndpointIdle, Some("web"));
    // The endpoint hears that nobody waits; the client may go on.
    origin.await_open(0);
    client.send(GET);
    expect_answer(&client.response(), Reason::EndpointIdle);
}

#[test]
fn endpoint_that_falls_silent_in_mid_body_has_its_response_cut() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let origin = Origin::always(vec![
        Step::ReadBody,
        Step::Send(head.as_bytes().to_vec()),
        Step::AwaitClose,
    ]);
    let watched = Watched::over(origin.addr(), "", "idle_timeout = \"200ms\"");
    let mut client = watched.connect();
    client.send(GET);
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.exactly(4), b"half");
    assert_eq!(client.broken(), Broken::Reset);
    let line = watched.expect_recorded(Reason::EndpointIdle, Some("web"));
    assert_eq!(line["status"], 200);
    origin.await_open(0);
}

#[test]
fn connect_that_hangs_is_504_after_connect_timeout() {
    let hole = Blackhole::new();
    let watched = Watched::over(hole.addr, "", "connect_timeout = \"200ms\"");
    let mut client = watched.connect();
    client.send(GET);
    watched.expect_refusal(&mut client, Reason::ConnectTimeout, Some("web"));
}

/// The route `slow` with a total deadline over one endpoint.
fn deadline_over(origin: &Origin, timeout: &str) -> Watched {
    Watched::start(
        "",
        &format!(
            "[[routes]]\nname = \"slow\"\nupstream = \"app\"\ntimeout = \"{timeout}\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            origin.addr()
        ),
    )
}

#[test]
fn total_deadline_before_a_response_is_504() {
    let origin = silent();
    let watched = deadline_over(&origin, "200ms");
    let mut client = watched.connect();
    client.send(GET);
    watched.expect_refusal(&mut client, Reason::Deadline, Some("slow"));
    origin.await_open(0);
}

#[test]
fn total_deadline_in_a_connect_is_504() {
    let hole = Blackhole::new();
    let watched = Watched::start(
        "",
        &format!(
            "[[routes]]\nname = \"slow\"\nupstream = \"app\"\ntimeout = \"200ms\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\nconnect_timeout = \"1h\"\n",
            hole.addr
        ),
    );
    let mut client = watched.connect();
    client.send(GET);
    watched.expect_refusal(&mut client, Reason::Deadline, Some("slow"));
}

#[test]
fn total_deadline_is_not_extended_by_a_moving_body() {
    // Interim responses and body bytes are progress, which idle limits look at and this does not.
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |_| {
            let mut steps = vec![
                Step::ReadBody,
                Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
                Step::Send(b"1\r\nx\r\n".to_vec()),
                Step::Pass(gate.clone()),
            ];
            steps.extend((0..64).map(|_| Step::Send(b"1\r\nx\r\n".to_vec())));
            steps.push(Step::AwaitClose);
            steps
        }
    });
    let watched = deadline_over(&origin, "300ms");
    let mut client = watched.connect();
    client.send(GET);
    assert_eq!(client.head().status(), 200);
    gate.open();
    assert_eq!(
        client.until_closed(),
        b"1\r\nx\r\n".repeat(65),
        "cut, without a last chunk"
    );
    let line = watched.expect_recorded(Reason::Deadline, Some("slow"));
    assert_eq!(line["status"], 200);
    origin.await_open(0);
}

#[test]
fn total_deadline_holds_while_the_client_uploads() {
    let origin = Origin::named("a");
    let watched = deadline_over(&origin, "300ms");
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client
        .stream()
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    let end = deadline();
    while client.stream().peek(&mut [0]).is_err() {
        let _ = remaining(end, "the answer to an upload that never ends");
        client.send("1\r\nx\r\n");
    }
    watched.expect_refusal(&mut client, Reason::Deadline, Some("slow"));
    assert!(origin.await_done(0).broken.is_some());
    // It was never the endpoint's turn.
    watched.await_metric(&outcome("cancelled"), 1.0);
    assert_eq!(watched.proxy.metric(&outcome("timeout")), 0.0);
}

/// Seen red: it was told as `endpoint_idle`, and counted against the endpoint.
#[test]
fn upload_that_stops_under_an_early_response_is_the_clients_doing() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let origin = Origin::always(vec![Step::Send(head.as_bytes().to_vec()), Step::AwaitClose]);
    let watched = Watched::over(
        origin.addr(),
        "idle_timeout = \"200ms\"",
        "idle_timeout = \"1h\"",
    );
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.head().status(), 200);
    let line = watched.expect_recorded(Reason::ClientIdle, Some("web"));
    assert_eq!(line["status"], 200);
    watched.await_metric(&outcome("cancelled"), 1.0);
    assert_eq!(watched.proxy.metric(&outcome("timeout")), 0.0);
    origin.await_open(0);
}

/// The other way round: once the request is whole, an endpoint that stops is to blame.
#[test]
fn response_that_stops_after_the_whole_request_is_the_endpoints_doing() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |_| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
            vec![
                Step::Send(head.as_bytes().to_vec()),
                Step::Pass(gate.clone()),
                Step::ReadBody,
                Step::AwaitClose,
            ]
        }
    });
    let watched = Watched::over(
        origin.addr(),
        "idle_timeout = \"1h\"",
        "idle_timeout = \"200ms\"",
    );
    let mut client = watched.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    assert_eq!(client.head().status(), 200);
    client.send("half");
    gate.open();
    watched.expect_recorded(Reason::EndpointIdle, Some("web"));
    origin.await_open(0);
}

/// A body that neither socket's buffer takes whole.
const LARGE: usize = 16 << 20;

#[test]
fn fixed_response_that_nobody_reads_is_cut_after_idle_timeout() {
    let watched = Watched::start(
        "idle_timeout = \"200ms\"",
        &format!(
            "[[routes]]\nname = \"large\"\nrespond = {{ body = \"{}\" }}\n",
            "x".repeat(LARGE)
        ),
    );
    let mut client = Client::connect_narrow(watched.addr());
    client.send(GET);
    let line = watched.expect_recorded(Reason::ClientIdle, Some("large"));
    assert_eq!(
        (&line["status"], &line["who"]),
        (&200.into(), &"client".into())
    );
    assert!(
        client.until_closed().len() < LARGE,
        "cut, and not taken for complete"
    );
}

/// Seen red: the whole of a fixed answer had one time-out, whatever the client had read by then.
#[test]
fn fixed_response_that_is_read_slowly_arrives() {
    // A Unix socket, whose buffer is small and whose reader is heard of at each step. 100 pauses of
    // 40 ms are twice the time-out, and each step has nearly all of it.
    const STEPS: usize = 100;
    const STEP: usize = 16 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("web.sock");
    let body = "x".repeat(STEPS * STEP);
    let _proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"unix:{}\"\nidle_timeout = \"2s\"\n\
         [[routes]]\nrespond = {{ body = \"{body}\" }}\n",
        socket.display()
    ));
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(GET.as_bytes()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut piece = vec![0; STEP];
    let mut read = 0;
    while read < body.len() {
        std::thread::park_timeout(Duration::from_millis(40));
        let n = client.read(&mut piece).unwrap();
        assert!(n > 0, "cut after {read} bytes");
        read += n;
    }
}

/// The age of a connection of HTTP/1 is told with an answer, so no request is lost by it: not one of a
/// client that goes on asking, and not that of one which has waited for longer than that.
#[test]
fn oldest_age_of_a_connection_ends_it_with_an_answer() {
    let origin = Origin::named("one");
    let proxy = Watched::over(origin.addr(), "max_connection_age = '1s'", "");
    let mut waits = proxy.connect();
    assert_eq!(waits.request("GET", "/").field("connection"), None);
    for _ in 0..2 {
        let begun = now();
        let mut client = proxy.connect();
        loop {
            let response = client.request("GET", "/");
            assert_eq!(response.text(), "one");
            match response.field("connection") {
                Some(told) => break assert_eq!(told, "close"),
                None => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
        // Up to a tenth sooner.
        assert!(begun.elapsed() >= Duration::from_millis(900));
        client.expect_closed();
    }
    // Two have grown old since it came.
    let response = waits.request("GET", "/");
    assert_eq!(response.text(), "one");
    assert_eq!(response.field("connection"), Some("close"));
    waits.expect_closed();
}
