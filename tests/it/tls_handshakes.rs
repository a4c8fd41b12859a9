//! Handshakes that come to nothing: each ends in time, is counted by its kind and told in the log.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::support::binary::{Binary, free_port};
use crate::support::certs::{Ca, Issued, Wanted, listener_tls};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::tls::{Offer, V12, V13};
use crate::support::watched::Watched;
use crate::support::wire::Broken;

fn handshakes(result: &str) -> String {
    format!("isobar_tls_handshakes_total{{listener=\"web\",result=\"{result}\"}}")
}

fn start(more: &str) -> (Ca, Origin, Watched) {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::over(origin.addr(), &listener_tls(&[&ca.server()], more), "");
    (ca, origin, proxy)
}

/// The first bytes of a client.
fn hello(offer: &Offer) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(offer.config.clone(), name).unwrap();
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    bytes
}

#[test]
fn silent_client_is_closed_in_time() {
    let (ca, _origin, proxy) = start(", handshake_timeout = '300ms'");
    let mut silent = proxy.connect();
    silent.expect_closed();
    let hello = hello(&Offer::trusting(&ca));
    let mut half = proxy.connect();
    half.send(&hello[..hello.len() / 2]);
    half.expect_closed();
    // All of it, and then nothing more.
    let mut mute = proxy.connect();
    mute.send(&hello);
    mute.until_closed();
    proxy.await_metric(&handshakes("timeout"), 3.0);
    // A busy machine may need more than the limit for that, now and then.
    let mut well = None;
    eventually("a handshake in time", || {
        well = Client::try_secure(proxy.addr(), &Offer::trusting(&ca), "localhost").ok();
        well.is_some()
    });
    let mut well = well.unwrap();
    // And the limit ends with the handshake.
    well.expect_silence(Duration::from_millis(400));
    assert_eq!(well.request("GET", "/").text(), "a");
}

#[test]
fn trickle_is_closed_in_time() {
    let (ca, _origin, proxy) = start(", handshake_timeout = '500ms'");
    let hello = hello(&Offer::trusting(&ca));
    let mut client = proxy.connect();
    // A byte every 50 ms is never silent, and never done: there are more than 200 of them.
    for byte in &hello {
        if !client.try_send([*byte]) || client.is_closed_within(Duration::from_millis(50)) {
            break;
        }
    }
    proxy.await_metric(&handshakes("timeout"), 1.0);
}

#[test]
fn plain_http_is_told_to_use_https() {
    let (_ca, _origin, proxy) = start("");
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status(), 400);
    assert!(response.text().contains("https://"), "{}", response.text());
    client.expect_closed();
    let line = proxy.expect_recorded(isobar::telemetry::reason::Reason::PlainHttp, None);
    assert_eq!(line["status"], 400);
    proxy.await_metric(&handshakes("plaintext"), 1.0);
}

#[test]
fn noise_is_closed_without_a_word() {
    let (_ca, _origin, proxy) = start("");
    for noise in [&[0; 64][..], b"\x00", b"get / http\r\n\r\n", &[0xff; 4096]] {
        let mut client = proxy.connect();
        client.send(noise);
        assert_eq!(client.until_closed(), b"", "{noise:?}");
    }
    proxy.await_metric(&handshakes("plaintext"), 4.0);
}

#[test]
fn what_begins_as_tls_and_is_none_gets_an_alert() {
    let (_ca, _origin, proxy) = start("");
    let cases: [&[u8]; 4] = [
        // A message of a kind that there is not.
        b"\x16\x03\x01\x00\x04\xff\x00\x00\x00",
        // One that is too long.
        b"\x16\x03\x01\xff\xff\x01\x00\x00\x00",
        // A handshake that begins with something else than a ClientHello.
        b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00",
        // A ClientHello without anything in it.
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ];
    for case in cases {
        let mut client = proxy.connect();
        client.send(case);
        client.finish();
        let said = client.until_closed();
        assert_eq!(said.first(), Some(&21), "an alert for {case:?}: {said:?}");
    }
    proxy.await_metric(&handshakes("protocol"), 4.0);
}

