//! Every way an endpoint can fail: what the client sees, what the log and the metrics say, and what
//! it takes until the endpoint serves again.
//!
//! Each way is shown twice: with `retry = "off"`, and with what holds when nothing is configured.

use std::net::SocketAddr;

use isobar::telemetry::reason::Reason;
use serde_json::Value;

use crate::support::binary::{Binary, run};
use crate::support::child::Server;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, Step};
use crate::support::unreachable::{Blackhole, Refusing};
use crate::support::watched::{Watched, expect_answer};
use crate::support::wire::Broken;

/// Short enough to be awaited, long enough for a good endpoint on a busy machine.
const PATIENCE: &str = "idle_timeout = '2s'\nconnect_timeout = '1s'";

/// What one way to fail looks like.
#[derive(Clone, Copy)]
struct Told {
    reason: Reason,
    phase: &'static str,
    /// Of `isobar_endpoint_requests_total`.
    outcome: &'static str,
    /// Of `isobar_upstream_retries_total` by default; "" = it is not tried again.
    retry: &'static str,
}

const REFUSED: Told = Told {
    reason: Reason::ConnectRefused,
    phase: "connect",
    outcome: "connect_error",
    retry: "connect",
};

const RESET: Told = Told {
    reason: Reason::EndpointReset,
    phase: "wait",
    outcome: "reset",
    retry: "reset",
};

const SILENT: Told = Told {
    reason: Reason::EndpointIdle,
    phase: "wait",
    outcome: "timeout",
    retry: "",
};

/// A proxy with one route `app`; the first endpoint that is ready is asked first.
#[track_caller]
fn bed(endpoints: &[SocketAddr], route: &str, upstream: &str) -> Watched {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    Watched::start(
        "",
        &format!(
            "[[routes]]\nname = 'app'\nupstream = 'app'\n{route}\n\
             [upstreams.app]\nbalance = 'first'\nendpoints = [{}]\n{PATIENCE}\n{upstream}",
            endpoints.join(", ")
        ),
    )
}

fn attempts(bed: &Watched, endpoint: SocketAddr, outcome: &str) -> f64 {
    bed.proxy.metric(&format!(
        "isobar_endpoint_requests_total{{upstream=\"app\",endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}"
    ))
}

fn retries(bed: &Watched) -> Vec<(&'static str, f64)> {
    let of = |reason| {
        let series =
            format!("isobar_upstream_retries_total{{upstream=\"app\",reason=\"{reason}\"}}");
        (reason, bed.proxy.metric(&series))
    };
    let all = ["connect", "reset", "status", "timeout"].map(of);
    all.into_iter().filter(|(_, n)| *n > 0.0).collect()
}

/// Status, reason, outcome, phase, who, endpoint and attempts of a line.
fn fields(line: &Value) -> (u64, [&str; 5], u64) {
    let words = ["reason", "outcome", "phase", "who", "endpoint"];
    (
        line["status"].as_u64().unwrap_or_default(),
        words.map(|key| line[key].as_str().unwrap_or("")),
        line["attempts"].as_u64().unwrap_or_default(),
    )
}

/// The only exchange so far failed like that, after one attempt at `bad`.
#[track_caller]
fn expect_failed(bed: &Watched, client: &mut Client, bad: SocketAddr, told: Told) {
    let response = client.response();
    expect_answer(&response, told.reason);
    let line = bed.expect_recorded(told.reason, Some("app"));
    let words = [
        told.reason.as_str(),
        "failed",
        told.phase,
        "endpoint",
        &bad.to_string(),
    ];
    assert_eq!(fields(&line), (told.reason.status().into(), words, 1));
    assert_eq!(attempts(bed, bad, told.outcome), 1.0);
    assert_eq!(retries(bed), []);
}

/// A GET to an endpoint that fails like that before its response's head.
#[track_caller]
fn expect(bad: SocketAddr, told: Told) {
    let good = Origin::named("good");
    // One attempt.
    let off = bed(&[bad, good.addr()], "retry = 'off'", "");
    let mut client = off.connect();
    client.send(GET);
    expect_failed(&off, &mut client, bad, told);
    assert_eq!(good.requests().len(), 0);
    // By default, with nobody else to ask.
    let alone = bed(&[bad], "", "");
    let mut client = alone.connect();
    client.send(GET);
    expect_failed(&alone, &mut client, bad, told);
    // By default, with somebody else.
    let default = bed(&[bad, good.addr()], "", "");
    let mut client = default.connect();
    client.send(GET);
    if told.retry.is_empty() {
        expect_failed(&default, &mut client, bad, told);
        return;
    }
    assert_eq!(client.response().text(), "good");
    expect_saved(&default, bad, good.addr(), told);
}

