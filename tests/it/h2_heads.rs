//! Heads between the versions: what of them goes on, in which form, in both directions.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use http::{HeaderValue, Request};
use serde_json::Value;

use crate::support::client::Client;
use crate::support::h2::{Answer, H2Client, Identity, fields, request, run};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::origin::{self, Origin};
use crate::support::proxy::Proxy;
use crate::support::watched::Watched;

const TO_H2: &str = "protocol = 'h2'";

/// The head that an HTTP/1.1 origin saw, of which the answer is a copy.
fn mirrored(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200);
    let text = answer.text();
    let head = text.split("\r\n\r\n").next().unwrap();
    head.split("\r\n").map(ToOwned::to_owned).collect()
}

fn values<'l>(lines: &'l [String], name: &str) -> Vec<&'l str> {
    lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn pseudo_headers_become_a_request_line_and_host() {
    let origin = Origin::always(origin::mirror());
    let proxy = Proxy::over(&[origin.addr()], "");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let mut asked = request("GET", "/a/b?c=d&e=%20").body(()).unwrap();
        *asked.headers_mut() = fields(&[
            ("x-one", "1"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-many", "1"),
            ("cookie", "c=3"),
            ("x-many", "2"),
            ("te", "trailers"),
        ]);
        asked
            .headers_mut()
            .insert("x-obs", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let lines = mirrored(&client.exchange(asked, b"").await.unwrap());
        assert_eq!(lines[0], "GET /a/b?c=d&e=%20 HTTP/1.1");
        assert_eq!(values(&lines, "host"), ["test"]);
        assert_eq!(values(&lines, "cookie"), ["a=1; b=2; c=3"]);
        assert_eq!(values(&lines, "x-many"), ["1", "2"]);
        assert_eq!(values(&lines, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&lines, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(values(&lines, "te"), [""; 0], "hop by hop: {lines:?}");
        assert!(!lines.iter().any(|l| l.contains(":path")));
    });
    let head = &origin.await_done(0).head;
    let obs = b"x-obs: caf\xe9\r\n";
    assert!(head.raw.windows(obs.len()).any(|w| w == obs));
}

#[test]
fn methods_are_passed_and_connect_is_refused() {
    let origin = Origin::always(origin::mirror());
    let proxy = Proxy::over(&[origin.addr()], "");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT"] {
            let asked = request(method, "/m").body(()).unwrap();
            let lines = mirrored(&client.exchange(asked, b"").await.unwrap());
            assert_eq!(lines[0], format!("{method} /m HTTP/1.1"));
        }
        let asked = Request::builder()
            .method("CONNECT")
            .uri("elsewhere:443")
            .body(())
            .unwrap();
        let answer = client.exchange(asked, b"").await.unwrap();
        assert_eq!(answer.status, 405);
        assert!(
            answer.text().contains("method_refused"),
            "{}",
            answer.text()
        );
        // The connection serves on.
        assert_eq!(client.get("/").await.status, 200);
    });
}

#[test]
fn response_fields_of_one_connection_are_removed() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 200 Fine\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\n\
         X-Hop: 1\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2, c\r\nX-Mixed-CASE: Kept\r\n\
         Content-Length: 2\r\n\r\nok",
    ));
    let proxy = Proxy::over(&[origin.addr()], "");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let answer = client.get("/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "ok")
        );
        for name in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
            assert_eq!(answer.field(name), None, "{name}");
        }
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1; Path=/", "b=2, c"]);
        assert_eq!(answer.field("x-mixed-case"), Some("Kept"));
        assert_eq!(answer.field("content-length"), Some("2"));
        assert_eq!(answer.trailers, None);
    });
}

#[test]
fn request_of_http1_becomes_pseudo_headers() {
    let origin = H2Origin::named("two");
    let proxy = Proxy::over(&[origin.addr()], TO_H2);
    let mut client = Client::connect(proxy.addr());
    client.send(
        "GET /a?b=c HTTP/1.1\r\nHost: Site.example:81\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: 5\r\nTE: trailers\r\nX-MIXED: Kept\r\nCookie: a=1; b=2\r\nX-Many: 1\r\nX-Many: 2\r\n\r\n",
    );
    let response = client.response();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text(), "two");
    assert_eq!(response.field("content-length"), Some("3"));
    let seen = origin.await_done(0);
    assert_eq!((&*seen.method, &*seen.path), ("GET", "/a?b=c"));
    assert_eq!(seen.authority.as_deref(), Some("Site.example:81"));
    assert_eq!(seen.scheme.as_deref(), Some("http"));
    for name in [
        "host",
        "connection",
        "x-hop",
        "keep-alive",
        "transfer-encoding",
    ] {
        assert!(!seen.headers.contains_key(name), "{name}: {seen:?}");
    }
    assert_eq!(seen.headers["x-mixed"], "Kept");
    assert_eq!(seen.headers["cookie"], "a=1; b=2");
    let many: Vec<_> = seen.headers.get_all("x-many").iter().collect();
    assert_eq!(many, ["1", "2"]);
    assert_eq!(seen.headers["x-forwarded-proto"], "http");
}

