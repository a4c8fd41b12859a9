//! Another attempt of a request that has a body, or more than that behind its head.

use std::time::Duration;

use isobar::telemetry::reason::Reason;

use super::retries::{GET, ask, attempts, bed, breaking, counts, retries};
use crate::support::client::Response;
use crate::support::gate::Gate;
use crate::support::h2::{H2Client, fields, read, request, run, send_all, within};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::origin::{self, Origin, Step, pattern};
use crate::support::watched::{Watched, expect_answer};

/// PUT with this body, its head apart: the body comes when the first endpoint has the head.
#[track_caller]
fn put_later(bed: &Watched, first: &Origin, head: &str, body: &[u8]) -> Response {
    let mut client = bed.connect();
    client.send(format!("PUT / HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n"));
    first.await_requests(1);
    client.send(body);
    client.response()
}

/// `body` in chunks of many sizes.
fn chunks(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    for size in (1..).map(|n| n * 611 % 9000 + 1) {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        if chunk.is_empty() {
            break;
        }
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[test]
fn body_that_was_kept_is_sent_again_to_the_byte() {
    const KIB: usize = 1024;
    for (keep, sizes) in [
        ("64KiB", [1, 5_000, 64 * KIB]),
        ("1MiB", [64 * KIB + 1, 300_000, 1024 * KIB]),
    ] {
        for size in sizes {
            for is_chunked in [false, true] {
                let (bad, good) = (breaking(), Origin::always(origin::reply(200, "good")));
                let keep = format!("body = '{keep}'");
                let bed = bed(&[bad.addr(), good.addr()], &keep, "");
                let body = pattern(0, size);
                let response = if is_chunked {
                    put_later(&bed, &bad, "Transfer-Encoding: chunked", &chunks(&body))
                } else {
                    put_later(&bed, &bad, &format!("Content-Length: {size}"), &body)
                };
                assert_eq!(response.text(), "good", "{size} {is_chunked}");
                let (first, second) = (bad.await_done(0), good.await_done(0));
                assert!(first.body.data == body, "{size} {is_chunked}");
                assert!(second.body.data == body, "{size} {is_chunked}");
                assert_eq!(first.head.raw, second.head.raw);
                assert_eq!((retries(&bed, "reset"), attempts(&bed, 0)), (1.0, 2));
                assert_eq!(bed.log(1)[0]["bytes_in"], size);
            }
        }
    }
}

#[test]
fn body_above_the_limit_is_sent_once() {
    // Without a length it may be a buffer longer before that is known.
    for (keep, size, is_chunked) in [
        ("64KiB", 64 * 1024 + 1, false),
        ("64KiB", 500_000, false),
        ("64KiB", 500_000, true),
        ("0B", 500_000, false),
        ("0B", 500_000, true),
    ] {
        let (bad, good) = (breaking(), Origin::named("good"));
        let keep = format!("body = '{keep}'");
        let bed = bed(&[bad.addr(), good.addr()], &keep, "");
        let body = pattern(0, size);
        let response = if is_chunked {
            put_later(&bed, &bad, "Transfer-Encoding: chunked", &chunks(&body))
        } else {
            put_later(&bed, &bad, &format!("Content-Length: {size}"), &body)
        };
        expect_answer(&response, Reason::EndpointReset);
        assert!(bad.await_done(0).body.data == body, "{size} {is_chunked}");
        assert_eq!((good.requests().len(), attempts(&bed, 0)), (0, 1));
    }
}

#[test]
fn trailers_are_sent_again_too() {
    let (bad, good) = (breaking(), Origin::named("good"));
    let bed = bed(&[bad.addr(), good.addr()], "", "");
    let body = b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";
    let response = put_later(&bed, &bad, "Transfer-Encoding: chunked", body);
    assert_eq!(response.text(), "good");
    let (first, second) = (bad.await_done(0), good.await_done(0));
    assert_eq!(second.body.data, b"hello");
    assert_eq!(first.body.trailers, second.body.trailers);
}

/// The end of an upload over HTTP/2 comes once, beside its bytes; whoever is asked next gets it too.
#[test]
fn upload_of_http2_is_sent_again_to_its_end() {
    let cases = [(Some("5"), false), (None, false), (None, true)];
    for (length, has_trailers) in cases {
        let broken = || Origin::always(vec![Step::ReadBody, Step::Reset]);
        let (h1_bad, h1) = (broken(), Origin::named("good"));
        let h2_bad = H2Origin::start(|mut exchange: Exchange| async move {
            exchange.read().await;
            exchange.kill_connection();
        });
        let h2 = H2Origin::named("good");
        let beds = [
            bed(&[h1_bad.addr(), h1.addr()], "", ""),
            bed(&[h2_bad.addr(), h2.addr()], "", "protocol = 'h2'"),
        ];
        for bed in beds {
            run(async {
                let client = H2Client::connect(bed.addr()).await;
                let mut asked = request("PUT", "/");
                if let Some(length) = length {
                    asked = asked.header("content-length", length);
                }
                let asked = asked.body(()).unwrap();
                let (response, mut send) = client.open(asked, false).await.unwrap();
                send_all(&mut send, b"hello", !has_trailers).await.unwrap();
                if has_trailers {
                    send.send_trailers(fields(&[("x-sum", "7")])).unwrap();
                }
                let answer = read(within("a response", response).await.unwrap()).await;
                assert_eq!(answer.unwrap().text(), "good");
            });
            assert_eq!(attempts(&bed, 0), 2);
        }
        let (old, new) = (h1.await_done(0), h2.await_done(0));
        assert_eq!(
            (&old.body.data[..], &new.body[..]),
            (&b"hello"[..], &b"hello"[..])
        );
        let count = usize::from(has_trailers);
        assert_eq!(old.body.trailers.len(), count);
        assert_eq!(new.trailers.map_or(0, |trailers| trailers.len()), count);
    }
}

#[test]
fn upload_that_breaks_half_way_goes_on_elsewhere() {
    // What the first one has got is kept, the rest comes while the second one is asked.
    let (bad, good) = (
        Origin::always(vec![Step::ReadSome(1000), Step::Reset]),
        Origin::named("good"),
    );
    let bed = bed(&[bad.addr(), good.addr()], "", "");
    let body = pattern(0, 60_000);
    let mut client = bed.connect();
    client.send("PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n");
    client.send(&body[..1000]);
    good.await_requests(1);
    client.send(&body[1000..]);
    assert_eq!(client.response().text(), "good");
    assert!(good.await_done(0).body.data == body);
    assert_eq!(attempts(&bed, 0), 2);
}

#[test]
fn silent_endpoint_is_given_up_after_per_try_timeout() {
    let body = pattern(0, 5_000);
    for later in [
        None,
        Some("Content-Length: 5000"),
        Some("Transfer-Encoding: chunked"),
    ] {
        let (silent, good) = (
            Origin::always(vec![Step::ReadBody, Step::AwaitClose]),
            Origin::always(origin::reply(200, "good")),
        );
        let bed = bed(
            &[silent.addr(), good.addr()],
            "on = 'timeout', per_try_timeout = '1s'",
            "",
        );
        let response = match later {
            None => ask(&bed, GET),
            Some(head) if head.starts_with('T') => put_later(&bed, &silent, head, &chunks(&body)),
            Some(head) => put_later(&bed, &silent, head, &body),
        };
        assert_eq!(response.text(), "good", "{later:?}");
        assert_eq!((retries(&bed, "timeout"), attempts(&bed, 0)), (1.0, 2));
        if later.is_some() {
            assert!(good.await_done(0).body.data == body);
        }
    }
}

#[test]
fn each_attempt_has_its_own_time() {
    // The second one takes longer than what the first has left, and less than it may.
    let body = pattern(0, 5_000);
    for is_later in [false, true] {
        let (gate, silent) = (
            Gate::new(),
            Origin::always(vec![Step::ReadBody, Step::AwaitClose]),
        );
        let of_good = gate.clone();
        let good = Origin::start(move |_| {
            vec![
                Step::ReadBody,
                Step::Pass(of_good.clone()),
                Step::Send(origin::response(200, "good")),
            ]
        });
        let bed = bed(
            &[silent.addr(), good.addr()],
            "on = 'timeout', per_try_timeout = '2s'",
            "",
        );
        let mut client = bed.connect();
        client.send("PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n");
        if is_later {
            silent.await_requests(1);
        }
        client.send(&body);
        good.await_requests(1);
        client.expect_silence(Duration::from_millis(200));
        gate.open();
        assert_eq!(client.response().text(), "good", "{is_later}");
        assert!(good.await_done(0).body.data == body);
        assert_eq!(attempts(&bed, 0), 2);
    }
}

#[test]
fn upload_goes_on_behind_an_early_refusal() {
    let body = pattern(0, 50_000);
    for (head, sent) in [
        ("Content-Length: 50000", body.clone()),
        ("Transfer-Encoding: chunked", chunks(&body)),
    ] {
        // It answers at once, and nobody has sent the body yet.
        let bad = Origin::always(vec![
            Step::Send(origin::response(503, "bad")),
            Step::AwaitClose,
        ]);
        let good = Origin::named("good");
        let bed = bed(&[bad.addr(), good.addr()], "on = '503'", "");
        let mut client = bed.connect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n"));
        good.await_requests(1);
        client.send(&sent);
        assert_eq!(client.response().text(), "good");
        assert!(good.await_done(0).body.data == body);
        assert_eq!(client.request("GET", "/").text(), "good", "it goes on");
    }
}

#[test]
fn expectation_is_the_next_endpoints() {
    let bad = Origin::always(vec![Step::Reset]);
    let good = Origin::always(vec![
        Step::Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Step::ReadBody,
        Step::Send(origin::response(200, "good")),
    ]);
    let bed = bed(&[bad.addr(), good.addr()], "", "");
    let mut client = bed.connect();
    client.send("PUT / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send("hello");
    assert_eq!(client.response().text(), "good");
    assert_eq!(good.await_done(0).body.data, b"hello");
    assert_eq!(counts([&bad, &good]), [1, 1]);
}

#[test]
fn requests_behind_one_that_is_tried_again_stay_in_their_order() {
    let bad = breaking();
    let good = Origin::always(origin::mirror());
    let bed = bed(&[bad.addr(), good.addr()], "", "retry_floor = 1000");
    let mut client = bed.connect();
    let body = pattern(0, 3_000);
    let mut all = Vec::new();
    for n in 0..6 {
        let (head, sent) = match n % 3 {
            0 => ("X: y", Vec::new()),
            1 => ("Content-Length: 3000", body.clone()),
            _ => ("Transfer-Encoding: chunked", chunks(&body)),
        };
        all.extend_from_slice(format!("PUT /{n} HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n").as_bytes());
        all.extend_from_slice(&sent);
    }
    client.send(&all);
    for n in 0..6 {
        let response = client.response();
        assert_eq!(response.status(), 200);
        assert!(response.text().starts_with(&format!("PUT /{n} ")), "{n}");
        let sent = good.await_done(n).body.data;
        assert!(
            if n % 3 == 0 {
                sent.is_empty()
            } else {
                sent == body
            },
            "{n}"
        );
    }
    assert_eq!(counts([&bad, &good]), [6, 6]);
    assert_eq!(retries(&bed, "reset"), 6.0);
}

#[test]
fn client_that_sends_nothing_more_still_gets_its_answer() {
    let (bad, good) = (breaking(), Origin::named("good"));
    let bed = bed(&[bad.addr(), good.addr()], "", "");
    let mut client = bed.connect();
    client.send(GET);
    client.finish();
    assert_eq!(client.response().text(), "good");
}

#[test]
fn upgrade_is_tried_again_until_it_is_one() {
    for steps in [origin::reply(503, "bad"), vec![Step::Reset]] {
        let (bad, good) = (Origin::always(steps), Origin::always(origin::tunnel()));
        let bed = bed(&[bad.addr(), good.addr()], "on = ['503', 'reset']", "");
        let mut client = bed.connect();
        client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(client.head().status(), 101);
        client.send("ping");
        assert_eq!(client.exactly(4), b"ping");
        client.finish();
        client.expect_closed();
        assert_eq!(attempts(&bed, 0), 2);
    }
}
