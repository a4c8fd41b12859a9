//! Bodies and trailers through HTTP/2 on either side, or on both.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::time::Duration;

use http::{HeaderValue, Request};

use crate::support::client::Client;
use crate::support::h2::{
    H2Client, Identity, fields, next, read, read_all, request, run, send_all, spawn, within,
};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::origin::{self, Origin, Request as Seen, Step, pattern};
use crate::support::proxy::Proxy;
use crate::support::watched::Watched;

const TO_H2: &str = "protocol = 'h2'";
const BIG: usize = 8 * 1024 * 1024;

/// Answers with the body that came, framed as the path says, over HTTP/1.1.
fn echo_h1(request: &Seen) -> Vec<Step> {
    let head = match request.head.target() {
        "/length" => format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n"),
        _ => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
    };
    let mut steps = vec![
        Step::ReadBody,
        Step::Send(head.into_bytes()),
        Step::Fill(BIG),
    ];
    if request.head.target() != "/length" {
        steps.push(Step::Close);
    }
    steps
}

fn post(path: &str, has_length: bool, length: usize) -> Request<()> {
    let mut asked = request("POST", path);
    if has_length {
        asked = asked.header("content-length", length);
    }
    asked.body(()).unwrap()
}

#[test]
fn empty_bodies() {
    let h1 = Origin::always(origin::mirror());
    let h2 = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.head(200, &[]);
        exchange.end();
    });
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Proxy::over(&[addr], more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            for has_length in [true, false] {
                for ends_with_head in [true, false] {
                    let asked = post("/", has_length, 0);
                    let (response, mut send) = client.open(asked, ends_with_head).await.unwrap();
                    if !ends_with_head {
                        // A length of 0 needs no end: it may have been answered by now.
                        let _ = send_all(&mut send, b"", true).await;
                    }
                    let answer = within("a response", response).await.unwrap();
                    assert_eq!(answer.status(), 200, "{has_length} {ends_with_head}");
                    read(answer).await.unwrap();
                }
            }
        });
        let mut client = Client::connect(proxy.addr());
        for framing in [
            "Content-Length: 0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            client.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}"));
            assert_eq!(client.response().status(), 200);
        }
    }
    assert!(h2.requests().iter().all(|seen| seen.body.is_empty()));
}

#[test]
fn bodies_keep_their_length_or_are_chunked() {
    let origin = Origin::always(origin::mirror());
    let proxy = Proxy::over(&[origin.addr()], "");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        for has_length in [true, false] {
            let answer = client.exchange(post("/", has_length, 5), b"hello").await;
            assert_eq!(answer.unwrap().status, 200);
        }
    });
    let told = origin.await_done(0);
    assert_eq!(told.head.field("content-length"), Some("5"));
    assert_eq!(told.head.field("transfer-encoding"), None);
    assert_eq!(told.body.data, b"hello");
    let untold = origin.await_done(1);
    assert_eq!(untold.head.field("content-length"), None);
    assert_eq!(untold.head.field("transfer-encoding"), Some("chunked"));
    assert_eq!(untold.body.data, b"hello");
}

/// 8 MiB each way, with and without a length, over clear text and TLS, one version to the other.
#[test]
fn large_bodies_arrive_whole() {
    let identity = Identity::new();
    let h1 = Origin::start(echo_h1);
    let script = |mut exchange: Exchange| async move {
        let length = BIG.to_string();
        assert!(exchange.read().await);
        match &*exchange.seen.path.clone() {
            "/length" => exchange.head(200, &[("content-length", &length)]),
            _ => exchange.head(200, &[]),
        }
        exchange.data(&pattern(0, BIG)).await;
        exchange.end();
    };
    let h2 = H2Origin::start(script);
    let tls = H2Origin::build(script).tls(&identity).start();
    let secure = format!("{TO_H2}\n{}", identity.upstream());
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2), (tls.addr(), &*secure)] {
        for listener in [String::new(), identity.listener()] {
            let proxy = Watched::over(addr, &listener, more);
            run(async {
                let client = match &*listener {
                    "" => H2Client::connect(proxy.addr()).await,
                    _ => H2Client::connect_tls(proxy.addr(), &identity).await,
                };
                for (path, has_length) in [("/length", true), ("/open", false)] {
                    let asked = post(path, has_length, BIG);
                    let answer = client.exchange(asked, &pattern(0, BIG)).await.unwrap();
                    assert!(answer.body == pattern(0, BIG), "{path}");
                    let length = has_length.then(|| BIG.to_string());
                    assert_eq!(answer.field("content-length"), length.as_deref());
                }
            });
        }
        if more.is_empty() {
            continue;
        }
        let proxy = Proxy::over(&[addr], more);
        let mut client = Client::connect(proxy.addr());
        client.send(format!(
            "POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: {BIG}\r\n\r\n"
        ));
        client.send(pattern(0, BIG));
        assert!(client.response().body.data == pattern(0, BIG));
        client.send("POST /open HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        for from in (0..BIG).step_by(BIG / 8) {
            client.send(format!("{:x}\r\n", BIG / 8));
            client.send(pattern(from, BIG / 8));
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert!(client.response().body.data == pattern(0, BIG));
    }
    for n in 0..2 {
        assert!(h1.await_done(n).body.data == pattern(0, BIG));
    }
    for origin in [&h2, &tls] {
        for seen in origin.requests() {
            assert!(seen.body == pattern(0, BIG));
        }
    }
}

