//! WebSockets where one side, or both, speak HTTP/2 (RFC 8441). What goes through them is opaque here:
//! bytes that are echoed.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::io::Read;
use std::net::TcpListener;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode};

use crate::retries::bed;
use crate::support::client::Client;
use crate::support::h2::{H2Client, next, read, read_all, request, run, send_all, within};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::origin::{Origin, Step};
use crate::support::watched::Watched;

const TO_H2: &str = "protocol = 'h2'";

/// The key and what answers it in RFC 6455 section 1.3.
const ASK: &str = "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opens one over HTTP/2.
async fn open(client: &H2Client) -> (Response<RecvStream>, SendStream<Bytes>) {
    client.allows_extended_connect().await;
    let mut asked = request("CONNECT", "/ws?x=1")
        .header("sec-websocket-version", "13")
        .header("origin", "http://test")
        .body(())
        .unwrap();
    asked
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    let (response, send) = client.open(asked, false).await.unwrap();
    (within("a response", response).await.unwrap(), send)
}

/// Says 101 to what asks in the right way, then echoes. The key is answered by the test's own sum.
fn h1() -> Origin {
    Origin::start(|request| {
        let key = request.head.field("sec-websocket-key").unwrap_or_default();
        let accept = accept(key);
        vec![
            Step::Send(
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {accept}\r\nX-Front: 1\r\n\r\n"
                )
                .into_bytes(),
            ),
            Step::Echo,
        ]
    })
}

fn accept(key: &str) -> String {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    data_encoding::BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref())
}

fn h2() -> H2Origin {
    H2Origin::build(Exchange::echo).extended_connect().start()
}

/// Echoes until each side has said its last.
async fn talk(recv: &mut RecvStream, send: &mut SendStream<Bytes>) {
    for text in ["one", "two", "three"] {
        send_all(send, text.as_bytes(), false).await.unwrap();
        let mut got = Vec::new();
        while got.len() < text.len() {
            got.extend_from_slice(&next(recv).await.unwrap().unwrap());
        }
        assert_eq!(got, text.as_bytes());
    }
    // Half-closed: what is still on its way comes back before the end.
    send_all(send, &vec![7; 100_000], true).await.unwrap();
    let (rest, trailers) = read_all(recv).await.unwrap();
    assert_eq!((rest.len(), trailers), (100_000, None));
}

#[test]
fn http2_client_to_http1_endpoint() {
    let origin = h1();
    let proxy = Watched::over(origin.addr(), "", "");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let (response, mut send) = open(&client).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-front"], "1");
        for name in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        talk(&mut response.into_body(), &mut send).await;
    });
    let head = &origin.await_done(0).head;
    assert_eq!(head.start, "GET /ws?x=1 HTTP/1.1");
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert!(
        head.field("connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    assert_eq!(head.field("sec-websocket-version"), Some("13"));
    assert_eq!(head.field("sec-websocket-key").unwrap().len(), 24);
    assert_eq!(head.field("host"), Some("test"));
    let line = proxy.log(1).remove(0);
    assert_eq!(line["protocol"], "HTTP/2.0");
    assert_eq!(line["reason"], serde_json::Value::Null);
    proxy.await_metric("isobar_tunnels", 0.0);
    proxy.await_metric("isobar_tunnels_opened_total", 1.0);
}

#[test]
fn http1_client_to_http2_endpoint() {
    let origin = h2();
    let proxy = Watched::over(origin.addr(), "", TO_H2);
    for _ in 0..2 {
        let mut client = proxy.connect();
        client.send(ASK);
        let head = client.head();
        assert_eq!(head.status(), 101);
        assert_eq!(head.field("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(head.field("upgrade"), Some("websocket"));
        client.send("hello");
        assert_eq!(client.exactly(5), b"hello");
        client.send(vec![7; 100_000]);
        client.finish();
        assert_eq!(client.read_to_end().len(), 100_000);
    }
    let seen = origin.await_done(0);
    assert_eq!(seen.method, "CONNECT");
    assert_eq!(seen.protocol.as_deref(), Some("websocket"));
    assert_eq!((&*seen.path, seen.scheme.as_deref()), ("/ws", Some("http")));
    assert_eq!(seen.headers["sec-websocket-version"], "13");
    for name in [
        "sec-websocket-key",
        "upgrade",
        "connection",
        "content-length",
    ] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn http2_client_to_http2_endpoint() {
    let origin = h2();
    let proxy = Watched::over(origin.addr(), "", TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(open(&client).await);
        }
        for (response, send) in &mut all {
            assert_eq!(response.status(), StatusCode::OK);
            talk(response.body_mut(), send).await;
        }
    });
    assert_eq!(origin.accepted(), 1);
    assert_eq!(proxy.log(3).len(), 3);
}

/// It has not said that it takes them (section 3): so it is not asked, and the client is told.
#[test]
fn endpoint_that_allows_none() {
    let origin = H2Origin::named("two");
    let proxy = Watched::over(origin.addr(), "", TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let (response, _send) = open(&client).await;
        let answer = read(response).await.unwrap();
        assert_eq!(answer.status, 502);
        assert!(
            answer.text().contains("upgrade_refused"),
            "{}",
            answer.text()
        );
        assert_eq!(client.get("/").await.text(), "two");
    });
    let mut client = proxy.connect();
    client.send(ASK);
    let response = client.response();
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("upgrade_refused"));
    assert!(origin.requests().iter().all(|seen| seen.method == "GET"));
}

