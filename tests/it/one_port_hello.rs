//! What connections begin with, however it comes: in pieces, too long, too late, wrong, or not at all.

use std::io::Write;

use isobar::telemetry::reason::Reason;

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::hello::{Beat, alert, in_records, padded};
use crate::support::origin::Origin;
use crate::support::scaled;
use crate::support::tcp::{Came, End, Endpoint, upstreams};
use crate::support::tls::Offer;
use crate::support::watched::Watched;

/// Names below `test` go to `tls`, what is no TLS goes to `other`; `more` are further keys.
fn over(tls: &Endpoint, other: &Endpoint, more: &str) -> Watched {
    Watched::start(
        &format!(
            "protocol = \"tcp\"\npassthrough = {{ sni = \"*.test\", upstream = \"tls\" }}\n{more}"
        ),
        &upstreams(&[("tls", tls.addr()), ("other", other.addr())]),
    )
}

/// Nobody is given up for being slow, as the machine may be that this runs on.
const PATIENT: &str = "detect = { other = \"other\", timeout = \"1h\" }";

#[test]
fn a_hello_may_come_byte_by_byte() {
    let (tls, other) = (Endpoint::new(), Endpoint::new());
    let proxy = over(&tls, &other, PATIENT);
    let offer = Offer::trusting(&Ca::new());
    let mut beat = Beat::new(&proxy, &tls, &offer, "beat.test");
    for hello in [
        offer.hello("a.test"),
        in_records(&offer.hello("a.test")[..], 7),
    ] {
        // What a post-quantum key share makes long is in the middle.
        let mut client = End::connect(proxy.addr());
        let many = scaled(60, hello.len());
        let (first, rest) = hello.split_at(many.min(hello.len() - 20));
        let (middle, last) = rest.split_at(rest.len() - 20);
        for byte in first {
            client.send([*byte]);
            beat.pass();
        }
        client.send(middle);
        beat.pass();
        for byte in last {
            assert!(tls.is_quiet() && other.is_quiet());
            client.send([*byte]);
            beat.pass();
        }
        let mut server = tls.accept();
        assert!(server.exactly(hello.len()) == hello);
        client.talks_to(&mut server);
    }
}

#[test]
fn a_hello_may_be_cut_into_records_and_have_more_behind_it() {
    let (tls, other) = (Endpoint::new(), Endpoint::new());
    let proxy = over(&tls, &other, PATIENT);
    let hello = Offer::trusting(&Ca::new()).hello("a.test");
    for len in [1, 2, 3, 5, 100, 1 << 14] {
        for behind in [0, 1, 50_000] {
            let mut bytes = in_records(&hello, len);
            bytes.extend((0..behind).map(|n| n as u8));
            let mut client = End::connect(proxy.addr());
            client.send(&bytes);
            let mut server = tls.accept();
            assert!(
                server.exactly(bytes.len()) == bytes,
                "records of {len}, {behind} behind"
            );
            client.talks_to(&mut server);
        }
    }
}

/// The longest one was refused: the headers of its records were counted too.
#[test]
fn a_hello_may_have_16_kib_and_not_a_byte_more() {
    let (tls, other) = (Endpoint::new(), Endpoint::new());
    let proxy = over(&tls, &other, PATIENT);
    for len in [16 * 1024 - 1, 16 * 1024] {
        for hello in [
            padded("a.test", len),
            in_records(&padded("a.test", len), 1000),
        ] {
            let mut client = End::connect(proxy.addr());
            client.send(&hello);
            let mut server = tls.accept();
            assert!(server.exactly(hello.len()) == hello, "{len}");
            client.talks_to(&mut server);
        }
    }
    let long = padded("a.test", 16 * 1024 + 1);
    // Its length says it before the rest is there.
    for said in [&long[..], &long[..9]] {
        let proxy = over(&tls, &other, PATIENT);
        let mut client = End::connect(proxy.addr());
        client.send(said);
        assert_eq!(client.next(), alert(50));
        assert_eq!(client.next(), Came::End);
        proxy.expect_recorded(Reason::UnknownProtocol, None);
        assert!(tls.is_quiet() && other.is_quiet());
    }
}

#[test]
fn a_hello_that_ends_too_early_is_nobody_elses() {
    let (tls, other) = (Endpoint::new(), Endpoint::new());
    let hello = Offer::trusting(&Ca::new()).hello("a.test");
    for len in [3, 5, 6, hello.len() - 1] {
        let proxy = over(&tls, &other, PATIENT);
        let mut client = End::connect(proxy.addr());
        client.send(&hello[..len]);
        client.end();
        assert_eq!(client.next(), alert(50));
        assert_eq!(client.next(), Came::End);
        proxy.expect_recorded(Reason::UnknownProtocol, None);
        assert!(tls.is_quiet() && other.is_quiet());
    }
    // Half of it, and then the client is no more: there is nobody to serve.
    let proxy = over(&tls, &other, PATIENT);
    let mut client = End::connect(proxy.addr());
    client.send(&hello[..100]);
    client.reset();
    eventually("its end", || proxy.proxy.connections() == [0]);
    let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"unknown_protocol\"}";
    assert_eq!(proxy.proxy.metric(refused), 0.0);
    assert!(tls.is_quiet() && other.is_quiet());
}

