//! Bodies of every framing and many sizes, both ways, to the byte.

use crate::support::client::Client;
use crate::support::origin::{self, Origin, Request, Step, pattern};
use crate::support::proxy::Proxy;

/// Around what buffers hold: 8 KiB from clients, 16.5 KiB and 128 KiB from endpoints, 64 KiB where
/// splicing begins; and more than a pipe.
const SIZES: [usize; 19] = [
    0, 1, 1023, 1024, 1025, 8191, 8192, 8193, 16_383, 16_384, 16_896, 16_897, 65_535, 65_536,
    65_537, 131_071, 131_072, 131_073, 3_000_001,
];

/// The chunked coding of `data`.
fn chunks(data: &[u8], size: usize, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in data.chunks(size) {
        out.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

/// `/length/N`, `/close/N`, `/chunked/N/CHUNK`: a body of N bytes.
#[expect(clippy::unwrap_used, reason = "test code outside #[test] functions")]
fn serving() -> Origin {
    Origin::start(|r| {
        let parts: Vec<&str> = r.head.target().split('/').collect();
        let size = parts[2].parse().unwrap();
        match parts[1] {
            "length" => origin::filled(size),
            "close" => vec![
                Step::ReadBody,
                Step::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                Step::Fill(size),
                Step::Close,
            ],
            _ => {
                let chunk = parts[3].parse().unwrap();
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                let body = chunks(&pattern(0, size), chunk, "");
                vec![Step::ReadBody, Step::Send([head, body].concat())]
            }
        }
    })
}

#[test]
fn downloads_by_content_length() {
    let origin = serving();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for size in SIZES {
        let response = client.request("GET", &format!("/length/{size}"));
        assert_eq!(
            response.field("content-length"),
            Some(size.to_string().as_str())
        );
        assert!(response.body.data == pattern(0, size), "{size}");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn downloads_by_chunks() {
    let origin = serving();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for chunk in [1, 1024, 70 * 1024] {
        for size in SIZES {
            // A byte a chunk: six on the wire for one.
            if chunk == 1 && size > 8193 {
                continue;
            }
            let response = client.request("GET", &format!("/chunked/{size}/{chunk}"));
            assert_eq!(response.field("transfer-encoding"), Some("chunked"));
            assert_eq!(response.field("content-length"), None);
            assert!(response.body.data == pattern(0, size), "{size} by {chunk}");
        }
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn downloads_until_close_leave_the_client_s_connection_open() {
    let origin = serving();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for (n, size) in SIZES.into_iter().enumerate() {
        let response = client.request("GET", &format!("/close/{size}"));
        assert_eq!(response.field("transfer-encoding"), Some("chunked"));
        assert!(response.body.data == pattern(0, size), "{size}");
        assert_eq!(origin.accepted(), n + 1);
    }
}

#[test]
fn downloads_of_any_framing_to_http_1_0() {
    let origin = serving();
    let proxy = Proxy::over(&[origin.addr()], "");
    for size in SIZES {
        for way in ["length", "close", "chunked"] {
            let mut client = Client::connect(proxy.addr());
            client.send(format!("GET /{way}/{size}/5000 HTTP/1.0\r\n\r\n"));
            assert_eq!(client.head().field("transfer-encoding"), None);
            assert!(client.read_to_end() == pattern(0, size), "{size} {way}");
        }
    }
}

/// The upload's endpoint connection serves the next request. (One that must not be repeated may
/// rather take a new one: so it is a GET that asks.)
#[track_caller]
fn expect_reused(client: &mut Client, origin: &Origin, upload: &Request) {
    assert_eq!(client.request("GET", "/").status(), 200);
    let next = origin.requests().pop().unwrap_or_default();
    assert_eq!(
        (next.head.method(), next.connection),
        ("GET", upload.connection)
    );
}

#[test]
fn uploads_by_content_length() {
    let origin = Origin::named("ok");
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for (n, size) in SIZES.into_iter().enumerate() {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
        ));
        client.send(pattern(0, size));
        assert_eq!(client.response().text(), "ok");
        let seen = origin.await_done(2 * n);
        assert_eq!(
            seen.head.field("content-length"),
            Some(size.to_string().as_str())
        );
        assert!(seen.body.data == pattern(0, size), "{size}");
        expect_reused(&mut client, &origin, &seen);
    }
}

#[test]
fn uploads_by_chunks() {
    let origin = Origin::named("ok");
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let mut n = 0;
    for chunk in [1, 1024, 70 * 1024] {
        for size in SIZES {
            if chunk == 1 && size > 8193 {
                continue;
            }
            client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(chunks(&pattern(0, size), chunk, ""));
            assert_eq!(client.response().text(), "ok");
            let seen = origin.await_done(2 * n);
            assert_eq!(seen.head.field("transfer-encoding"), Some("chunked"));
            assert_eq!(seen.head.field("content-length"), None);
            assert!(seen.body.data == pattern(0, size), "{size} by {chunk}");
            expect_reused(&mut client, &origin, &seen);
            n += 1;
        }
    }
}

#[test]
fn trailers_are_forwarded_both_ways() {
    let origin = Origin::always(origin::chunked(
        &["ab"],
        &[("X-Sum", "1"), ("x-two", "2 2")],
    ));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for n in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: x-up\r\n\r\n",
        );
        client.send(chunks(b"hello", 3, "X-Up: yes\r\nother:  no \r\n"));
        let response = client.response();
        assert_eq!(
            response.body.trailers,
            [
                ("X-Sum".to_owned(), "1".to_owned()),
                ("x-two".to_owned(), "2 2".to_owned())
            ]
        );
        let seen = origin.await_done(n);
        assert_eq!(seen.body.data, b"hello");
        assert_eq!(
            seen.body.trailers,
            [
                ("X-Up".to_owned(), "yes".to_owned()),
                ("other".to_owned(), "no".to_owned())
            ]
        );
    }
}

#[test]
fn trailers_larger_than_the_buffer_behind_the_head_are_forwarded() {
    let value = "v".repeat(1000);
    let trailers: Vec<String> = (0..15).map(|n| format!("X-{n}: {value}\r\n")).collect();
    let trailers = trailers.concat();
    let response = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        chunks(&pattern(0, 20_000), 3000, &trailers),
    ]
    .concat();
    let origin = Origin::always(origin::raw(response));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for n in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunks(&pattern(0, 20_000), 3000, &trailers));
        let response = client.response();
        let seen = origin.await_done(n);
        for body in [&response.body, &seen.body] {
            assert!(body.data == pattern(0, 20_000));
            assert_eq!(body.trailers.len(), 15);
            assert!(body.trailers.iter().all(|(_, v)| *v == value));
        }
    }
}