/// An endpoint that answers with something else is heard.
#[test]
fn refusal_of_the_endpoint_passes() {
    let h1 = Origin::always(vec![Step::Send(
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec(),
    )]);
    let h2 = H2Origin::build(|mut exchange: Exchange| async move {
        exchange.head(403, &[]);
        exchange.data(b"no").await;
        exchange.end();
    })
    .extended_connect()
    .start();
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Watched::over(addr, "", more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let (response, _send) = open(&client).await;
            let answer = read(response).await.unwrap();
            assert_eq!(
                (answer.status.as_u16(), answer.text().as_str()),
                (403, "no")
            );
        });
        let mut client = proxy.connect();
        client.send(ASK);
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (403, "no"));
    }
}

#[test]
fn idle_one_is_closed() {
    let (one, two) = (h1(), h2());
    for (addr, more) in [(one.addr(), ""), (two.addr(), TO_H2)] {
        let more = format!("{more}\nidle_timeout = '2s'");
        let proxy = Watched::over(addr, "idle_timeout = '2s'", &more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let (response, mut send) = open(&client).await;
            assert_eq!(response.status(), StatusCode::OK);
            send_all(&mut send, b"x", false).await.unwrap();
            let mut recv = response.into_body();
            assert_eq!(next(&mut recv).await.unwrap().unwrap(), "x");
            // An end or a reset.
            assert!(!matches!(next(&mut recv).await, Some(Ok(_))));
        });
        let line = proxy.log(1).remove(0);
        assert_eq!(line["reason"], "client_idle");
    }
}

/// It waits for the endpoint's SETTINGS, which never come: nothing was asked, so another one is.
#[test]
fn endpoint_that_ends_before_it_can_be_asked_is_left_for_another() {
    let (dead, good) = (TcpListener::bind("127.0.0.1:0").unwrap(), h2());
    let addr = dead.local_addr().unwrap();
    let ended = std::thread::spawn(move || {
        let (mut socket, _) = dead.accept().unwrap();
        // The preface: whoever asks is on his way.
        socket.read_exact(&mut [0; 24]).unwrap();
    });
    let bed = bed(&[addr, good.addr()], "", TO_H2);
    let mut client = bed.connect();
    client.send(ASK);
    assert_eq!(client.head().status(), 101);
    ended.join().unwrap();
    assert_eq!(good.requests().len(), 1);
}

/// At the end of the grace time it is cut, as one of HTTP/1 is.
#[test]
fn open_one_is_cut_when_the_process_ends() {
    let (one, two) = (h1(), h2());
    for (addr, more) in [(one.addr(), ""), (two.addr(), TO_H2)] {
        let proxy = crate::support::proxy::Proxy::start(&format!(
            "[process]\nworkers = 1\ngrace = '100ms'\n[listeners.web]\nbind = '127.0.0.1:0'\n\
             upstream = 'app'\n[upstreams.app]\nendpoints = ['{addr}']\n{more}\n"
        ));
        let web = proxy.addr();
        run(async {
            let client = H2Client::connect(web).await;
            let (response, mut send) = open(&client).await;
            send_all(&mut send, b"x", false).await.unwrap();
            let mut recv = response.into_body();
            assert_eq!(next(&mut recv).await.unwrap().unwrap(), "x");
            let mut old = Client::connect(web);
            old.send(ASK);
            assert_eq!(old.head().status(), 101);
            proxy.shutdown();
            assert!(!matches!(next(&mut recv).await, Some(Ok(_))));
            old.until_closed();
        });
    }
}