#[test]
fn client_that_goes_in_the_middle_is_counted() {
    let (ca, _origin, proxy) = start("");
    proxy.connect().finish();
    let hello = hello(&Offer::trusting(&ca));
    let mut half = proxy.connect();
    half.send(&hello[..hello.len() / 2]);
    half.finish();
    half.expect_closed();
    let mut reset = proxy.connect();
    reset.send(&hello);
    reset.exactly(1);
    reset.reset();
    proxy.await_metric(&handshakes("closed"), 3.0);
}

/// Every byte of a client's part of a handshake is bent once, and the proxy lives on.
#[test]
fn bent_handshakes_hurt_nobody() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let origin = Origin::named("a");
    let tls = listener_tls(
        &[&ca.server()],
        &format!(
            ", client_ca = '{}', client_auth = 'request'",
            clients.file.display()
        ),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    let alice = clients.issue(&Wanted::client("alice"));
    let mut ended = 0.0;
    for versions in [V12, V13] {
        let offer = Offer::build(&ca).versions(versions).own(&alice).done();
        let steps = crate::support::scaled(37, 1);
        let mut n = 0;
        loop {
            let is_bent = bend(proxy.addr(), &offer, n);
            ended += 1.0;
            if !is_bent {
                break;
            }
            n += steps;
        }
        assert!(n > 500, "a client says more than that");
    }
    // Every one of them has ended in one of the ways there are: none has made a worker stumble.
    let all = |proxy: &Watched| {
        let results = isobar::base::tls::Handshake::ALL;
        results
            .iter()
            .map(|r| proxy.proxy.metric(&handshakes(r.as_str())))
            .sum::<f64>()
    };
    eventually("an end for every handshake", || all(&proxy) >= ended);
    let offer = Offer::trusting(&ca);
    let mut client = Client::secure(proxy.addr(), &offer, "localhost");
    assert_eq!(client.request("GET", "/").text(), "a");
}

/// A handshake with the n-th byte of the client bent; `false` = it has said less than that.
fn bend(addr: std::net::SocketAddr, offer: &Offer, n: usize) -> bool {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(offer.config.clone(), name).unwrap();
    let mut client = Client::connect(addr);
    let mut said = 0;
    loop {
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
        let is_bent = (said..said + bytes.len()).contains(&n);
        if is_bent {
            bytes[n - said] ^= 0x55;
        }
        said += bytes.len();
        if !client.try_send(&bytes) {
            return true;
        }
        if is_bent {
            // Nothing more: whatever it makes of that, it comes to an end.
            client.finish();
            client.until_closed();
            return true;
        }
        if !tls.is_handshaking() {
            return false;
        }
        let Ok(more) = client.some() else { return true };
        tls.read_tls(&mut &*more).unwrap();
        if tls.process_new_packets().is_err() {
            return true;
        }
    }
}

#[test]
fn handshake_in_pieces_is_a_handshake() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let origin = Origin::named("a");
    let tls = listener_tls(
        &[&ca.server()],
        &format!(", client_ca = '{}'", clients.file.display()),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    let alice = clients.issue(&Wanted::client("alice"));
    for versions in [V12, V13] {
        let mut config = (*Offer::build(&ca)
            .versions(versions)
            .own(&alice)
            .done()
            .config)
            .clone();
        // Each message of it in many records.
        config.max_fragment_size = Some(40);
        let offer = Offer {
            config: Arc::new(config),
        };
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        assert_eq!(client.request("GET", "/").text(), "a");
        // And each record in bytes.
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(offer.config.clone(), name).unwrap();
        let mut client = Client::connect(proxy.addr());
        let mut has_asked = false;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\na") {
            if !tls.is_handshaking() && !has_asked {
                has_asked = true;
                let ask = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";
                tls.writer().write_all(ask).unwrap();
            }
            let mut bytes = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut bytes).unwrap();
            }
            client.send_byte_by_byte(&bytes);
            if !tls.is_handshaking() && !has_asked {
                continue;
            }
            let more = client.some().unwrap();
            tls.read_tls(&mut &*more).unwrap();
            tls.process_new_packets().unwrap();
            let _ = tls.reader().read_to_end(&mut answer);
        }
    }
}

