//! How TLS connections end: with close_notify whenever all was said, so that no end looks like a cut.

use rustix::process::Signal;

use crate::support::binary::{Binary, free_port};
use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::need;
use crate::support::openssl::s_client;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::tls::{Offer, V12, V13, server};
use crate::support::wire::Broken;

const VERSIONS: [&[&rustls::SupportedProtocolVersion]; 2] = [V12, V13];

fn config(ca: &Ca, origin: &Origin, listener: &str, upstream: &str) -> String {
    format!(
        "[process]\nworkers = 1\ngrace = '20s'\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{}\n{listener}\n\
         [upstreams.app]\nendpoints = ['{}']\n{upstream}\n",
        listener_tls(&[&ca.server()], ""),
        origin.addr()
    )
}

#[test]
fn body_that_ends_with_the_connection_ends_with_close_notify() {
    let ca = Ca::new();
    let origin = Origin::always(origin::until_close("all of it"));
    let proxy = Proxy::start(&config(&ca, &origin, "", ""));
    for versions in VERSIONS {
        let offer = Offer::of(&ca, versions);
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        // HTTP/1.0 has no chunks: the end of the connection is that of the body.
        client.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(client.response().text(), "all of it");
        client.expect_closed();
    }
    if let Some(openssl) = need("openssl") {
        let said = s_client(&openssl, proxy.addr(), &["-tls1_3"]);
        assert!(said.contains("all of it"), "{said}");
        assert!(!said.contains("unexpected eof"), "{said}");
    }
}

#[test]
fn endpoints_body_that_is_cut_is_not_taken_for_whole() {
    let ca = Ca::new();
    let own = ca.server();
    let head = b"HTTP/1.1 200 Test\r\n\r\nhalf of".to_vec();
    // FIN without close_notify, and with it.
    for (last, is_whole) in [(Step::Close, false), (Step::Finish, true)] {
        let steps = vec![Step::ReadBody, Step::Send(head.clone()), last, Step::Close];
        let origin = Origin::build(move |_| steps.clone())
            .tls(server(&own, &[&rustls::version::TLS13], None))
            .start();
        let upstream = format!(
            "connect_timeout = '20s'\ntls = {{ ca = '{}' }}",
            ca.file.display()
        );
        let proxy = Proxy::start(&config(&ca, &origin, "", &upstream));
        let offer = Offer::trusting(&ca);
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        client.send("GET / HTTP/1.0\r\n\r\n");
        match client.broken_or_all() {
            Ok(all) => {
                assert!(is_whole, "{:?}", String::from_utf8_lossy(&all));
                assert!(all.ends_with(b"half of"));
            }
            Err(broken) => assert!(!is_whole, "{broken:?}"),
        }
    }
}

#[test]
fn idle_connection_is_closed_with_close_notify() {
    let ca = Ca::new();
    let origin = Origin::named("a");
    let proxy = Proxy::start(&config(&ca, &origin, "keepalive_timeout = '200ms'", ""));
    for versions in VERSIONS {
        let offer = Offer::of(&ca, versions);
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        assert_eq!(client.request("GET", "/").text(), "a");
        client.expect_closed();
    }
}

#[test]
fn refusals_end_with_close_notify() {
    let ca = Ca::new();
    let origin = Origin::named("a");
    let proxy = Proxy::start(&config(&ca, &origin, "", ""));
    for versions in VERSIONS {
        let offer = Offer::of(&ca, versions);
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert_eq!(client.response().status(), 400);
        client.expect_closed();
    }
}

#[test]
fn reload_without_the_listener_says_goodbye_to_idle_clients() {
    let ca = Ca::new();
    let origin = Origin::named("a");
    let proxy = Proxy::start(&config(&ca, &origin, "", ""));
    let offer = Offer::trusting(&ca);
    let mut client = Client::secure(proxy.addr(), &offer, "localhost");
    assert_eq!(client.request("GET", "/").text(), "a");
    proxy.reload(&format!(
        "[admin]\nbind = '127.0.0.1:0'\n[listeners.other]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{}']\n",
        origin.addr()
    ));
    client.expect_closed();
}

#[test]
fn sigterm_says_goodbye_to_idle_clients_and_lets_others_end() {
    let ca = Ca::new();
    let gate = Gate::new();
    let opened = gate.clone();
    let origin = Origin::start(move |r: &origin::Request| match r.head.target() {
        "/slow" => [vec![Step::Pass(opened.clone())], origin::reply(200, "slow")].concat(),
        _ => origin::reply(200, "a"),
    });
    let port = free_port();
    let addr = ([127, 0, 0, 1], port).into();
    let toml = config(&ca, &origin, "", "").replace(
        "[listeners.web]\nbind = '127.0.0.1:0'",
        &format!("[listeners.web]\nbind = '127.0.0.1:{port}'"),
    );
    let toml = toml.replace("[admin]\nbind = '127.0.0.1:0'\n", "");
    let mut binary = Binary::start(&toml);
    binary.await_line("try: curl");
    let mut idle = VERSIONS.map(|versions| {
        let offer = Offer::of(&ca, versions);
        let mut client = Client::secure(addr, &offer, "localhost");
        assert_eq!(client.request("GET", "/").text(), "a");
        client
    });
    let mut busy = VERSIONS.map(|versions| {
        let offer = Offer::of(&ca, versions);
        let mut client = Client::secure(addr, &offer, "localhost");
        client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
        client
    });
    // And one in the middle of its handshake.
    let mut silent = Client::connect(addr);
    gate.await_reached(2);
    binary.signal(Signal::TERM);
    for client in &mut idle {
        client.expect_closed();
    }
    silent.expect_closed();
    gate.open();
    for client in &mut busy {
        let response = client.response();
        assert_eq!(response.text(), "slow");
        assert_eq!(response.field("connection"), Some("close"));
        client.expect_closed();
    }
    assert_eq!(binary.wait().code(), Some(0));
}

#[test]
fn response_that_breaks_off_is_not_ended_with_close_notify() {
    let ca = Ca::new();
    let half = b"HTTP/1.1 200 Test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec();
    let origin = Origin::always(vec![Step::ReadBody, Step::Send(half), Step::Reset]);
    let proxy = Proxy::start(&config(&ca, &origin, "", ""));
    for versions in VERSIONS {
        let offer = Offer::of(&ca, versions);
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        // To HTTP/1.0 only the end tells that it was whole.
        client.send("GET / HTTP/1.0\r\n\r\n");
        let broken = client.broken_or_all();
        let is_cut = matches!(broken, Err(Broken::Reset | Broken::Truncated(_)));
        assert!(is_cut, "{broken:?}");
    }
}

#[test]
fn upload_that_is_cut_is_not_taken_for_whole() {
    let ca = Ca::new();
    let origin = Origin::always(origin::reply(200, "stored"));
    let proxy = Proxy::start(&config(&ca, &origin, "", ""));
    let heads = ["Content-Length: 10", "Transfer-Encoding: chunked"];
    let mut n = 0;
    for versions in VERSIONS {
        for head in heads {
            for says_goodbye in [true, false] {
                let offer = Offer::of(&ca, versions);
                let mut client = Client::secure(proxy.addr(), &offer, "localhost");
                client.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n"));
                client.send("4\r\nhalf\r\n");
                origin.await_requests(n + 1);
                if says_goodbye {
                    client.finish();
                } else {
                    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
                }
                let request = origin.await_done(n);
                assert!(request.broken.is_some(), "{request:?}");
                n += 1;
            }
        }
    }
}
