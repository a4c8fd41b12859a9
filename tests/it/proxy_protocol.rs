//! The PROXY protocol, in and out: who a client is said to be, whom that is taken from, and what endpoints are
//! told. Headers are written and read here by hand, not by isobar's own codec.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;

use isobar::telemetry::reason::Reason;

use crate::support::DEADLINE;
use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::h2::{self, H2Client, Identity};
use crate::support::origin::{self, Origin};
use crate::support::proxied::{INET, INET6, checked, head, header, told};
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, End, Endpoint};
use crate::support::tls::Offer;
use crate::support::unreachable::Refusing;
use crate::support::watched::Watched;

/// Of a listener: everybody on this host is a proxy.
const FROM: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"] }";

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

/// A TCP listener with these keys.
fn tcp(keys: &str) -> String {
    format!("protocol = \"tcp\"\n{keys}")
}

/// One listener `web` over these endpoints; `listener` and `upstream` are further lines of theirs.
fn config(endpoints: &[SocketAddr], listener: &str, upstream: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "[process]\nworkers = 1\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n{listener}\n\n\
         [upstreams.app]\nendpoints = [{}]\n{upstream}\n",
        endpoints.join(", ")
    )
}

/// The same of version 2, with a checksum.
fn v2() -> Vec<u8> {
    checked(0x21, 0x11, INET, &[])
}

// === told by others ===

#[test]
fn requests_come_from_whom_the_header_names() {
    let inet6 = checked(0x21, 0x21, INET6, &[(0xe0, b"any")]);
    let unchecked = header(0x21, 0x11, INET, &[(0x04, b"pad")]);
    for (header, client) in [
        (V1.to_vec(), "192.0.2.7"),
        (
            b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(),
            "2001:db8::7",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(), "192.0.2.7"),
        (unchecked, "192.0.2.7"),
        (inet6, "2001:db8::7"),
        // LOCAL: the sender speaks for itself, whatever else it says.
        (header(0x20, 0, b"", &[]), "127.0.0.1"),
        (header(0x20, 0x11, INET, &[]), "127.0.0.1"),
        // Unix sockets, and what nobody knows.
        (checked(0x21, 0x31, &[0; 216], &[]), "127.0.0.1"),
        (header(0x21, 0x00, b"", &[]), "127.0.0.1"),
    ] {
        let origin = Origin::always(origin::mirror());
        let proxy = Watched::over(origin.addr(), FROM, "");
        let mut connection = proxy.connect();
        connection.send([&header[..], ASK].concat());
        assert_eq!(connection.response().status(), 200, "{header:?}");
        // It is said once for all requests of a connection.
        assert_eq!(connection.request("GET", "/again").status(), 200);
        for request in origin.requests() {
            assert_eq!(request.head.field("x-forwarded-for"), Some(client));
        }
        for line in proxy.log(2) {
            assert_eq!(line["client"], client, "{line}");
        }
    }
}

#[test]
fn a_header_comes_in_any_pieces() {
    let origin = Origin::always(origin::mirror());
    let proxy = Proxy::start(&config(&[origin.addr()], FROM, ""));
    for header in [V1.to_vec(), v2()] {
        let all = [&header[..], ASK].concat();
        for cut in 1..=header.len() {
            let mut client = Client::connect(proxy.addr());
            client.send_split(&all, &[cut]);
            let response = client.response();
            assert!(response.text().contains("192.0.2.7"), "cut at {cut}");
        }
        let mut client = Client::connect(proxy.addr());
        client.send_byte_by_byte(&all);
        assert!(client.response().text().contains("192.0.2.7"));
    }
}

#[test]
fn connections_pass_on_what_is_behind_the_header_and_not_it() {
    let endpoint = Endpoint::new();
    let proxy = Watched::over(endpoint.addr(), &tcp(FROM), "");
    for header in [V1.to_vec(), v2()] {
        let mut client = End::connect(proxy.addr());
        client.send([&header[..], b"first bytes"].concat());
        let mut server = endpoint.accept();
        assert_eq!(server.exactly(11), b"first bytes");
        client.talks_to(&mut server);
        client.end();
        assert_eq!(server.next(), Came::End);
        server.end();
        assert_eq!(client.next(), Came::End);
    }
    for line in proxy.log(2) {
        assert_eq!(line["client"], "192.0.2.7", "{line}");
        assert_eq!(line["bytes_in"], 15, "{line}");
    }
}