/// It went to `other` once `detect.timeout` was over, which is for what has not said what it is.
#[test]
fn a_hello_that_stays_unfinished_is_refused_in_its_own_time() {
    let (tls, other) = (Endpoint::new(), Endpoint::new());
    let origin = Origin::named("a");
    let hello = Offer::trusting(&Ca::new()).hello("a.test");
    for len in [3, 100, hello.len() - 1] {
        let proxy = Watched::start(
            "upstream = \"app\"\nheader_timeout = \"700ms\"\n\
             proxy_protocol = { from = [\"127.0.0.1\"], timeout = \"1h\" }\n\
             passthrough = { sni = \"*.test\", upstream = \"tls\" }\n\
             detect = { other = \"other\", timeout = \"200ms\" }",
            &upstreams(&[
                ("app", origin.addr()),
                ("tls", tls.addr()),
                ("other", other.addr()),
            ]),
        );
        let mut client = End::connect(proxy.addr());
        // In one with a header, so that it is there when time begins to run.
        client.send([b"PROXY UNKNOWN\r\n", &hello[..len]].concat());
        assert_eq!(client.next(), Came::Reset);
        proxy.expect_recorded(Reason::HeaderTimeout, None);
        assert!(tls.is_quiet() && other.is_quiet());
    }
}

#[test]
fn what_only_begins_like_tls_is_told_from_it() {
    let (tls, other) = (Endpoint::new(), Endpoint::new());
    let proxy = over(&tls, &other, PATIENT);
    for bytes in [
        &b"\x16 is no record"[..],
        b"\x16\x02\x01\0\x10",
        b"\x16\x03\x05\0\x10",
        b"\x80\x2e\x01\x03\x01",
    ] {
        let mut client = End::connect(proxy.addr());
        client.send(bytes);
        let mut server = other.accept();
        assert_eq!(server.exactly(bytes.len()), bytes);
        client.talks_to(&mut server);
    }
    let mut hello = Offer::trusting(&Ca::new()).hello("a.test");
    // The length of its session id.
    hello[43] = 0xff;
    for bytes in [
        &b"\x16\x03\x01\0\0"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x03\0\x04\x02\0\0\0",
        b"\x16\x03\x03\0\x04\x01\xff\xff\xff",
        &hello,
    ] {
        let proxy = over(&tls, &other, PATIENT);
        let mut client = End::connect(proxy.addr());
        client.send(bytes);
        assert_eq!(client.next(), alert(50), "{bytes:?}");
        assert_eq!(client.next(), Came::End);
        proxy.expect_recorded(Reason::UnknownProtocol, None);
    }
    assert!(tls.is_quiet() && other.is_quiet());
}

/// Each of them had a buffer of 16 KiB for as long as it said nothing.
#[test]
fn those_who_say_little_hold_no_buffer() {
    let wanted = scaled(150, 2000);
    let (tls, other) = (Endpoint::new(), Endpoint::new());
    let header = "proxy_protocol = { from = [\"127.0.0.2\"], timeout = \"1h\" }";
    let offer = Offer::trusting(&Ca::new());
    let hello = offer.hello("a.test");
    for (more, from, said) in [
        (PATIENT.to_owned(), "127.0.0.1", &b""[..]),
        (PATIENT.to_owned(), "127.0.0.1", b"\x16"),
        (PATIENT.to_owned(), "127.0.0.1", &hello[..50]),
        (format!("{header}\n{PATIENT}"), "127.0.0.2", b""),
        (format!("{header}\n{PATIENT}"), "127.0.0.2", b"PROXY"),
        (
            format!("{header}\n{PATIENT}"),
            "127.0.0.2",
            b"PROXY UNKNOWN\r\n",
        ),
    ] {
        let proxy = over(&tls, &other, &more);
        let clients: Vec<_> = (0..wanted)
            .map(|_| {
                let mut client = End::connect_from(from, proxy.addr());
                client.send(said);
                client
            })
            .collect();
        eventually("all of them", || proxy.proxy.connections() == [wanted]);
        // Reports come between sleeps; the second one after now has seen all that was sent.
        let parks = || {
            proxy
                .proxy
                .metric("isobar_worker_parks_total{worker=\"0\"}")
        };
        for _ in 0..2 {
            let before = parks();
            eventually("another report", || parks() > before);
        }
        let held = proxy.proxy.metric("isobar_buffers{state=\"in_use\"}");
        assert_eq!(held, 0.0, "{said:?}");
        // An end, after a word that was none, would be passed on.
        clients.into_iter().for_each(End::reset);
        eventually("their ends", || proxy.proxy.connections() == [0]);
        assert!(tls.is_quiet() && other.is_quiet());
    }
}

#[test]
fn those_who_say_little_are_ended_by_the_deadline() {
    let wanted = scaled(150, 2000);
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let proxy = Watched::start(
        &format!(
            "upstream = \"app\"\nheader_timeout = \"1s\"\ndetect = {{ http = true, timeout = \"1s\" }}\n{}",
            listener_tls(&[&ca.server()], "")
        ),
        &upstreams(&[("app", origin.addr())]),
    );
    let mut clients: Vec<_> = (0..wanted)
        .map(|n| {
            let mut client = End::connect(proxy.addr());
            // On a machine that stands still its time may be up already.
            let said = [&b""[..], b"\x16", b"G", b"\x16\x03\x01\0"][n % 4];
            let _ = client.0.write_all(said);
            client
        })
        .collect();
    for client in &mut clients {
        assert!(matches!(client.next(), Came::Reset | Came::End));
    }
    let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"header_timeout\"}";
    proxy.await_metric(refused, f64::from(wanted as u32));
    let mut client = Client::secure(proxy.addr(), &Offer::trusting(&ca), "localhost");
    assert_eq!(client.request("GET", "/").text(), "a");
}