#[test]
fn long_chains_of_certificates_fit() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    // More than a record holds, of CAs that nobody asked for.
    let padding: Vec<Ca> = (0..60).map(|n| Ca::named(&format!("CA {n}"))).collect();
    let pad = |issued: &Issued| {
        let mut pem = std::fs::read(&issued.cert).unwrap();
        for ca in &padding {
            pem.extend(std::fs::read(&ca.file).unwrap());
        }
        std::fs::write(&issued.cert, pem).unwrap();
    };
    let (own, alice) = (ca.server(), clients.issue(&Wanted::client("alice")));
    pad(&own);
    pad(&alice);
    let origin = Origin::named("a");
    let tls = listener_tls(
        &[&own],
        &format!(", client_ca = '{}'", clients.file.display()),
    );
    let proxy = Watched::over(origin.addr(), &tls, "");
    // And the same chains on the way to an endpoint, which is another listener.
    let front = Watched::over(
        proxy.addr(),
        "",
        &format!(
            "connect_timeout = '20s'\ntls = {{ ca = '{}', cert = '{}', key = '{}' }}",
            ca.file.display(),
            alice.cert.display(),
            alice.key.display()
        ),
    );
    for _ in 0..3 {
        let response = front.connect().request("GET", "/");
        assert_eq!(response.text(), "a");
    }
}

#[test]
fn failures_are_told_in_the_log_in_plain_words() {
    let (ca, stranger) = (Ca::new(), Ca::named("stranger"));
    let origin = Origin::named("a");
    let port = free_port();
    let addr = ([127, 0, 0, 1], port).into();
    let binary = Binary::start(&format!(
        "[listeners.web]\nbind = '127.0.0.1:{port}'\nupstream = 'app'\n{}\n\
         [upstreams.app]\nendpoints = ['{}']\n",
        listener_tls(&[&ca.server()], ", min_version = '1.3'"),
        origin.addr()
    ));
    binary.await_line("try: curl");
    let refused = Client::try_secure(addr, &Offer::trusting(&stranger), "localhost");
    assert!(refused.is_err());
    let line = binary.await_line("does not trust the CA");
    assert!(
        line.contains("INFO") && line.contains("result=\"alert\""),
        "{line}"
    );
    assert!(line.contains("client=127.0.0.1:"), "{line}");
    let refused = Client::try_secure(addr, &Offer::of(&ca, V12), "localhost");
    assert!(matches!(refused, Err(Broken::Tls(_))), "{refused:?}");
    binary.await_line("versions of TLS that are too old");
    let mut plain = Client::connect(addr);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(plain.response().status(), 400);
    binary.await_line("does not speak TLS");
}

#[test]
fn listener_that_is_full_closes_before_the_handshake() {
    let gate = Gate::new();
    let (ca, opened) = (Ca::new(), gate.clone());
    let origin = Origin::start(move |_| {
        let answer = Step::Send(origin::response(200, "a"));
        vec![Step::Pass(opened.clone()), answer]
    });
    let tls = listener_tls(&[&ca.server()], "");
    let proxy = Watched::over(origin.addr(), &format!("{tls}\nmax_connections = 1"), "");
    let offer = Offer::trusting(&ca);
    let mut first = Client::secure(proxy.addr(), &offer, "localhost");
    first.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    origin.await_requests(1);
    assert!(Client::try_secure(proxy.addr(), &offer, "localhost").is_err());
    proxy.await_metric(
        "isobar_listener_refusals_total{listener=\"web\",reason=\"connections_limit\"}",
        1.0,
    );
    gate.open();
    assert_eq!(first.response().text(), "a");
    drop(first);
    eventually("room for another one", || {
        Client::try_secure(proxy.addr(), &offer, "localhost")
            .is_ok_and(|mut client| client.try_send("x"))
    });
}
