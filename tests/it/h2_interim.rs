//! Responses before the response: 100 and 103, and who waits for them.

use h2::ext::Protocol;

use crate::support::client::Client;
use crate::support::h2::{H2Client, read, request, run, send_all, within};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

const TO_H2: &str = "protocol = 'h2'";

fn h1_with_hints() -> Origin {
    Origin::start(|request| {
        let mut steps = Vec::new();
        if request.head.field("expect").is_some() {
            steps.push(Step::Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
        }
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".to_vec();
        steps.push(Step::Send(hints));
        steps.extend(origin::reply(200, "done"));
        steps
    })
}

fn h2_with_hints() -> H2Origin {
    H2Origin::start(|mut exchange: Exchange| async move {
        if exchange.seen.headers.contains_key("expect") {
            exchange.interim(100, &[]);
        }
        exchange.interim(103, &[("link", "</a.css>")]);
        exchange.reply("done").await;
    })
}

#[test]
fn interim_responses_pass() {
    let (h1, h2) = (h1_with_hints(), h2_with_hints());
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Proxy::over(&[addr], more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let asked = request("GET", "/").body(()).unwrap();
            let (mut response, _send) = client.open(asked, true).await.unwrap();
            let hints = std::future::poll_fn(|cx| response.poll_informational(cx));
            let hints = within("a 103", hints).await.unwrap().unwrap();
            assert_eq!(hints.status(), 103);
            assert_eq!(hints.headers()["link"], "</a.css>");
            let answer = read(within("a response", response).await.unwrap()).await;
            assert_eq!(answer.unwrap().text(), "done");
        });
        let response = Client::get(proxy.addr(), "/");
        assert_eq!(response.informational.len(), 1);
        assert_eq!(response.informational[0].status(), 103);
        assert_eq!(response.informational[0].field("link"), Some("</a.css>"));
        assert_eq!(response.text(), "done");
    }
}

/// The body is sent only once the endpoint has asked for it.
#[test]
fn client_that_expects_100_gets_it() {
    let (h1, h2) = (h1_with_hints(), h2_with_hints());
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Proxy::over(&[addr], more);
        run(async {
            let client = H2Client::connect(proxy.addr()).await;
            let asked = request("POST", "/").header("expect", "100-continue");
            let asked = asked.header("content-length", "5").body(()).unwrap();
            let (mut response, mut send) = client.open(asked, false).await.unwrap();
            let go = std::future::poll_fn(|cx| response.poll_informational(cx));
            let go = within("a 100", go).await.unwrap().unwrap();
            assert_eq!(go.status(), 100);
            send_all(&mut send, b"hello", true).await.unwrap();
            let answer = read(within("a response", response).await.unwrap()).await;
            assert_eq!(answer.unwrap().text(), "done");
        });
        let mut client = Client::connect(proxy.addr());
        client.send(
            "POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(client.head().status(), 100);
        client.send("hello");
        assert_eq!(client.response().text(), "done");
    }
    assert_eq!(h1.await_done(0).body.data, b"hello");
    assert_eq!(h2.await_done(1).body, b"hello");
}

#[test]
fn other_expectations_are_refused() {
    let origin = Origin::named("h1");
    let proxy = Proxy::over(&[origin.addr()], "");
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let asked = request("GET", "/").header("expect", "miracles");
        let answer = client.exchange(asked.body(()).unwrap(), b"").await.unwrap();
        assert_eq!(answer.status, 417);
        // A protocol that is not known here.
        client.get("/").await;
        client.allows_extended_connect().await;
        let mut asked = request("CONNECT", "/").body(()).unwrap();
        asked
            .extensions_mut()
            .insert(Protocol::from_static("connect-udp"));
        let (response, _send) = client.open(asked, false).await.unwrap();
        let response = within("a response", response).await.unwrap();
        assert_eq!(response.status(), 405);
    });
}
