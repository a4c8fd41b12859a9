//! Another attempt: after what, where, and how often.

use std::net::SocketAddr;
use std::time::Duration;

use isobar::telemetry::reason::Reason;

use crate::support::client::{Client, Response};
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::now;
use crate::support::origin::{self, Origin, Step};
use crate::support::unreachable::Refusing;
use crate::support::watched::{Watched, expect_answer};

/// A proxy whose one route `app` tries again like that. The first endpoint in the list that is ready
/// is asked first, then the second, and so on.
#[track_caller]
pub(crate) fn bed(endpoints: &[SocketAddr], retry: &str, upstream: &str) -> Watched {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    let balance = if upstream.contains("balance") {
        ""
    } else {
        "balance = 'first'"
    };
    Watched::start(
        "",
        &format!(
            "[[routes]]\nname = 'app'\nupstream = 'app'\nretry = {{ {retry} }}\n\
             [upstreams.app]\nendpoints = [{}]\n{balance}\n{upstream}",
            endpoints.join(", ")
        ),
    )
}

fn metric(bed: &Watched, name: &str) -> f64 {
    let (name, more) = name.split_once(' ').unwrap_or((name, ""));
    let comma = if more.is_empty() { "" } else { "," };
    bed.proxy
        .metric(&format!("isobar_{name}{{upstream=\"app\"{comma}{more}}}"))
}

pub(crate) fn retries(bed: &Watched, reason: &str) -> f64 {
    metric(bed, &format!("upstream_retries_total reason=\"{reason}\""))
}

/// The attempts of the n-th exchange of which there are `n + 1`.
#[track_caller]
pub(crate) fn attempts(bed: &Watched, n: usize) -> u64 {
    bed.log(n + 1)[n]["attempts"].as_u64().unwrap_or_default()
}

#[track_caller]
pub(crate) fn ask(bed: &Watched, request: impl AsRef<[u8]>) -> Response {
    let mut client = bed.connect();
    client.send(request);
    client.response()
}

/// How many requests each of them got.
pub(crate) fn counts<const N: usize>(origins: [&Origin; N]) -> [usize; N] {
    origins.map(|origin| origin.requests().len())
}