/// The only exchange so far failed at `bad`, and `good` answered it.
#[track_caller]
fn expect_saved(bed: &Watched, bad: SocketAddr, good: SocketAddr, told: Told) {
    let line = &bed.log(1)[0];
    let words = ["", "ok", "done", "", &good.to_string()];
    assert_eq!(fields(line), (200, words, 2));
    assert_eq!(attempts(bed, bad, told.outcome), 1.0);
    bed.await_metric(
        &format!(
            "isobar_endpoint_requests_total{{upstream=\"app\",endpoint=\"{good}\",outcome=\"ok\"}}"
        ),
        1.0,
    );
    assert_eq!(retries(bed), [(told.retry, 1.0)]);
    let refusals = format!(
        "isobar_http_refusals_total{{route=\"app\",reason=\"{}\"}}",
        told.reason
    );
    assert_eq!(bed.proxy.metric(&refusals), 0.0);
}

const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn connection_refused() {
    expect(Refusing::new().addr, REFUSED);
}

#[test]
fn handshake_that_never_ends() {
    let told = Told {
        reason: Reason::ConnectTimeout,
        phase: "connect",
        outcome: "connect_error",
        retry: "connect",
    };
    expect(Blackhole::new().addr, told);
}

#[test]
fn accepted_but_silent() {
    let silent = Origin::always(vec![Step::AwaitClose]);
    expect(silent.addr(), SILENT);
}

#[test]
fn silence_is_tried_elsewhere_where_an_attempt_has_its_time() {
    let (silent, good) = (
        Origin::always(vec![Step::AwaitClose]),
        Origin::named("good"),
    );
    let told = Told {
        reason: Reason::AttemptTimeout,
        retry: "timeout",
        ..SILENT
    };
    let route = "retry = { per_try_timeout = '1900ms' }";
    let watched = bed(&[silent.addr(), good.addr()], route, "");
    assert_eq!(watched.connect().request("GET", "/").text(), "good");
    expect_saved(&watched, silent.addr(), good.addr(), told);
    let alone = bed(&[silent.addr()], route, "");
    let mut client = alone.connect();
    client.send(GET);
    expect_failed(&alone, &mut client, silent.addr(), told);
}

#[test]
fn connection_reset_before_the_head() {
    for death in [Step::Reset, Step::Close] {
        let origin = Origin::always(vec![Step::ReadBody, death]);
        expect(origin.addr(), RESET);
    }
}

#[test]
fn half_a_head_then_closed() {
    let half = Step::Send(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec());
    let origin = Origin::always(vec![Step::ReadBody, half, Step::Close]);
    let told = Told {
        reason: Reason::ResponseIncomplete,
        ..RESET
    };
    expect(origin.addr(), told);
}

#[test]
fn garbage_instead_of_a_head() {
    let garbage = Step::Send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n".to_vec());
    let origin = Origin::always(vec![Step::ReadBody, garbage, Step::AwaitClose]);
    let told = Told {
        reason: Reason::BadResponse,
        ..RESET
    };
    expect(origin.addr(), told);
}

#[test]
fn connection_reset_in_mid_body() {
    for route in ["retry = 'off'", ""] {
        let (gate, good) = (Gate::new(), Origin::named("good"));
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf".to_vec();
        let steps = vec![Step::Send(head), Step::Pass(gate.clone()), Step::Reset];
        let bad = Origin::always(steps);
        let watched = bed(&[bad.addr(), good.addr()], route, "");
        let mut client = watched.connect();
        client.send(GET);
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.exactly(4), b"half");
        gate.open();
        // Never a body that looks complete.
        assert_eq!(client.broken(), Broken::Reset);
        let line = watched.expect_recorded(Reason::ResponseIncomplete, Some("app"));
        let bad_addr = bad.addr().to_string();
        let words = [
            "response_incomplete",
            "failed",
            "response",
            "endpoint",
            &bad_addr,
        ];
        assert_eq!(fields(&line), (200, words, 1));
        assert_eq!(line["bytes_out"], 4);
        assert_eq!(attempts(&watched, bad.addr(), "reset"), 1.0);
        assert_eq!(retries(&watched), []);
        assert_eq!(good.requests().len(), 0);
    }
}