/// Each side reads a little at a time, then all.
#[test]
fn slow_readers_get_it_all() {
    let origin = H2Origin::start(Exchange::echo);
    let proxy = Proxy::over(&[origin.addr()], TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let (response, mut send) = client.open(post("/", false, 0), false).await.unwrap();
        let upload = spawn(async move { send_all(&mut send, &pattern(0, BIG), true).await });
        let mut recv = within("a response", response).await.unwrap().into_body();
        let mut all = Vec::new();
        for _ in 0..20 {
            all.extend_from_slice(&next(&mut recv).await.unwrap().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            !upload.is_finished(),
            "nobody holds 8 MiB for who does not read"
        );
        all.extend(read_all(&mut recv).await.unwrap().0);
        assert!(all == pattern(0, BIG));
        upload.await.unwrap().unwrap();
    });
}

#[test]
fn two_hundred_at_once_on_one_connection() {
    let h1 = Origin::always(origin::mirror());
    let h2 = H2Origin::echo();
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let upstream = "upstream = 'app'\nhttp2 = { max_streams = 250 }";
        let proxy = Watched::start(
            upstream,
            &format!("[upstreams.app]\nendpoints = ['{addr}']\n{more}"),
        );
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let mut all = Vec::new();
            for n in 0..200 {
                let client = client.clone();
                all.push(spawn(async move {
                    let body = format!("body {n}.");
                    let asked = post(&format!("/{n}"), n % 2 == 0, body.len());
                    let answer = client.exchange(asked, body.as_bytes()).await.unwrap();
                    assert!(answer.text().contains(&body), "{}", answer.text());
                }));
            }
            for one in all {
                one.await.unwrap();
            }
        });
        assert_eq!(proxy.log(200).len(), 200);
        proxy.await_metric("isobar_http_requests_in_flight{route=\"web\"}", 0.0);
    }
}

/// Trailers of the request and of the response, in all four combinations of versions.
#[test]
fn trailers_pass() {
    let h1 = Origin::start(|_| origin::chunked(&["one", "two"], &[("X-Sum", "6"), ("X-B", "b")]));
    let h2 = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.head(200, &[]);
        exchange.data(b"onetwo").await;
        exchange.trailers(&[("x-sum", "6"), ("set-cookie", "a=b"), ("x-b", "b")]);
    });
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Proxy::over(&[addr], more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let (response, mut send) = client.open(post("/", false, 0), false).await.unwrap();
            send_all(&mut send, b"hello", false).await.unwrap();
            // What belongs into heads alone passes in neither version.
            let list = [
                ("authorization", "a"),
                ("x-check", "abc"),
                ("content-length", "9"),
                ("host", "b"),
                ("x-forwarded-for", "10.0.0.1"),
            ];
            send.send_trailers(fields(&list)).unwrap();
            let answer = read(within("a response", response).await.unwrap())
                .await
                .unwrap();
            assert_eq!(answer.text(), "onetwo");
            assert_eq!(answer.trailer("x-sum"), Some("6"));
            assert_eq!(answer.trailer("set-cookie"), None);
            assert_eq!(answer.trailer("x-b"), Some("b"));
        });
        let mut client = Client::connect(proxy.addr());
        client.send(
            "POST / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Check: abc\r\n\r\n",
        );
        let response = client.response();
        assert_eq!(response.text(), "onetwo");
        let trailers: Vec<_> = response
            .body
            .trailers
            .iter()
            .map(|(n, v)| (n.to_ascii_lowercase(), v.clone()))
            .collect();
        assert_eq!(
            trailers,
            [("x-sum".into(), "6".into()), ("x-b".into(), "b".into())]
        );
    }
    for n in 0..2 {
        let seen = h1.await_done(n);
        assert_eq!(seen.body.data, b"hello");
        let trailers = &seen.body.trailers;
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        assert!(trailers[0].0.eq_ignore_ascii_case("x-check") && trailers[0].1 == "abc");
        let seen = h2.await_done(n);
        assert_eq!(seen.body, b"hello");
        let trailers = seen.trailers.unwrap();
        assert_eq!(
            (&trailers["x-check"], trailers.len()),
            (&HeaderValue::from_static("abc"), 1)
        );
    }
}

/// A response that is trailers alone after its head, and one of a length with trailers behind it.
#[test]
fn trailers_without_a_body() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        if exchange.seen.path == "/empty" {
            exchange.head(200, &[]);
        } else {
            exchange.head(200, &[("content-length", "2")]);
            exchange.data(b"ok").await;
        }
        exchange.trailers(&[("x-sum", "0")]);
    });
    let proxy = Proxy::over(&[origin.addr()], TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let answer = client.get("/empty").await;
        assert_eq!(
            (answer.text().as_str(), answer.trailer("x-sum")),
            ("", Some("0"))
        );
        // The end of a body whose length was told is told with its last byte: no trailers fit behind.
        let answer = client.get("/length").await;
        assert_eq!(answer.text(), "ok");
    });
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/empty").text(), "");
    assert_eq!(client.request("GET", "/length").text(), "ok");
}