#[test]
fn trailers_are_dropped_for_http_1_0() {
    let origin = Origin::always(origin::chunked(&["ab", "c"], &[("X-Sum", "1")]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.head();
    assert_eq!(client.read_to_end(), b"abc");
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n\
    3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-T: v\r\n\r\n";

#[test]
fn response_fed_byte_by_byte_is_the_same() {
    let steps: Vec<Step> = std::iter::once(Step::ReadBody)
        .chain(CHUNKED.bytes().map(|b| Step::Send(vec![b])))
        .collect();
    let origin = Origin::always(steps);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for _ in 0..20 {
        let response = client.request("GET", "/");
        assert_eq!(response.text(), "abcde");
        assert_eq!(response.field("x-a"), Some("b"));
        assert_eq!(response.body.trailers, [("X-T".to_owned(), "v".to_owned())]);
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn response_cut_anywhere_is_the_same() {
    let origin = Origin::start(|r| {
        let cut = r.head.target()[1..].parse().unwrap();
        let (a, b) = CHUNKED.as_bytes().split_at(cut);
        vec![
            Step::ReadBody,
            Step::Send(a.to_vec()),
            Step::Send(b.to_vec()),
        ]
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for cut in 1..CHUNKED.len() {
        let response = client.request("GET", &format!("/{cut}"));
        assert_eq!(response.text(), "abcde", "cut at {cut}");
        assert_eq!(
            response.body.trailers,
            [("X-T".to_owned(), "v".to_owned())],
            "cut at {cut}"
        );
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn chunks_are_passed_on_as_they_come() {
    // A stream of events must not wait for a buffer to fill.
    let gate = crate::support::gate::Gate::new();
    let origin = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec()),
        Step::Pass(gate.clone()),
        Step::Send(b"6\r\nsecond\r\n0\r\n\r\n".to_vec()),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.exactly(10), b"5\r\nfirst\r\n");
    gate.open();
    assert_eq!(client.exactly(16), b"6\r\nsecond\r\n0\r\n\r\n");
}
