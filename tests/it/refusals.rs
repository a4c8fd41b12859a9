//! The corpus of ambiguous, broken and borderline messages, through a running proxy.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::time::Duration;

use isobar::http1::Limits;
use isobar::http1::corpus::{Case, Outcome, REQUESTS, RESPONSES, read_request};
use isobar::telemetry::reason::Reason;

use crate::support::client::Client;
use crate::support::origin::{self, Origin, Request, Step};
use crate::support::proxy::Proxy;
use crate::support::unreachable::Refusing;
use crate::support::watched::{Watched, expect_answer};
use crate::support::wire::{Broken, Head};

/// What a sound request means in the corpus, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    method: String,
    framing: String,
    /// Content and trailers, as the corpus writes them.
    content: String,
    /// Bytes behind it.
    left: usize,
}

/// What must become of the bytes of one connection, one entry a request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Forwarded(Meaning),
    /// Answered with this status; the connection closes.
    Refused(u16),
    /// Not all there: neither forwarded as a whole nor answered.
    Unfinished,
}

#[test]
fn refused_requests_get_their_status_and_never_reach_an_endpoint() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for case in REQUESTS.iter().copied().flatten() {
        let Err(Some(refusal)) = case.expect else {
            continue;
        };
        // The client does not end its direction: that the connection closes is the proxy's doing.
        let mut client = Client::connect(proxy.addr());
        client.send(case.bytes);
        let response = client.response();
        assert_eq!(
            response.status(),
            refusal.status().as_u16(),
            "{}",
            case.name
        );
        assert_eq!(response.field("connection"), Some("close"), "{}", case.name);
        assert!(response.field("proxy-status").is_some(), "{}", case.name);
        client.expect_closed();
    }
    expect_clean(&proxy, &origin, 0);
}

#[test]
fn refused_requests_are_refused_byte_by_byte_too() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for case in REQUESTS.iter().copied().flatten() {
        let Err(Some(refusal)) = case.expect else {
            continue;
        };
        let mut client = Client::connect(proxy.addr());
        // Refused as soon as it can be known: the rest may meet a closed connection.
        for byte in case.bytes {
            if !client.try_send([*byte]) {
                break;
            }
        }
        let response = client.response();
        assert_eq!(
            response.status(),
            refusal.status().as_u16(),
            "{}",
            case.name
        );
        client.expect_closed();
    }
    expect_clean(&proxy, &origin, 0);
}

#[test]
fn accepted_requests_arrive_once_with_the_same_meaning() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    let mut arrived = 0;
    for case in REQUESTS.iter().copied().flatten() {
        if !matches!(case.expect, Ok(_) | Err(None)) {
            continue;
        }
        let mut client = Client::connect(proxy.addr());
        client.send(case.bytes);
        client.finish();
        let answers = statuses(&client.until_closed());
        let fates = fates(case.bytes);
        let expected: Vec<u16> = fates
            .iter()
            .filter_map(|fate| match fate {
                Fate::Forwarded(_) => Some(200),
                Fate::Refused(status) => Some(*status),
                Fate::Unfinished => None,
            })
            .collect();
        assert_eq!(answers, expected, "{}", case.name);
        let whole = whole_requests(&origin);
        let new = &whole[arrived..];
        arrived = whole.len();
        let forwarded: Vec<&Meaning> = fates
            .iter()
            .filter_map(|fate| match fate {
                Fate::Forwarded(meaning) => Some(meaning),
                Fate::Refused(_) | Fate::Unfinished => None,
            })
            .collect();
        assert_eq!(new.len(), forwarded.len(), "{}: {new:#?}", case.name);
        for (request, meaning) in new.iter().zip(forwarded) {
            // A request of HTTP/1.0 without a host goes on with an empty one, as RFC 9112 section
            // 3.2 has it; the codec, being stricter, takes none such from clients.
            let head = String::from_utf8_lossy(&request.head.raw).replace("Host: \r", "Host: a\r");
            let bytes = [head.as_bytes(), &request.body.raw].concat();
            let Outcome::Accepted(text) = read_request(&[&bytes], &Limits::default()) else {
                panic!("{}: ambiguous at the endpoint: {request:#?}", case.name);
            };
            let seen = Meaning::of(&text);
            assert_eq!(seen.left, 0, "{}", case.name);
            assert_eq!(
                (&seen.method, &seen.framing, &seen.content),
                (&meaning.method, &meaning.framing, &meaning.content),
                "{}",
                case.name
            );
        }
    }
    expect_clean(&proxy, &origin, arrived);
}

