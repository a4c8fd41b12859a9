//! Requests of HTTP/2 that HTTP/1.1 could understand in another way, or not at all: refused, and no
//! endpoint sees any of them (RFC 9113 section 8, and section 10.3 on what does not translate).

use super::support::eventually::eventually;
use super::support::h2raw::{END_STREAM, H2, Stream, block, data, headers, request};
use super::support::origin::{self, Origin};
use super::support::watched::Watched;

/// Names and values as they are on the wire.
type Fields<'t> = Vec<(&'t [u8], &'t [u8])>;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

/// A request that is as it should be, but for what `change` does.
fn changed<'t>(change: impl FnOnce(&mut Fields<'t>)) -> Vec<u8> {
    let mut fields: Fields<'t> = vec![
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"test"),
        (b":path", b"/bad"),
    ];
    change(&mut fields);
    block(&fields)
}

fn with<'t>(name: &'t [u8], value: &'t [u8]) -> Vec<u8> {
    changed(|fields| fields.push((name, value)))
}

/// With another value of a pseudo-header.
fn pseudo<'t>(name: &'t [u8], value: &'t [u8]) -> Vec<u8> {
    changed(|fields| {
        for field in fields.iter_mut().filter(|(n, _)| *n == name) {
            field.1 = value;
        }
    })
}

fn without(name: &[u8]) -> Vec<u8> {
    changed(|fields| fields.retain(|(n, _)| *n != name))
}

fn is_refused(client: &H2, answer: &Stream) -> bool {
    let is_client_error = answer.status.is_some_and(|s| (400..500).contains(&s));
    is_client_error || answer.reset.is_some() || client.goaway.is_some_and(|code| code != 0)
}

/// Each on a connection of its own; none of them is seen by the origin.
#[track_caller]
fn expect_refused(cases: &[(&str, Vec<u8>)]) {
    let origin = Origin::always(origin::reply(200, "ok"));
    let watched = Watched::over(origin.addr(), "", "");
    let mut bystander = H2::connect(watched.addr());
    for (n, (what, block)) in cases.iter().enumerate() {
        let mut client = H2::connect(watched.addr());
        client.send(headers(1, END_STREAM, block));
        let answer = client.answer(1);
        assert!(is_refused(&client, &answer), "{what}: {answer:?}");
        assert_eq!(bystander.get("/ok").status, Some(200), "{what}");
        let seen = origin.requests();
        assert!(
            seen.len() == n + 1 && seen.iter().all(|r| r.head.target() == "/ok"),
            "{what}: the origin saw {:?}",
            seen.last().map(|r| &r.head)
        );
    }
}

#[test]
fn bytes_that_end_lines_are_refused() {
    expect_refused(&[
        ("CR in a value", with(b"x", b"a\rb")),
        ("LF in a value", with(b"x", b"a\nb")),
        ("CRLF in a value", with(b"x", b"a\r\nsmuggled: yes")),
        ("NUL in a value", with(b"x", b"a\0b")),
        ("CR in a name", with(b"x\r", b"a")),
        ("LF in a name", with(b"x\ny", b"a")),
        ("NUL in a name", with(b"x\0", b"a")),
        ("CRLF in the path", pseudo(b":path", b"/ HTTP/1.1\r\nx: y")),
        ("LF in the path", pseudo(b":path", b"/a\nb")),
        ("NUL in the path", pseudo(b":path", b"/a\0b")),
        (
            "CRLF in the authority",
            pseudo(b":authority", b"test\r\nx: y"),
        ),
        (
            "CRLF in the method",
            pseudo(b":method", b"GET / HTTP/1.1\r\nx: y"),
        ),
        ("CRLF in the scheme", pseudo(b":scheme", b"http\r\nx: y")),
    ]);
}

#[test]
fn names_that_are_none_are_refused() {
    expect_refused(&[
        ("upper case", with(b"X-Upper", b"a")),
        ("space", with(b"x y", b"a")),
        ("space at the end", with(b"content-length ", b"5")),
        ("colon", with(b"x:y", b"a")),
        ("empty", with(b"", b"a")),
        ("not ASCII", with("é".as_bytes(), b"a")),
    ]);
}

#[test]
fn fields_of_a_connection_are_refused() {
    expect_refused(&[
        ("connection", with(b"connection", b"close")),
        ("connection that names a field", with(b"connection", b"x-a")),
        ("keep-alive", with(b"keep-alive", b"timeout=5")),
        ("proxy-connection", with(b"proxy-connection", b"close")),
        ("transfer-encoding", with(b"transfer-encoding", b"chunked")),
        ("upgrade", with(b"upgrade", b"websocket")),
        ("te other than trailers", with(b"te", b"gzip")),
        ("te with more than trailers", with(b"te", b"trailers, gzip")),
    ]);
}