#[test]
fn who_speaks_second_still_says_who_it_is_first() {
    let endpoint = Endpoint::new();
    let proxy = Proxy::start(&config(&[endpoint.addr()], &tcp(FROM), ""));
    let mut client = End::connect(proxy.addr());
    client.send(&V1[..20]);
    assert!(endpoint.is_quiet(), "connected before it is known for whom");
    client.send(&V1[20..]);
    let mut server = endpoint.accept();
    server.send("220 ready\r\n");
    assert_eq!(client.exactly(11), b"220 ready\r\n");
    client.talks_to(&mut server);
}

#[test]
fn what_is_no_header_is_refused() {
    let mut wrong = v2();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    let long = header(0x21, 0x11, INET, &[(0xe0, &[0; 5000])]);
    let cases: [&[u8]; 9] = [
        ASK,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
        &wrong,
        &header(0x31, 0x11, INET, &[]),
        &header(0x21, 0x12, INET, &[]),
        &long,
    ];
    for listener in [FROM.to_owned(), tcp(FROM)] {
        for bytes in cases {
            let endpoint = Endpoint::new();
            let proxy = Watched::over(endpoint.addr(), &listener, "");
            let mut client = proxy.connect();
            client.send(bytes);
            client.expect_closed();
            let line = proxy.expect_recorded(Reason::ProxyProtocol, None);
            assert_eq!(line["client"], "127.0.0.1", "{line}");
            assert!(endpoint.is_quiet(), "{bytes:?}");
        }
    }
}

#[test]
fn a_header_that_does_not_end_in_time_or_at_all_is_refused() {
    let from = "proxy_protocol = { from = [\"127.0.0.0/8\"], timeout = \"300ms\" }";
    for listener in [from.to_owned(), tcp(from)] {
        for said in [&b""[..], &V1[..30], &v2()[..20]] {
            let endpoint = Endpoint::new();
            let proxy = Watched::over(endpoint.addr(), &listener, "");
            let mut client = proxy.connect();
            client.try_send(said);
            client.expect_closed();
            proxy.expect_recorded(Reason::ProxyProtocol, None);
            assert!(endpoint.is_quiet());
        }
    }
    for listener in [FROM.to_owned(), tcp(FROM)] {
        let endpoint = Endpoint::new();
        let proxy = Watched::over(endpoint.addr(), &listener, "");
        let mut client = proxy.connect();
        client.send(&V1[..30]);
        client.finish();
        client.expect_closed();
        proxy.expect_recorded(Reason::ProxyProtocol, None);
    }
}

#[test]
fn only_those_who_are_named_are_heard() {
    let from = "proxy_protocol = { from = [\"127.0.0.2\", \"::1\"] }";
    for listener in [from.to_owned(), tcp(from)] {
        let endpoint = Endpoint::new();
        let proxy = Watched::over(endpoint.addr(), &listener, "");
        // Turned away before it says a word.
        End::connect_to_be_reset(proxy.addr());
        let line = proxy.expect_recorded(Reason::ProxyProtocol, None);
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert!(endpoint.is_quiet());

        let known = IpAddr::from([127, 0, 0, 2]);
        let mut client = Client::connect_from(known, proxy.addr());
        client.send([V1, ASK].concat());
        let mut server = endpoint.accept();
        assert!(head(&mut server).starts_with("GET / "));
    }
}

#[test]
fn whoever_reaches_a_unix_socket_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    let origin = Origin::always(origin::mirror());
    let listener = "proxy_protocol = { from = [\"192.0.2.0/24\"] }";
    let config = config(&[origin.addr()], listener, "").replace(
        "[listeners.web]\nbind = \"127.0.0.1:0\"",
        &format!("[listeners.web]\nbind = \"unix:{}\"", path.display()),
    );
    let _proxy = Proxy::start(&config);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let ask = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    client.write_all(&[V1, ask].concat()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let request = origin.await_done(0);
    assert_eq!(request.head.field("x-forwarded-for"), Some("192.0.2.7"));
}