#[test]
fn request_smuggled_behind_a_refused_one_never_arrives() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for case in REQUESTS.iter().copied().flatten() {
        if !matches!(case.expect, Err(Some(_))) {
            continue;
        }
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut client = Client::connect(proxy.addr());
        client.send([case.bytes, smuggled].concat());
        assert_eq!(statuses(&client.until_closed()).len(), 1, "{}", case.name);
    }
    expect_clean(&proxy, &origin, 0);
}

/// Two readings of one message: by Content-Length the second request is its body, by
/// Transfer-Encoding it is a request of its own.
#[test]
fn length_beside_encoding_smuggles_nothing() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding: xchunked\r\nContent-Length: 6",
        "Transfer-Encoding : chunked\r\nContent-Length: 6",
        "Transfer_Encoding: chunked\r\nContent-Length: 6",
        "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ] {
        let mut client = Client::connect(proxy.addr());
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\
             Host: a\r\n\r\n"
        ));
        let answers = statuses(&client.until_closed());
        assert!(matches!(answers[..], [400 | 501]), "{fields}: {answers:?}");
    }
    expect_clean(&proxy, &origin, 0);
}

/// Seen red: the answer to a head that could not be parsed was framed for the method of the
/// request before it, so after a HEAD its body was announced and missing.
#[test]
fn refusal_after_a_head_request_has_its_body() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("HEAD", "/").status(), 200);
    client.send("NONSENSE\r\n\r\n");
    expect_answer(&client.response(), Reason::BadRequest);
    client.expect_closed();
}

#[test]
fn refused_head_has_a_request_id_for_the_client_and_the_log() {
    let origin = Origin::start(sink);
    let watched = Watched::over(origin.addr(), "", "");
    let mut client = watched.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let response = client.response();
    expect_answer(&response, Reason::BadHost);
    assert_eq!(response.field("x-request-id").map(str::len), Some(32));
    let line = watched.expect_recorded(Reason::BadHost, None);
    assert_eq!(line["request_id"].as_str(), response.field("x-request-id"));
    assert_eq!(line["status"], 400);
    assert_eq!(line["outcome"], "refused");
}

/// Seen red: it was told as `X-Request-Id`, whatever the listener calls it.
#[test]
fn refusal_names_the_request_id_as_the_listener_does() {
    let refusing = Refusing::new();
    for (forwarding, name) in [("x-trace", Some("x-trace")), ("off", None)] {
        let listener = format!("forwarding = {{ request_id = \"{forwarding}\" }}");
        let watched = Watched::over(refusing.addr, &listener, "");
        for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "NONSENSE\r\n\r\n"] {
            let mut client = watched.connect();
            client.send(request);
            let response = client.response();
            assert!(response.status() >= 400);
            assert_eq!(response.field("x-request-id"), None);
            if let Some(name) = name {
                assert_eq!(response.field(name).map(str::len), Some(32), "{request}");
            }
        }
    }
}

#[test]
fn bytes_after_a_refusal_are_neither_served_nor_answered_with_a_reset() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    expect_answer(&client.response(), Reason::BadHost);
    for _ in 0..64 {
        client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
    expect_clean(&proxy, &origin, 0);
}