#[test]
fn pseudo_headers_that_do_not_add_up_are_refused() {
    let doubled = |name, value| changed(|fields| fields.insert(0, (name, value)));
    expect_refused(&[
        ("no method", without(b":method")),
        ("no scheme", without(b":scheme")),
        ("no path", without(b":path")),
        ("no authority and no host", without(b":authority")),
        ("two methods", doubled(b":method", b"GET")),
        ("two schemes", doubled(b":scheme", b"http")),
        ("two authorities", doubled(b":authority", b"test")),
        ("two paths", doubled(b":path", b"/bad")),
        (
            "path after a field",
            changed(|fields| fields.insert(3, (b"x", b"a"))),
        ),
        ("unknown", with(b":unknown", b"a")),
        ("unknown first", doubled(b":unknown", b"a")),
        ("status", doubled(b":status", b"200")),
        (
            "protocol of no CONNECT",
            doubled(b":protocol", b"websocket"),
        ),
    ]);
}

#[test]
fn values_of_pseudo_headers_that_mean_something_else_are_refused() {
    expect_refused(&[
        ("empty path", pseudo(b":path", b"")),
        ("path with a space", pseudo(b":path", b"/a b")),
        (
            "path that is a request line",
            pseudo(b":path", b"/a HTTP/1.1"),
        ),
        ("path without a slash", pseudo(b":path", b"bad")),
        ("absolute path", pseudo(b":path", b"http://other/bad")),
        ("asterisk of a GET", pseudo(b":path", b"*")),
        ("empty authority", pseudo(b":authority", b"")),
        (
            "authority with userinfo",
            pseudo(b":authority", b"user@test"),
        ),
        (
            "authority with a password",
            pseudo(b":authority", b"user:secret@test"),
        ),
        ("authority with a path", pseudo(b":authority", b"test/bad")),
        (
            "authority with a space",
            pseudo(b":authority", b"test other"),
        ),
        (
            "two authorities in one",
            pseudo(b":authority", b"test,other"),
        ),
        ("authority other than host", with(b"host", b"other")),
        (
            "two hosts",
            changed(|fields| {
                fields.retain(|(n, _)| *n != b":authority");
                fields.extend([(&b"host"[..], &b"test"[..]), (b"host", b"other")]);
            }),
        ),
        ("empty method", pseudo(b":method", b"")),
        ("method with a space", pseudo(b":method", b"GET /bad")),
        (
            "scheme that is a URI",
            pseudo(b":scheme", b"http://other/?"),
        ),
        ("CONNECT", pseudo(b":method", b"CONNECT")),
    ]);
}

/// A fragment is no part of a target (RFC 9112 section 3.2): refused or removed, never forwarded.
#[test]
fn fragment_never_reaches_the_endpoint() {
    let origin = Origin::always(origin::reply(200, "ok"));
    let watched = Watched::over(origin.addr(), "", "");
    let mut client = H2::connect(watched.addr());
    for path in ["/bad#fragment", "/bad?q#fragment", "/#"] {
        let answer = client.get(path);
        assert!(answer.status == Some(200) || is_refused(&client, &answer));
    }
    for request in origin.requests() {
        assert!(!request.head.target().contains('#'), "{:?}", request.head);
    }
}

#[test]
fn content_lengths_that_are_none_are_refused() {
    let two = |a, b| {
        changed(|fields| {
            fields.extend([(&b"content-length"[..], a), (b"content-length", b)]);
        })
    };
    expect_refused(&[
        ("negative", with(b"content-length", b"-1")),
        ("with a sign", with(b"content-length", b"+0")),
        ("hexadecimal", with(b"content-length", b"0x0")),
        ("a list", with(b"content-length", b"0, 5")),
        ("a space before it", with(b"content-length", b" 0")),
        ("a space behind it", with(b"content-length", b"0 ")),
        ("a tab before it", with(b"content-length", b"\t5")),
        ("empty", with(b"content-length", b"")),
        (
            "too large",
            with(b"content-length", b"99999999999999999999"),
        ),
        (
            "of a body that does not come",
            with(b"content-length", b"5"),
        ),
        ("two that differ", two(b"0", b"5")),
        ("two that differ, the other way", two(b"5", b"0")),
    ]);
}