/// Reads the whole request, then breaks.
pub(crate) fn breaking() -> Origin {
    Origin::always(vec![Step::ReadBody, Step::Reset])
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn status_on_the_list_is_tried_at_another() {
    for (on, status) in [
        ("'503'", 503),
        ("['502', '503']", 502),
        ("['5xx']", 500),
        ("'5xx'", 504),
        ("'429'", 429),
    ] {
        let (bad, good) = (
            Origin::always(origin::reply(status, "bad")),
            Origin::named("good"),
        );
        let bed = bed(&[bad.addr(), good.addr()], &format!("on = {on}"), "");
        assert_eq!(ask(&bed, GET).text(), "good", "{status}");
        assert_eq!(counts([&bad, &good]), [1, 1]);
        assert_eq!((retries(&bed, "status"), attempts(&bed, 0)), (1.0, 2));
        let outcome = if status < 500 {
            "client_error"
        } else {
            "server_error"
        };
        let of_bad = format!(
            "endpoint_requests_total endpoint=\"{}\",outcome=\"{outcome}\"",
            bad.addr()
        );
        assert_eq!(metric(&bed, &of_bad), 1.0);
        assert_eq!(bed.log(1)[0]["endpoint"], good.addr().to_string());
    }
}

#[test]
fn line_tells_the_connection_of_the_last_attempt() {
    let closing = b"HTTP/1.1 503 Test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let (bad, good) = (Origin::always(origin::raw(closing)), Origin::named("good"));
    let bed = bed(&[bad.addr(), good.addr()], "on = '503'", "");
    for _ in 0..2 {
        assert_eq!(ask(&bed, GET).text(), "good");
    }
    assert_eq!((bad.accepted(), good.accepted()), (2, 1));
    let lines = bed.log(2);
    assert!(lines[0]["connected_ms"].as_f64() >= lines[0]["picked_ms"].as_f64());
    // None was made: that of the first attempt is not its own.
    assert!(lines[1]["connected_ms"].is_null(), "{}", lines[1]);
}

#[test]
fn status_off_the_list_is_passed_on() {
    for (on, status) in [
        ("['connect', 'reset']", 503),
        ("'503'", 502),
        ("'5xx'", 501),
        ("'5xx'", 404),
    ] {
        let (bad, good) = (
            Origin::always(origin::reply(status, "bad")),
            Origin::named("good"),
        );
        let bed = bed(&[bad.addr(), good.addr()], &format!("on = {on}"), "");
        assert_eq!(ask(&bed, GET).status(), status);
        assert_eq!(counts([&bad, &good]), [1, 0]);
        assert_eq!(attempts(&bed, 0), 1);
    }
}

#[test]
fn last_response_is_passed_on_when_attempts_are_used_up() {
    for attempts_of in 1..=3_usize {
        let origins = ["a", "b", "c"].map(|name| Origin::always(origin::reply(503, name)));
        let addrs = [&origins[0], &origins[1], &origins[2]].map(Origin::addr);
        let bed = bed(&addrs, &format!("on = '503', attempts = {attempts_of}"), "");
        let response = ask(&bed, GET);
        assert_eq!(response.status(), 503);
        assert_eq!(response.text(), ["a", "b", "c"][attempts_of - 1]);
        assert_eq!(response.field("proxy-status"), None, "it is the endpoint's");
        // Never the same one twice while another is ready.
        let of = |n| usize::from(n < attempts_of);
        let [a, b, c] = &origins;
        assert_eq!(counts([a, b, c]), [of(0), of(1), of(2)]);
        let line = &bed.log(1)[0];
        assert_eq!(line["attempts"], attempts_of);
        assert_eq!(line["outcome"], "ok", "{line}");
        assert_eq!(line["endpoint"], addrs[attempts_of - 1].to_string());
    }
}

#[test]
fn no_policy_asks_the_same_endpoint_again_while_another_is_ready() {
    for policy in [
        "least_request",
        "peak_ewma",
        "round_robin",
        "weighted",
        "random",
        "first",
        "ring_hash",
        "maglev",
        "rendezvous",
    ] {
        let bad = [(); 2].map(|()| Origin::always(origin::reply(503, "bad")));
        let good = Origin::named("good");
        let bed = bed(
            &[bad[0].addr(), bad[1].addr(), good.addr()],
            "on = '503', attempts = 3",
            &format!("balance = '{policy}'\nretry_floor = 1000"),
        );
        let mut client = bed.connect();
        for _ in 0..30 {
            assert_eq!(client.request("GET", "/").text(), "good", "{policy}");
        }
        assert_eq!(good.requests().len(), 30, "{policy}");
        for bad in &bad {
            assert!(bad.requests().len() <= 30, "{policy}");
        }
    }
}

#[test]
fn only_endpoint_is_asked_again_after_a_pause_if_it_answered() {
    let origin = Origin::start(|r| match r.nth {
        0 => origin::reply(503, "not yet"),
        _ => origin::reply(200, "now"),
    });
    let bed = bed(&[origin.addr()], "on = '503'", "");
    assert_eq!(ask(&bed, GET).text(), "now");
    assert_eq!((origin.accepted(), origin.requests().len()), (1, 2));
    assert_eq!((retries(&bed, "status"), attempts(&bed, 0)), (1.0, 2));
}

#[test]
fn retry_after_of_the_only_endpoint_is_waited_for_up_to_a_second() {
    for (value, waits) in [
        ("1", Some(1)),
        ("0", Some(0)),
        ("2", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
    ] {
        let unready =
            format!("HTTP/1.1 503 Test\r\nRetry-After: {value}\r\nContent-Length: 2\r\n\r\nno");
        let origin = Origin::start(move |r| match r.nth {
            0 => origin::raw(&unready),
            _ => origin::reply(200, "now"),
        });
        let bed = bed(&[origin.addr()], "on = '503'", "");
        let asked = now();
        let response = ask(&bed, GET);
        if let Some(seconds) = waits {
            assert_eq!(response.text(), "now");
            assert!(asked.elapsed() >= Duration::from_secs(seconds));
        } else {
            assert_eq!((response.status(), response.text().as_str()), (503, "no"));
            assert_eq!(response.field("retry-after"), Some(value));
            assert_eq!(origin.requests().len(), 1);
        }
    }
}

#[test]
fn retry_after_concerns_nobody_but_who_said_it() {
    let unready = "HTTP/1.1 503 Test\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n";
    let (bad, good) = (Origin::always(origin::raw(unready)), Origin::named("good"));
    let bed = bed(&[bad.addr(), good.addr()], "on = '503'", "");
    assert_eq!(ask(&bed, GET).text(), "good");
}

#[test]
fn post_is_sent_once_whatever_comes() {
    for (steps, status) in [
        (origin::reply(503, "bad"), 503),
        (vec![Step::ReadBody, Step::Reset], 502),
        (vec![Step::ReadBody, Step::AwaitClose], 504),
    ] {
        let (bad, good) = (Origin::always(steps), Origin::named("good"));
        let bed = bed(
            &[bad.addr(), good.addr()],
            "on = ['connect', 'reset', 'timeout', '503'], per_try_timeout = '1s'",
            "",
        );
        for request in [POST, &POST.replace("POST", "PATCH")] {
            assert_eq!(ask(&bed, request).status(), status, "{request}");
        }
        assert_eq!(counts([&bad, &good]), [2, 0]);
        assert_eq!(attempts(&bed, 1), 1);
    }
}

#[test]
fn connect_that_failed_is_tried_elsewhere_for_any_method() {
    let (refusing, good) = (Refusing::new(), Origin::named("good"));
    let bed = bed(&[refusing.addr, good.addr()], "on = 'connect'", "");
    for request in [GET, POST] {
        assert_eq!(ask(&bed, request).text(), "good");
    }
    assert_eq!((retries(&bed, "connect"), attempts(&bed, 1)), (2.0, 2));
}

#[test]
fn what_is_not_on_the_list_is_not_tried_again() {
    let good = Origin::named("good");
    let refusing = Refusing::new();
    let breaking = breaking();
    for (bad, on, reason) in [
        (refusing.addr, "'reset'", Reason::ConnectRefused),
        (breaking.addr(), "'connect'", Reason::EndpointReset),
        (breaking.addr(), "'503'", Reason::EndpointReset),
    ] {
        let bed = bed(&[bad, good.addr()], &format!("on = {on}"), "");
        expect_answer(&ask(&bed, GET), reason);
        assert_eq!(attempts(&bed, 0), 1);
    }
    assert_eq!(good.requests().len(), 0);
}

/// A response of gRPC that ends with its head.
fn grpc(status: u32) -> Vec<Step> {
    origin::raw(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: {status}\r\n\
         Content-Length: 0\r\n\r\n"
    ))
}

#[test]
fn grpc_status_in_the_head_is_tried_again_for_any_request() {
    for (on, status, is_tried) in [
        ("'grpc-unavailable'", 14, true),
        ("'grpc-unavailable'", 0, false),
        ("'grpc-unavailable'", 8, false),
        ("'grpc-resource-exhausted'", 8, true),
        ("['grpc-9']", 9, true),
        ("'5xx'", 14, false),
    ] {
        let (bad, good) = (Origin::always(grpc(status)), Origin::always(grpc(0)));
        let bed = bed(&[bad.addr(), good.addr()], &format!("on = {on}"), "");
        let response = ask(&bed, POST);
        let told = if is_tried {
            "0".to_owned()
        } else {
            status.to_string()
        };
        assert_eq!(
            response.field("grpc-status"),
            Some(told.as_str()),
            "{on} {status}"
        );
        assert_eq!(counts([&bad, &good]), [1, usize::from(is_tried)]);
        if is_tried {
            assert_eq!(good.await_done(0).body.data, b"hello");
        }
    }
}

#[test]
fn grpc_status_of_anything_else_is_nothing() {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\ngrpc-status: 14\r\n\
        Content-Length: 0\r\n\r\n";
    let (bad, good) = (Origin::always(origin::raw(html)), Origin::named("good"));
    let bed = bed(&[bad.addr(), good.addr()], "on = 'grpc-unavailable'", "");
    assert_eq!(ask(&bed, POST).status(), 200);
    assert_eq!(counts([&bad, &good]), [1, 0]);
}

#[test]
fn no_budget_is_one_attempt() {
    let good = Origin::named("good");
    let (refusing, breaking) = (Refusing::new(), breaking());
    let unready = Origin::always(origin::reply(503, "bad"));
    for (bad, status) in [
        (refusing.addr, 502),
        (breaking.addr(), 502),
        (unready.addr(), 503),
    ] {
        let bed = bed(
            &[bad, good.addr()],
            "on = ['connect', 'reset', '503'], budget = '0%'",
            "retry_floor = 0",
        );
        assert_eq!(ask(&bed, GET).status(), status);
        assert_eq!(attempts(&bed, 0), 1);
        assert_eq!(metric(&bed, "upstream_retry_budget_refusals_total"), 1.0);
        for reason in ["connect", "reset", "status"] {
            assert_eq!(retries(&bed, reason), 0.0);
        }
    }
    assert_eq!(good.requests().len(), 0);
}

#[test]
fn budget_is_a_share_of_exchanges() {
    // Every request fails once: of 100, a fifth may be tried again, and not one more.
    let (bad, good) = (
        Origin::always(origin::reply(503, "bad")),
        Origin::named("good"),
    );
    let bed = bed(
        &[bad.addr(), good.addr()],
        "on = '503', budget = '20%'",
        "retry_floor = 0",
    );
    let mut client = bed.connect();
    let saved = (0..100)
        .filter(|_| client.request("GET", "/").status() == 200)
        .count();
    assert!((10..=20).contains(&saved), "{saved}");
    assert_eq!(retries(&bed, "status"), saved as f64);
    assert_eq!(
        metric(&bed, "upstream_retry_budget_refusals_total"),
        (100 - saved) as f64
    );
}

#[test]
fn interim_response_that_was_forwarded_ends_all_trying() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for (then, status) in [
        (Step::Reset, 502),
        (Step::Send(origin::response(503, "bad")), 503),
    ] {
        let (gate, good) = (Gate::new(), Origin::named("good"));
        let bad = Origin::always(vec![
            Step::Send(hints.into()),
            Step::Pass(gate.clone()),
            then,
        ]);
        let bed = bed(&[bad.addr(), good.addr()], "on = ['reset', '503']", "");
        let mut client = bed.connect();
        client.send(GET);
        assert_eq!(client.head().status(), 103);
        gate.open();
        assert_eq!(client.response().status(), status);
        assert_eq!((good.requests().len(), attempts(&bed, 0)), (0, 1));
    }
}