#[test]
fn response_of_http2_becomes_one_of_http1() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        let (a, b) = (("set-cookie", "a=1"), ("set-cookie", "b=2"));
        exchange.head(200, &[a, ("x-one", "1"), b]);
        exchange.data(b"body").await;
        exchange.end();
    });
    let proxy = Proxy::over(&[origin.addr()], TO_H2);
    let mut client = Client::connect(proxy.addr());
    for _ in 0..2 {
        let response = client.request("GET", "/");
        // HTTP/2 has no words beside the number (RFC 9113 section 8.3.2).
        assert_eq!(response.head.start, "HTTP/1.1 200 ");
        assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(response.field("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "body");
    }
    // HTTP/1.0 knows no chunks.
    let mut old = Client::connect(proxy.addr());
    old.send("GET / HTTP/1.0\r\nHost: t\r\n\r\n");
    let all = String::from_utf8(old.read_to_end()).unwrap();
    assert!(all.starts_with("HTTP/1.1 200 \r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\nbody"), "{all}");
    assert!(!all.contains("chunked"), "{all}");
}

/// Encrypted on both sides: the schemes say so, and the log and the metrics name the version.
#[test]
fn schemes_and_versions_are_told() {
    let identity = Identity::new();
    let origin = H2Origin::build(|exchange: Exchange| exchange.reply("two"))
        .tls(&identity)
        .start();
    let proxy = Watched::over(
        origin.addr(),
        &identity.listener(),
        &format!("{TO_H2}\n{}", identity.upstream()),
    );
    run(async {
        let client = H2Client::connect_tls(proxy.addr(), &identity).await;
        assert_eq!(client.get("/x").await.text(), "two");
    });
    let seen = origin.await_done(0);
    assert_eq!(seen.scheme.as_deref(), Some("https"));
    assert_eq!(seen.headers["x-forwarded-proto"], "https");
    let line = proxy.log(1).remove(0);
    assert_eq!(line["protocol"], "HTTP/2.0");
    assert_eq!(line["status"], 200);
    assert_eq!(line["reason"], Value::Null);
    proxy.await_metric(
        "isobar_http_requests_total{route=\"web\",protocol=\"h2\",code_class=\"2xx\"}",
        1.0,
    );
}

#[test]
fn http2_to_http2() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        exchange.head(207, &[("x-answer", "1"), ("content-length", "3")]);
        exchange.data(b"two").await;
        exchange.end();
    });
    let proxy = Proxy::over(&[origin.addr()], TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let mut asked = request("PROPFIND", "/d%2Fe?x").body(()).unwrap();
        *asked.headers_mut() = fields(&[("cookie", "a=1"), ("cookie", "b=2")]);
        let answer = client.exchange(asked, b"hello").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (207, "two")
        );
        assert_eq!(answer.field("x-answer"), Some("1"));
    });
    let seen = origin.await_done(0);
    assert_eq!((&*seen.method, &*seen.path), ("PROPFIND", "/d%2Fe?x"));
    assert_eq!(seen.authority.as_deref(), Some("test"));
    assert_eq!(seen.headers["cookie"], "a=1; b=2");
    assert_eq!(seen.body, b"hello");
}

/// HEAD, 204 and 304 end with their heads, whatever these say of a length.
#[test]
fn responses_without_body() {
    let h1 = Origin::start(|request| match request.head.target() {
        "/204" => origin::raw("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
        "/304" => origin::raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
        "/0" => origin::reply(200, ""),
        _ => origin::raw("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
    });
    let h2 = H2Origin::start(|mut exchange: Exchange| async move {
        exchange.read().await;
        match &*exchange.seen.path.clone() {
            "/204" => exchange.whole(204, &[("x-a", "1")]),
            "/304" => exchange.whole(304, &[("content-length", "7")]),
            "/0" => exchange.whole(200, &[("content-length", "0")]),
            _ => exchange.whole(200, &[("content-length", "7")]),
        }
    });
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Proxy::over(&[addr], more);
        let cases = [
            ("GET", "/204", 204, None),
            ("GET", "/304", 304, Some("7")),
            ("HEAD", "/head", 200, Some("7")),
            ("GET", "/0", 200, Some("0")),
        ];
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            for (method, path, status, length) in cases {
                let asked = request(method, path).body(()).unwrap();
                let answer = client.exchange(asked, b"").await.unwrap();
                assert_eq!(answer.status, status, "{method} {path}");
                assert_eq!(answer.field("content-length"), length, "{method} {path}");
                assert_eq!(answer.body, b"");
            }
        });
        let mut client = Client::connect(proxy.addr());
        for (method, path, status, length) in cases {
            let response = client.request(method, path);
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(response.field("content-length"), length, "{method} {path}");
        }
    }
}