#[test]
fn process_killed_with_a_request_in_flight() {
    let told = RESET;
    for (route, others, is_saved) in [("retry = 'off'", 1, false), ("", 0, false), ("", 1, true)] {
        let good = Origin::named("good");
        let mut bad = Server::start("bad");
        let endpoints = [bad.addr(), good.addr()];
        let watched = bed(&endpoints[..=others], route, "");
        let mut client = watched.connect();
        client.send("GET /silent HTTP/1.1\r\nHost: t\r\n\r\n");
        eventually("the request", || bad.requests() == ["GET /silent"]);
        bad.kill();
        if is_saved {
            assert_eq!(client.response().text(), "good");
            expect_saved(&watched, bad.addr(), good.addr(), told);
        } else {
            expect_failed(&watched, &mut client, bad.addr(), told);
        }
        // Those that follow find nobody at its port.
        let next = watched.connect().request("GET", "/");
        if is_saved {
            assert_eq!(next.text(), "good");
            assert_eq!(retries(&watched), [("connect", 1.0), ("reset", 1.0)]);
        } else {
            expect_answer(&next, Reason::ConnectRefused);
            watched.expect_recorded(Reason::ConnectRefused, Some("app"));
        }
        assert_eq!(attempts(&watched, bad.addr(), "connect_error"), 1.0);
        // Time to recovery: the first request after it listens again.
        bad.restart();
        assert_eq!(watched.connect().request("GET", "/").text(), "bad");
    }
}

#[test]
fn process_killed_with_idle_connections() {
    for route in ["retry = 'off'", ""] {
        let mut server = Server::start("server");
        let watched = bed(&[server.addr()], route, "");
        let mut clients: Vec<Client> = (0..8).map(|_| watched.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.request("GET", "/").text(), "server");
        }
        server.restart();
        // What was idle is dead, and nobody notices.
        for client in &mut clients {
            assert_eq!(client.request("GET", "/").text(), "server");
        }
        for line in watched.log(16) {
            let endpoint = server.addr().to_string();
            assert_eq!(fields(&line), (200, ["", "ok", "done", "", &endpoint], 1));
        }
    }
}

#[test]
fn process_stopped_and_continued() {
    for route in ["retry = 'off'", ""] {
        let good = Origin::named("good");
        let server = Server::start("server");
        let watched = bed(&[server.addr(), good.addr()], route, "");
        server.stop();
        let mut client = watched.connect();
        client.send(GET);
        // The kernel accepts for it, so it is a silent one.
        expect_failed(&watched, &mut client, server.addr(), SILENT);
        assert_eq!(good.requests().len(), 0);
        server.go_on();
        // On an idle machine: the first request.
        eventually("it serves again", || {
            client.request("GET", "/").text() == "server"
        });
    }
}

#[test]
fn stopped_process_costs_nothing_where_an_attempt_has_its_time() {
    let good = Origin::named("good");
    let server = Server::start("server");
    let watched = bed(
        &[server.addr(), good.addr()],
        "retry = { per_try_timeout = '1900ms' }",
        "[upstreams.app.outlier]\nconsecutive_failures = 2\neject_for = '10ms'\nmax_eject = '10ms'",
    );
    let mut client = watched.connect();
    assert_eq!(client.request("GET", "/").text(), "server");
    server.stop();
    for _ in 0..2 {
        assert_eq!(client.request("GET", "/").text(), "good");
    }
    assert_eq!(retries(&watched), [("timeout", 2.0)]);
    let ejected = format!(
        "isobar_endpoint_ejections_total{{upstream=\"app\",endpoint=\"{}\",result=\"ejected\"}}",
        server.addr()
    );
    eventually("its ejection", || watched.proxy.metric(&ejected) >= 1.0);
    server.go_on();
    eventually("it serves again", || {
        client.request("GET", "/").text() == "server"
    });
}

#[test]
fn host_name_for_an_endpoint_is_an_error_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("isobar.toml");
    let toml = "[listeners.web]\nbind = '127.0.0.1:8080'\nupstream = 'app'\n\
        [upstreams.app]\nendpoints = ['no-such-host.invalid:8000']\n";
    std::fs::write(&file, toml).unwrap();
    let checked = run(&["check", &file.to_string_lossy()]);
    let text =
        String::from_utf8(checked.stderr).unwrap() + &String::from_utf8(checked.stdout).unwrap();
    let told = "`no-such-host.invalid:8000` is a name: an endpoint needs an address";
    assert!(text.contains(told), "{text}");
    assert!(text.contains("write an IP address"), "{text}");
    assert_ne!(checked.status.code(), Some(0));
    // Nor does it start.
    let mut isobar = Binary::start(toml);
    assert!(!isobar.wait().success());
    isobar.await_line(told);
}
