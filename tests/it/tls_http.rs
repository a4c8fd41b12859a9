//! HTTP/1 over TLS: all that works in clear text works here.

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Request, Step};
use crate::support::proxy::Proxy;
use crate::support::tls::{Offer, V12, V13};

const VERSIONS: [&[&rustls::SupportedProtocolVersion]; 2] = [V12, V13];

/// A proxy over this origin, and clients of each version.
fn start(origin: &Origin) -> (Proxy, [Offer; 2]) {
    let ca = Ca::new();
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{}\n\
         [upstreams.app]\nendpoints = ['{}']\n",
        listener_tls(&[&ca.server()], ""),
        origin.addr()
    ));
    (proxy, VERSIONS.map(|versions| Offer::of(&ca, versions)))
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let origin = Origin::always(origin::mirror());
    let (proxy, offers) = start(&origin);
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        for n in 0..20 {
            let target = format!("/{n}");
            let response = client.request("GET", &target);
            assert_eq!(response.status(), 200);
            assert!(response.text().starts_with(&format!("GET {target} ")));
        }
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 40);
    for request in requests {
        assert_eq!(request.head.field("x-forwarded-proto"), Some("https"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|r: &Request| origin::reply(200, r.head.target()));
    let (proxy, offers) = start(&origin);
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        let all: String = (0..10)
            .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n"))
            .collect();
        client.send(all);
        for n in 0..10 {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
    }
}

#[test]
fn head_in_many_records_is_one_head() {
    let origin = Origin::named("a");
    let (proxy, offers) = start(&origin);
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        client.send_byte_by_byte("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.response().text(), "a");
    }
}

#[test]
fn http_1_0_ends_with_close_notify() {
    let origin = Origin::named("a");
    let (proxy, offers) = start(&origin);
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        client.send("GET / HTTP/1.0\r\nHost: t\r\n\r\n");
        assert_eq!(client.response().text(), "a");
        client.expect_closed();
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        for _ in 0..2 {
            client.send("GET / HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n");
            assert_eq!(client.response().text(), "a");
        }
    }
}

#[test]
fn chunks_and_trailers_pass_in_both_directions() {
    let origin = Origin::start(|r: &Request| match r.head.method() {
        "GET" => origin::chunked(&["hello, ", "world"], &[("X-Sum", "1")]),
        _ => origin::mirror(),
    });
    let (proxy, offers) = start(&origin);
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        let response = client.request("GET", "/");
        assert_eq!(response.text(), "hello, world");
        assert_eq!(response.body.trailers, [("X-Sum".into(), "1".into())]);
        client.send(
            "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n",
        );
        assert!(client.response().text().contains("hello"));
    }
}

#[test]
fn continue_is_asked_for_and_passed() {
    let origin = Origin::start(|_| {
        let go = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
        [vec![Step::Send(go)], origin::mirror()].concat()
    });
    let (proxy, offers) = start(&origin);
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        client.send(
            "POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(client.head().status(), 100);
        client.send("hello");
        let response = client.response();
        assert_eq!(response.status(), 200);
        assert!(response.text().ends_with("hello"));
    }
}

#[test]
fn head_request_and_empty_answers_keep_the_connection() {
    let origin = Origin::start(|r: &Request| match r.head.method() {
        "HEAD" => origin::raw("HTTP/1.1 200 Test\r\nContent-Length: 100\r\n\r\n"),
        _ => origin::raw("HTTP/1.1 204 Test\r\n\r\n"),
    });
    let (proxy, offers) = start(&origin);
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        for _ in 0..3 {
            assert_eq!(client.request("HEAD", "/").status(), 200);
            assert_eq!(client.request("GET", "/").status(), 204);
        }
    }
}

#[test]
fn websocket_passes_and_ends_from_either_side() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n";
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Origin::start(move |r: &Request| {
        let mut steps = vec![Step::Send(answer.into())];
        match r.head.target() {
            "/echo" => steps.push(Step::Echo),
            _ => steps.extend([
                Step::Pass(opened.clone()),
                Step::Send(b"bye".to_vec()),
                Step::Finish,
                Step::AwaitClose,
            ]),
        }
        steps
    });
    let (proxy, offers) = start(&origin);
    let ask = |target: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
        )
    };
    gate.open();
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        client.send(ask("/echo"));
        let head = client.head();
        assert_eq!(head.status(), 101);
        assert_eq!(head.field("sec-websocket-accept"), Some("a"));
        for n in 1..20 {
            let text = vec![b'a' + n as u8; n * 1000];
            client.send(&text);
            assert_eq!(client.exactly(text.len()), text);
        }
        // close_notify is what FIN is in clear text, each way.
        client.finish();
        client.expect_closed();
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        client.send(ask("/server"));
        assert_eq!(client.head().status(), 101);
        assert_eq!(client.exactly(3), b"bye");
        client.finish();
        client.expect_closed();
    }
}

#[test]
fn client_that_has_said_all_is_still_answered() {
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Origin::start(move |_| {
        [vec![Step::Pass(opened.clone())], origin::reply(200, "late")].concat()
    });
    let (proxy, offers) = start(&origin);
    gate.open();
    for offer in &offers {
        let mut client = Client::secure(proxy.addr(), offer, "localhost");
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
        // close_notify and FIN after a request that is whole.
        client.finish();
        assert_eq!(client.response().text(), "late");
        client.expect_closed();
    }
}