#[test]
fn the_header_comes_before_tls() {
    let ca = Ca::new();
    let origin = Origin::always(origin::mirror());
    let listener = format!("{FROM}\n{}", listener_tls(&[&ca.server()], ""));
    let proxy = Watched::over(origin.addr(), &listener, "");
    for header in [V1.to_vec(), v2()] {
        let mut client = proxy.connect();
        client.send(header);
        let mut client = client
            .into_secure(&Offer::trusting(&ca), "localhost")
            .unwrap();
        assert_eq!(client.request("GET", "/").status(), 200);
    }
    for request in origin.requests() {
        assert_eq!(request.head.field("x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(request.head.field("x-forwarded-proto"), Some("https"));
    }
    // TLS without it is no more served than anything else.
    let mut client = proxy.connect();
    client.send(b"\x16\x03\x01");
    client.expect_closed();
    proxy.expect_recorded(Reason::ProxyProtocol, None);
}

#[test]
fn all_streams_of_a_connection_come_from_whom_the_header_names() {
    let origin = Origin::always(origin::mirror());
    let proxy = Proxy::start(&config(&[origin.addr()], FROM, ""));
    let addr = proxy.addr();
    h2::run(async move {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, V1)
            .await
            .unwrap();
        let client = H2Client::over(stream, &::h2::client::Builder::new()).await;
        for n in 0..3 {
            let answer = client.get(&format!("/{n}")).await;
            assert_eq!(answer.status, 200);
        }
    });
    assert_eq!(origin.requests().len(), 3);
    for request in origin.requests() {
        assert_eq!(request.head.field("x-forwarded-for"), Some("192.0.2.7"));
    }
}

#[test]
fn hashes_go_by_the_client_that_is_told() {
    let balance = "balance = { policy = \"maglev\", key = \"client\" }";
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    for listener in [FROM.to_owned(), tcp(FROM)] {
        let proxy = Proxy::start(&config(&[a.addr(), b.addr()], &listener, balance));
        // Where a client of the address `n` gets, by way of the proxy at `from`.
        let place = |n: u8, from: [u8; 4]| {
            let mut client = Client::connect_from(IpAddr::from(from), proxy.addr());
            let told = format!("PROXY TCP4 192.0.2.{n} 198.51.100.1 1 443\r\n");
            client.send([told.as_bytes(), ASK].concat());
            client.response().text()
        };
        let mut at_a = 0;
        for n in 1..=16 {
            let first = place(n, [127, 0, 0, 1]);
            assert_eq!(place(n, [127, 0, 0, 2]), first, "by another proxy");
            at_a += usize::from(first == "a");
        }
        assert!((1..16).contains(&at_a), "{at_a} of 16");
    }
}

#[test]
fn rates_go_by_the_client_that_is_told() {
    let endpoint = Endpoint::new();
    let rate = "rate_limit = { key = \"client\", rate = 1, per = \"1h\", burst = 1 }";
    let listener = tcp(&format!("{FROM}\n{rate}"));
    let proxy = Proxy::start(&config(&[endpoint.addr()], &listener, ""));
    for n in [1, 2] {
        let told = format!("PROXY TCP4 192.0.2.{n} 198.51.100.1 1 443\r\n");
        let mut first = End::connect(proxy.addr());
        first.send(&told);
        first.talks_to(&mut endpoint.accept());
        let mut second = End::connect(proxy.addr());
        second.send(&told);
        assert_eq!(second.next(), Came::Reset);
    }
    assert!(endpoint.is_quiet());
}

// === told to endpoints ===

#[test]
fn endpoints_are_told_who_the_client_is() {
    for (listener, version) in [("", "v1"), ("", "v2"), (&tcp(""), "v1"), (&tcp(""), "v2")] {
        let endpoint = Endpoint::new();
        let upstream = format!("send_proxy_protocol = \"{version}\"");
        let proxy = Proxy::start(&config(&[endpoint.addr()], listener, &upstream));
        let from = IpAddr::from([127, 0, 0, 9]);
        let mut client = Client::connect_from(from, proxy.addr());
        client.send(ASK);
        let mut server = endpoint.accept();
        let told = told(&mut server);
        assert_eq!(told.version, version);
        assert_eq!(told.source, Some(client.local_addr()));
        assert_eq!(told.destination, Some(proxy.addr()));
        // Of version 2 with a checksum, and nothing else: it is no TLS.
        assert!(told.tlvs.is_empty(), "{told:?}");
        assert!(head(&mut server).starts_with("GET / HTTP/1.1\r\n"));
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.response().text(), "ok");
    }
}