#[test]
fn deadline_of_the_exchange_ends_a_pause() {
    let unready = "HTTP/1.1 503 Test\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::always(origin::raw(unready));
    let more = "on = '503' }\ntimeout = '500ms'\nrewrite = {";
    let bed = bed(&[origin.addr()], more, "");
    expect_answer(&ask(&bed, GET), Reason::Deadline);
    let line = &bed.log(1)[0];
    assert_eq!(line["endpoint"], origin.addr().to_string(), "{line}");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn client_that_leaves_in_a_pause_ends_the_trying() {
    let unready = "HTTP/1.1 503 Test\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::always(origin::raw(unready));
    let bed = bed(&[origin.addr()], "on = '503'", "");
    let mut client = bed.connect();
    client.send(GET);
    eventually("the pause", || retries(&bed, "status") == 1.0);
    client.reset();
    let line = &bed.log(1)[0];
    assert_eq!(line["status"], 499, "{line}");
    assert_eq!(line["reason"], "client_gone");
    assert_eq!(line["outcome"], "cancelled");
    assert_eq!(line["attempts"], 1);
    assert_eq!(line["endpoint"], origin.addr().to_string());
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn client_that_leaves_in_an_attempt_ends_the_trying() {
    let (silent, good) = (
        Origin::always(vec![Step::AwaitClose]),
        Origin::named("good"),
    );
    let bed = bed(&[silent.addr(), good.addr()], "", "");
    let mut client = bed.connect();
    client.send(GET);
    silent.await_requests(1);
    client.reset();
    let line = &bed.log(1)[0];
    assert_eq!(
        (&line["reason"], &line["attempts"]),
        (&"client_gone".into(), &1.into())
    );
    let cancelled = format!(
        "endpoint_requests_total endpoint=\"{}\",outcome=\"cancelled\"",
        silent.addr()
    );
    assert_eq!(metric(&bed, &cancelled), 1.0);
    assert_eq!(good.requests().len(), 0);
}

#[test]
fn connection_of_a_discarded_response_is_kept_if_that_was_whole() {
    let whole = origin::response(503, "bad");
    let longer = b"HTTP/1.1 503 Test\r\nContent-Length: 50\r\n\r\nbad".to_vec();
    let chunked = b"HTTP/1.1 503 Test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n".to_vec();
    let closing = b"HTTP/1.1 503 Test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
    for (bytes, connections) in [(whole, 1), (longer, 3), (chunked, 3), (closing, 3)] {
        let bad = Origin::always(vec![Step::ReadBody, Step::Send(bytes)]);
        let good = Origin::named("good");
        let bed = bed(&[bad.addr(), good.addr()], "on = '503'", "");
        for _ in 0..3 {
            assert_eq!(Client::get(bed.addr(), "/").text(), "good");
        }
        assert_eq!(bad.requests().len(), 3);
        assert_eq!(bad.accepted(), connections);
        assert_eq!(good.accepted(), 1);
    }
}