/// A body that is not as long as was said. Its head may have been forwarded; the request is then cut
/// off, and what is too much of it is never the beginning of another one.
#[test]
fn bodies_that_belie_their_length_are_never_whole() {
    let post = |length: &str| headers(1, 0, request("POST", "/lie", &[("content-length", length)]));
    let smuggled = format!("hello{SMUGGLED}");
    let cases = [
        (
            "shorter",
            [post("9"), data(1, END_STREAM, "hello")].concat(),
        ),
        (
            "shorter, in pieces",
            [
                post("9"),
                data(1, 0, "hel"),
                data(1, 0, "lo"),
                data(1, END_STREAM, ""),
            ]
            .concat(),
        ),
        (
            "shorter, with trailers",
            [
                post("9"),
                data(1, 0, "hello"),
                headers(1, END_STREAM, block(&[("a", "b")])),
            ]
            .concat(),
        ),
        (
            "longer",
            [post("4"), data(1, END_STREAM, &smuggled)].concat(),
        ),
        (
            "no end of the stream in the trailers",
            [
                post("9"),
                data(1, 0, "hello"),
                headers(1, 0, block(&[("a", "b")])),
            ]
            .concat(),
        ),
        (
            "pseudo-header in the trailers",
            [
                post("9"),
                data(1, 0, "hello"),
                headers(1, END_STREAM, block(&[(":path", "/smuggled")])),
            ]
            .concat(),
        ),
    ];
    let origin = Origin::always(origin::reply(200, "ok"));
    let watched = Watched::over(origin.addr(), "", "");
    let mut bystander = H2::connect(watched.addr());
    for (what, bytes) in cases {
        let mut client = H2::connect(watched.addr());
        client.send(bytes);
        let answer = client.answer(1);
        assert!(is_refused(&client, &answer), "{what}: {answer:?}");
        assert_eq!(bystander.get("/ok").status, Some(200), "{what}");
        eventually(&format!("{what}: cut off"), || {
            let requests = origin.requests();
            let mut lies = requests.iter().filter(|r| r.head.target() == "/lie");
            lies.all(|r| r.broken.is_some())
        });
    }
    let requests = origin.requests();
    assert!(
        requests
            .iter()
            .all(|r| matches!(r.head.target(), "/lie" | "/ok")),
        "{requests:?}"
    );
}

/// Whether the request is refused or its trailers are dropped: the pseudo-header goes no further.
#[test]
fn pseudo_headers_in_trailers_never_reach_the_endpoint() {
    let origin = Origin::always(origin::reply(200, "ok"));
    let watched = Watched::over(origin.addr(), "", "");
    let trailers = [
        block(&[(":path", "/smuggled")]),
        block(&[("x-sum", "1"), (":path", "/smuggled")]),
        block(&[(":status", "200"), ("x-sum", "1")]),
        block(&[(":method", "GET"), (":authority", "smuggled")]),
    ];
    let lengths: [&[(&str, &str)]; 2] = [&[("content-length", "5")], &[]];
    for trailer in &trailers {
        for length in lengths {
            let mut client = H2::connect(watched.addr());
            let post = headers(1, 0, request("POST", "/trailers", length));
            let end = headers(1, END_STREAM, trailer);
            client.send([post, data(1, 0, "hello"), end].concat());
            let answer = client.answer(1);
            assert!(
                answer.status == Some(200) || is_refused(&client, &answer),
                "{answer:?}"
            );
        }
    }
    assert_eq!(H2::connect(watched.addr()).get("/ok").status, Some(200));
    for request in origin.requests() {
        let is_known = matches!(request.head.target(), "/trailers" | "/ok");
        assert!(is_known, "{:?}", request.head);
        let names = request.body.trailers.iter().map(|(name, _)| name);
        assert!(names.clone().all(|n| n == "x-sum"), "{request:?}");
        let text = String::from_utf8_lossy(&request.body.raw);
        assert!(!text.contains("smuggled"), "{text}");
    }
}

/// A body that is whole, or none, and then goes on: what is beyond it goes nowhere.
#[test]
fn what_follows_a_whole_body_is_never_a_request() {
    let origin = Origin::always(origin::reply(200, "ok"));
    let watched = Watched::over(origin.addr(), "", "");
    for n in 0..10 {
        let mut client = H2::connect(watched.addr());
        let (length, body) = if n % 2 == 0 {
            ("5", "hello")
        } else {
            ("0", "")
        };
        let post = headers(1, 0, request("POST", "/lie", &[("content-length", length)]));
        client.send([post, data(1, 0, body), data(1, 0, SMUGGLED)].concat());
        let answer = client.answer(1);
        assert!(
            answer.status == Some(200) || is_refused(&client, &answer),
            "{answer:?}"
        );
        assert_eq!(H2::connect(watched.addr()).get("/ok").status, Some(200));
    }
    for request in origin.requests() {
        assert!(
            matches!(request.head.target(), "/lie" | "/ok"),
            "{:?}",
            request.head
        );
    }
}

/// What is unusual and right passes, so that the tests above refuse for the right reason.
#[test]
fn unusual_requests_pass() {
    let origin = Origin::always(origin::mirror());
    let watched = Watched::over(origin.addr(), "", "");
    let mut client = H2::connect(watched.addr());
    let cases = [
        changed(|_| {}),
        with(b"te", b"trailers"),
        with(b"host", b"test"),
        with(b"content-length", b"0"),
        with(b"x", b""),
        with(b"x", b"caf\xe9"),
        pseudo(b":path", b"//bad"),
        pseudo(b":path", b"/?a=b&c=%20"),
        changed(|fields| {
            fields.retain(|(n, _)| *n != b":authority");
            fields.push((b"host", b"test"));
        }),
    ];
    for block in cases {
        let stream = client.stream();
        client.send(headers(stream, END_STREAM, &block));
        let answer = client.answer(stream);
        assert_eq!(answer.status, Some(200), "{block:?}");
        let text = String::from_utf8_lossy(&answer.body).to_lowercase();
        assert_eq!(text.matches("\nhost: test\r\n").count(), 1, "{text}");
    }
}