#[test]
fn a_connection_that_waits_for_its_endpoint_to_speak_is_told_of_at_once() {
    let endpoint = Endpoint::new();
    let upstream = "send_proxy_protocol = \"v2\"";
    let proxy = Proxy::start(&config(&[endpoint.addr()], &tcp(""), upstream));
    let (mut client, mut server) = endpoint.join(&proxy);
    let told = told(&mut server);
    assert_eq!(told.source, Some(client.0.local_addr().unwrap()));
    server.send("220 ready\r\n");
    assert_eq!(client.exactly(11), b"220 ready\r\n");
    client.talks_to(&mut server);
}

#[test]
fn what_was_told_is_told_on() {
    let ssl = b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x06client";
    let kept: [(u8, &[u8]); 6] = [
        (0x01, b"h2"),
        (0x02, b"a.example"),
        (0x05, b"\0\x01id"),
        (0x20, ssl),
        (0xe1, b"ours"),
        (0xe1, b""),
    ];
    let dropped: [(u8, &[u8]); 2] = [(0x04, b"padding"), (0x30, b"namespace")];
    let header = checked(0x21, 0x21, INET6, &[&dropped[..], &kept].concat());
    for listener in [FROM.to_owned(), tcp(FROM)] {
        for version in ["v1", "v2"] {
            let endpoint = Endpoint::new();
            let upstream = format!("send_proxy_protocol = \"{version}\"");
            let proxy = Proxy::start(&config(&[endpoint.addr()], &listener, &upstream));
            let mut client = Client::connect(proxy.addr());
            client.send([&header[..], ASK].concat());
            let mut server = endpoint.accept();
            let told = told(&mut server);
            assert_eq!(told.source, Some("[2001:db8::7]:4711".parse().unwrap()));
            assert_eq!(told.destination, Some("[2001:db8::1]:443".parse().unwrap()));
            let kept: Vec<_> = kept.iter().map(|(k, v)| (*k, v.to_vec())).collect();
            let wanted = if version == "v2" { kept } else { Vec::new() };
            assert_eq!(told.tlvs, wanted);
            assert!(head(&mut server).starts_with("GET / "));
        }
    }
}

#[test]
fn endpoints_are_told_of_the_tls_that_ends_here() {
    let ca = Ca::new();
    for listener in [String::new(), tcp("")] {
        let endpoint = Endpoint::new();
        let listener = format!("{listener}\n{}", listener_tls(&[&ca.server()], ""));
        let upstream = "send_proxy_protocol = \"v2\"";
        let proxy = Proxy::start(&config(&[endpoint.addr()], &listener, upstream));
        let offer = Offer::of(&ca, crate::support::tls::V13);
        let mut client = Client::secure(proxy.addr(), &offer, "localhost");
        client.send(ASK);
        let mut server = endpoint.accept();
        let told = told(&mut server);
        assert_eq!(told.source, Some(client.local_addr()));
        let ssl = told.tlv(0x20).expect("a TLV about TLS");
        // The client speaks TLS, and has no certificate that could be verified.
        assert_eq!(ssl[0], 0x01);
        assert_ne!(ssl[1..5], [0; 4]);
        assert_eq!(ssl[5..15], *b"\x21\0\x07TLSv1.3");
        assert!(head(&mut server).starts_with("GET / "));
    }
}

/// An endpoint that answers each request with all that its connection tells.
fn teller() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut end = End::new(stream);
                let told = told(&mut end);
                let mut who = told.source.unwrap().to_string();
                for (kind, value) in told.tlvs {
                    who += &format!(" {kind:#x}={}", value.escape_ascii());
                }
                let mut asked = Vec::new();
                while let Came::Bytes(more) = end.next() {
                    asked.extend(more);
                    if asked.ends_with(b"\r\n\r\n") {
                        end.send(origin::response(200, &who));
                        asked.clear();
                    }
                }
            });
        }
    });
    addr
}

