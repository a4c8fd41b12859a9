//! New keys in the middle of a connection (RFC 8446 section 4.6.3), from either side's wish.

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::need;
use crate::support::openssl::open;
use crate::support::origin::{self, Origin, Request, Step, pattern};
use crate::support::proxy::Proxy;
use crate::support::tls::{Offer, V13, server};
use crate::support::wire::Broken;

fn start(origin: &Origin, upstream: &str) -> (Ca, Proxy) {
    let ca = Ca::new();
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{}\n\
         [upstreams.app]\nendpoints = ['{}']\n{upstream}\n",
        listener_tls(&[&ca.server()], ""),
        origin.addr()
    ));
    (ca, proxy)
}

#[test]
fn openssl_asks_for_new_keys_and_goes_on() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let origin = Origin::named("an answer");
    let (_ca, proxy) = start(&origin, "");
    let mut client = open(&openssl, proxy.addr(), &["-tls1_3"]);
    let ask = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    client.try_send(ask);
    client.await_times("an answer", 1);
    for n in 0..4 {
        // `K` wants new keys of the proxy as well, `k` only tells of the client's own.
        client.try_send(if n % 2 == 0 { "K\n" } else { "k\n" });
        client.await_times("KEYUPDATE", n + 1);
        client.try_send(ask);
        client.await_times("an answer", n + 2);
    }
}

#[test]
fn new_keys_in_the_middle_of_bodies_lose_no_byte() {
    const SIZE: usize = 3 * 1024 * 1024;
    let origin = Origin::start(|r: &Request| match r.head.method() {
        "GET" => origin::filled(SIZE),
        _ => origin::mirror(),
    });
    let (ca, proxy) = start(&origin, "");
    let offer = Offer::of(&ca, V13);
    // A reader.
    let client = Client::connect_narrow(proxy.addr());
    let mut client = client.into_secure(&offer, "localhost").unwrap();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    let mut all = Vec::new();
    while all.len() < SIZE {
        // rustls takes 32 without a byte of data in between.
        if all.len() < 25 * 32 * 1024 {
            assert!(client.try_new_keys());
        }
        all.extend(client.exactly((SIZE - all.len()).min(32 * 1024)));
    }
    assert!(all == pattern(0, SIZE));
    // A writer.
    let body = pattern(3, 200_000);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    for piece in body.chunks(5_000) {
        assert!(client.try_new_keys());
        client.send(piece);
    }
    let response = client.response();
    assert_eq!(response.status(), 200);
    assert_eq!(origin.await_done(1).body.data, body);
    // While it is idle.
    for _ in 0..20 {
        assert!(client.try_new_keys());
        assert_eq!(client.request("PUT", "/").status(), 200);
    }
}

#[test]
fn client_that_does_nothing_but_change_its_keys_is_cut_off() {
    let origin = Origin::named("a");
    let (ca, proxy) = start(&origin, "");
    let offer = Offer::of(&ca, V13);
    let mut restless = Client::secure(proxy.addr(), &offer, "localhost");
    let mut other = Client::secure(proxy.addr(), &offer, "localhost");
    while restless.try_new_keys() {
        assert_eq!(other.request("GET", "/").text(), "a");
    }
    let end = restless.broken_or_all();
    let is_cut = matches!(end, Err(Broken::Reset | Broken::Tls(_)));
    assert!(is_cut, "{end:?}");
    assert_eq!(other.request("GET", "/").text(), "a");
}

#[test]
fn endpoint_that_changes_its_keys_while_idle_is_used_again() {
    let ca = Ca::new();
    let own = ca.server();
    let origin = Origin::build(|_: &Request| {
        let answer = Step::Send(origin::response(200, "a"));
        vec![Step::ReadBody, answer, Step::NewKeys]
    });
    let origin = origin
        .tls(server(&own, &[&rustls::version::TLS13], None))
        .start();
    let upstream = format!(
        "connect_timeout = '20s'\ntls = {{ ca = '{}' }}",
        ca.file.display()
    );
    let (ca, proxy) = start(&origin, &upstream);
    let mut client = Client::secure(proxy.addr(), &Offer::trusting(&ca), "localhost");
    for n in 0..20 {
        assert_eq!(client.request("GET", "/").text(), "a");
        // The new keys are out.
        origin.await_done(n);
    }
    assert_eq!(origin.accepted(), 1);
}