#[test]
fn refused_responses_are_502_and_their_connection_is_not_used_again() {
    let cases: Vec<&'static Case> = RESPONSES
        .iter()
        .copied()
        .flatten()
        .filter(|c| matches!(c.expect, Err(Some(_))))
        .collect();
    let origin = Origin::start(|request| response_of(request, Step::AwaitClose));
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for (n, case) in all_responses() {
        if !cases.iter().any(|c| std::ptr::eq(*c, case)) {
            continue;
        }
        let mut client = Client::connect(proxy.addr());
        client.send(format!("{} /{n} HTTP/1.1\r\nHost: a\r\n\r\n", case.method));
        let response = client.response_to(case.method);
        assert_eq!(response.status(), 502, "{}", case.name);
        assert_eq!(
            response.field("proxy-status"),
            Some("isobar; error=http_protocol_error; details=\"bad_response\""),
            "{}",
            case.name
        );
        // Nothing is wrong with the client.
        assert_eq!(response.field("connection"), None, "{}", case.name);
    }
    origin.await_open(0);
    for request in origin.requests() {
        assert_eq!((request.nth, request.rest.len()), (0, 0), "{request:#?}");
    }
}

#[test]
fn accepted_responses_keep_their_meaning_and_their_connection_only_if_it_is_clean() {
    let origin = Origin::start(|request| {
        let case = all_responses().nth(index(request)).map(|(_, c)| c);
        match case.map(|c| c.expect) {
            Some(Ok(meaning)) if !meaning.contains("until-close") => {
                let mut steps = response_of(request, Step::Close);
                steps.pop();
                steps
            }
            _ => response_of(request, Step::Close),
        }
    });
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for (n, case) in all_responses() {
        let Ok(meaning) = case.expect else { continue };
        // Interim and upgrade responses have tests of their own; CONNECT is never forwarded.
        if meaning.starts_with('1') || case.method == "CONNECT" {
            continue;
        }
        let mut client = Client::connect(proxy.addr());
        client.send(format!("{} /{n} HTTP/1.1\r\nHost: a\r\n\r\n", case.method));
        let response = client.response_to(case.method);
        assert_eq!(response.status().to_string(), meaning[..3], "{}", case.name);
        let content = meaning.split('"').nth(1).unwrap_or_default();
        assert_eq!(response.text(), content, "{}", case.name);
        assert!(response.field("x-a").is_none(), "{}", case.name);
        client.send("GET /999 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status(), 200, "{}: the next", case.name);
        let requests = origin.requests();
        let [.., own, next] = &requests[..] else {
            panic!("{requests:?}")
        };
        assert_eq!((index(own), index(next)), (n, 999));
        let is_clean = meaning.contains(" keep") && !meaning.contains(" +");
        assert_eq!(
            own.connection == next.connection,
            is_clean,
            "{}: {meaning}",
            case.name
        );
    }
}

#[test]
fn responses_cut_short_are_told_or_cut() {
    let origin = Origin::start(|request| response_of(request, Step::Close));
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for (n, case) in all_responses() {
        if case.expect != Err(None) {
            continue;
        }
        let mut client = Client::connect(proxy.addr());
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.head();
        if head.status() == 502 {
            continue;
        }
        assert_eq!(head.status(), 200, "{}", case.name);
        assert!(
            matches!(case.name, "half a body" | "cut short"),
            "{}",
            case.name
        );
        assert_eq!(client.broken(), Broken::Reset, "{}", case.name);
    }
}

#[test]
fn endpoint_cannot_split_a_response_by_its_fields() {
    // A bare LF or CR inside a value would be a line of its own to a lenient client.
    let origin = Origin::start(|request| {
        let value: &[u8] = match request.head.target() {
            "/lf" => b"a\nSet-Cookie: evil=1",
            "/cr" => b"a\rSet-Cookie: evil=1",
            _ => b"a\0b",
        };
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
        vec![
            Step::ReadBody,
            Step::Send([head, value, b"\r\n\r\n"].concat()),
            Step::AwaitClose,
        ]
    });
    let proxy = Proxy::over_h1(&[origin.addr()]);
    for target in ["/lf", "/cr", "/nul"] {
        let mut client = Client::connect(proxy.addr());
        let response = client.request("GET", target);
        expect_answer(&response, Reason::BadResponse);
        assert!(response.field("set-cookie").is_none());
    }
}

// === what the tests are made of ===

/// Reads whatever the framing says and answers 200 without a body.
fn sink(_: &Request) -> Vec<Step> {
    origin::reply(200, "")
}

/// Every response of the corpus with its number.
fn all_responses() -> impl Iterator<Item = (usize, &'static Case)> {
    RESPONSES.iter().copied().flatten().enumerate()
}

/// The number in the request's target.
fn index(request: &Request) -> usize {
    request.head.target()[1..].parse().unwrap()
}

/// The response that the target names, then `after`; an empty 200 for a number too high.
fn response_of(request: &Request, after: Step) -> Vec<Step> {
    match all_responses().nth(index(request)) {
        Some((_, case)) => vec![Step::ReadBody, Step::Send(case.bytes.to_vec()), after],
        None => origin::reply(200, ""),
    }
}

/// Requests whose body came to its end, once none is in between.
fn whole_requests(origin: &Origin) -> Vec<Request> {
    let n = origin.requests().len();
    let mut requests: Vec<_> = (0..n).map(|i| origin.await_done(i)).collect();
    requests.retain(|r| r.is_done);
    requests
}

/// The proxy still serves, and besides the request that shows it the origin got `n` whole ones.
#[track_caller]
fn expect_clean(proxy: &Proxy, origin: &Origin, n: usize) {
    assert_eq!(Client::get(proxy.addr(), "/clean").status(), 200);
    let whole = whole_requests(origin);
    assert!(whole.iter().any(|r| r.head.target() == "/clean"));
    assert_eq!(whole.len(), n + 1, "{whole:#?}");
}

/// The statuses of the final responses in `bytes`, read by their framing.
fn statuses(bytes: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = Head::parse(rest[..end].to_vec());
        let length: usize = head.field("content-length").unwrap().parse().unwrap();
        rest = &rest[end + length..];
        found.push(head.status());
    }
    found
}