#[test]
fn streams_tell_of_the_connection_that_carries_them() {
    let identity = Identity::new();
    let listener = identity.listener();
    let upstream = "send_proxy_protocol = \"v2\"";
    for from in ["", FROM] {
        let proxy = Proxy::start(&config(
            &[teller()],
            &format!("{listener}\n{from}"),
            upstream,
        ));
        let addr = proxy.addr();
        h2::run(async {
            let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
            let mut who = stream.local_addr().unwrap().to_string();
            if !from.is_empty() {
                let header = checked(0x21, 0x11, INET, &[(0x05, b"id")]);
                tokio::io::AsyncWriteExt::write_all(&mut stream, &header)
                    .await
                    .unwrap();
                who = "192.0.2.7:4711 0x5=id".to_owned();
            }
            let client = H2Client::over_tls(stream, &identity).await;
            for _ in 0..2 {
                let told = String::from_utf8(client.get("/").await.body).unwrap();
                let ssl = "0x1=h2 0x20=\\x01\\x00\\x00\\x00\\x01!\\x00\\x07TLSv1.3#\\x00";
                assert!(told.starts_with(&format!("{who} {ssl}")), "{told}");
            }
        });
    }
}

#[test]
fn a_connection_that_tells_of_one_client_serves_no_other() {
    for version in ["v1", "v2"] {
        let upstream = format!("send_proxy_protocol = \"{version}\"");
        let proxy = Proxy::start(&config(&[teller()], "", &upstream));
        let mut clients =
            [5, 6, 6].map(|n| Client::connect_from(IpAddr::from([127, 0, 0, n]), proxy.addr()));
        for _ in 0..4 {
            for client in &mut clients {
                let response = client.request("GET", "/");
                assert_eq!(response.text(), client.local_addr().to_string());
            }
        }
    }
}

#[test]
fn the_header_goes_before_tls_to_the_endpoint() {
    let endpoint = Endpoint::new();
    let upstream = "send_proxy_protocol = \"v1\"\ntls = { insecure = true }";
    let proxy = Proxy::start(&config(&[endpoint.addr()], "", upstream));
    let mut client = Client::connect(proxy.addr());
    client.send(ASK);
    let mut server = endpoint.accept();
    assert_eq!(told(&mut server).source, Some(client.local_addr()));
    assert_eq!(server.exactly(3)[..2], [0x16, 3]);
}

#[test]
fn each_attempt_tells_it_anew() {
    let dead = Refusing::new();
    let endpoint = Endpoint::new();
    let upstream = "send_proxy_protocol = \"v2\"\noutlier = \"off\"\nbalance = \"round_robin\"";
    for listener in [String::new(), tcp("")] {
        let proxy = Proxy::start(&config(&[dead.addr, endpoint.addr()], &listener, upstream));
        for _ in 0..2 {
            let mut client = Client::connect(proxy.addr());
            client.send(ASK);
            let mut server = endpoint.accept();
            assert_eq!(told(&mut server).source, Some(client.local_addr()));
            assert!(head(&mut server).starts_with("GET / "));
        }
    }
}

#[test]
fn checks_say_that_they_are_checks() {
    let check = "check = \"http\", interval = \"50ms\", timeout = \"50ms\"";
    for version in ["v1", "v2"] {
        let (endpoint, other) = (Endpoint::new(), Endpoint::new());
        let upstream = format!("send_proxy_protocol = \"{version}\"\nhealth = {{ {check} }}");
        let proxy = Proxy::start(&config(&[endpoint.addr()], "", &upstream));
        let mut server = endpoint.accept();
        let told = told(&mut server);
        assert_eq!((told.version, told.source), (version, None));
        assert!(head(&mut server).starts_with("GET / HTTP/1.1\r\n"));
        drop(proxy);
        // What listens at another port is another server.
        let port = other.addr().port();
        let upstream =
            format!("send_proxy_protocol = \"{version}\"\nhealth = {{ {check}, port = {port} }}");
        let _proxy = Proxy::start(&config(&[endpoint.addr()], "", &upstream));
        assert!(head(&mut other.accept()).starts_with("GET / HTTP/1.1\r\n"));
    }
}