/// What must become of these bytes, by the corpus's own reader and the rules of the proxy.
fn fates(bytes: &[u8]) -> Vec<Fate> {
    let mut fates = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        match read_request(&[rest], &Limits::default()) {
            Outcome::Partial => {
                fates.push(Fate::Unfinished);
                break;
            }
            Outcome::Refused(refusal) => {
                fates.push(Fate::Refused(refusal.status().as_u16()));
                break;
            }
            Outcome::Accepted(text) => {
                let meaning = Meaning::of(&text);
                let is_last = text.contains(" close");
                let head = String::from_utf8_lossy(rest);
                let next = rest.len() - meaning.left;
                if meaning.method == "CONNECT" {
                    fates.push(Fate::Refused(405));
                } else if head.contains("Expect: 200-ok") {
                    fates.push(Fate::Refused(417));
                } else {
                    fates.push(Fate::Forwarded(meaning));
                }
                if is_last {
                    break;
                }
                rest = &rest[next..];
            }
        }
    }
    fates
}

// === impl Meaning ===

impl Meaning {
    fn of(text: &str) -> Self {
        let mut left = 0;
        let mut text = text.to_owned();
        if let Some((before, behind)) = text.rsplit_once(" +")
            && let Ok(n) = behind.parse()
        {
            left = n;
            text = before.to_owned();
        }
        let words: Vec<&str> = text.split(' ').collect();
        let at = words
            .iter()
            .position(|w| matches!(*w, "keep" | "close"))
            .unwrap();
        // `1.0`, `100-continue`, `upgrade` and fields that end here are not the content's.
        let content = words[at + 1..]
            .iter()
            .filter(|w| !matches!(**w, "1.0" | "100-continue" | "upgrade") && !w.starts_with('-'))
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        Self {
            method: words[0].to_owned(),
            framing: words[at - 1].to_owned(),
            content,
            left,
        }
    }
}

/// Silence is short in these tests: it can only miss a fault.
#[test]
fn nothing_sent_is_answered_with_nothing() {
    let origin = Origin::start(sink);
    let proxy = Proxy::over_h1(&[origin.addr()]);
    let mut client = Client::connect(proxy.addr());
    client.send("\r\n");
    client.expect_silence(Duration::from_millis(20));
    client.finish();
    assert_eq!(client.broken(), Broken::Closed(Vec::new()));
}
