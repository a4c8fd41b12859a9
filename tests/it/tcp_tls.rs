//! TLS on connections of TCP: ended at the listener, begun towards the endpoint.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::support::certs::{Ca, listener_tls};
use crate::support::eventually::{eventually, stalled};
use crate::support::origin::pattern;
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, End, Endpoint};
use crate::support::tls::{BOTH, Offer, V12, V13, server};

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// One listener with TLS over one endpoint; `tls` are further keys of its table, each after a comma.
fn opening(ca: &Ca, endpoint: SocketAddr, tls: &str) -> Proxy {
    opening_over(ca, endpoint, tls, "")
}

/// The same; `upstream` are further lines of its table.
fn opening_over(ca: &Ca, endpoint: SocketAddr, tls: &str, upstream: &str) -> Proxy {
    Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream = 'app'\n{}\n\
         [upstreams.app]\nendpoints = ['{endpoint}']\n{upstream}\n",
        listener_tls(&[&ca.server()], tls),
    ))
}

/// A client that has agreed on TLS.
fn secure(to: SocketAddr, offer: &Offer) -> Secure {
    let name = "localhost".try_into().unwrap();
    let mut session = ClientConnection::new(offer.config.clone(), name).unwrap();
    let mut socket = End::connect(to).0;
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(session, socket)
}

/// Ends our direction: close_notify, and with it nothing else.
fn end(client: &mut Secure) {
    client.conn.send_close_notify();
    client.flush().unwrap();
}

fn exactly(from: &mut impl Read, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

fn ended(proxy: &Proxy, outcome: &str) -> f64 {
    let name = "isobar_listener_flows_total";
    proxy.metric(&format!("{name}{{listener=\"web\",outcome=\"{outcome}\"}}"))
}

#[test]
fn a_client_that_ends_its_direction_still_hears_its_endpoint() {
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let proxy = opening(&ca, endpoint.addr(), "");
    for versions in [V12, V13] {
        let offer = Offer::build(&ca).versions(versions).alpn(&[]).done();
        let mut client = secure(proxy.addr(), &offer);
        let mut server = endpoint.accept();
        client.write_all(b"question").unwrap();
        assert_eq!(server.exactly(8), b"question");
        end(&mut client);
        assert_eq!(server.next(), Came::End);
        for n in 0..3 {
            server.send(format!("answer {n}"));
            assert_eq!(exactly(&mut client, 8), format!("answer {n}").as_bytes());
        }
        server.end();
        // Clean: an end without close_notify is an error here.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    eventually("their records", || ended(&proxy, "ok") == 2.0);
}

#[test]
fn an_endpoint_that_ends_its_direction_still_hears_its_client() {
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let proxy = opening(&ca, endpoint.addr(), "");
    let mut client = secure(proxy.addr(), &Offer::build(&ca).alpn(&[]).done());
    let mut server = endpoint.accept();
    server.send("goodbye");
    server.end();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"goodbye");
    client.write_all(b"and thanks").unwrap();
    end(&mut client);
    assert_eq!(server.read_to_end(), b"and thanks");
    drop(server);
    eventually("its record", || ended(&proxy, "ok") == 1.0);
}

#[test]
fn bulk_passes_whole_both_ways() {
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let proxy = opening(&ca, endpoint.addr(), "");
    let all = pattern(0, 4 << 20);
    let mut client = secure(proxy.addr(), &Offer::build(&ca).alpn(&[]).done());
    let mut server = endpoint.accept();
    let expected = all.clone();
    let echoing = std::thread::spawn(move || {
        assert!(server.read_to_end() == expected, "other bytes");
        server.send(&expected);
        server.end();
    });
    client.write_all(&all).unwrap();
    end(&mut client);
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == all, "other bytes");
    echoing.join().unwrap();
}

/// For some of these lengths the kernel takes the last record and not the word that it was the last.
/// Not said, it would look like a cut.
#[test]
fn a_slow_reader_is_told_of_the_end_all_the_same() {
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let proxy = opening(&ca, endpoint.addr(), "");
    let offer = Offer::build(&ca).alpn(&[]).done();
    let all = pattern(0, 60 * 100_001);
    let mut flows = Vec::new();
    for n in 1..=60 {
        let length = n * 100_001;
        let client = secure(proxy.addr(), &offer);
        let mut server = endpoint.accept();
        let words = all[..length].to_vec();
        let sending = std::thread::spawn(move || {
            server.send(&words);
            server.end();
            server
        });
        flows.push((length, client, sending));
    }
    let copied = || proxy.metric("isobar_buffers_in_use") as usize + 1;
    stalled("all of them", copied);
    for (length, mut client, sending) in flows {
        let mut received = Vec::new();
        let read = client.read_to_end(&mut received);
        assert!(received == all[..length], "{length}: {}", received.len());
        assert!(read.is_ok(), "{length}: {read:?}");
        end(&mut client);
        sending.join().unwrap();
    }
}

#[test]
fn no_protocol_is_agreed_on_that_the_listener_does_not_name() {
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let offer = Offer::build(&ca).alpn(&["h2", "http/1.1"]).done();
    let silent = opening(&ca, endpoint.addr(), "");
    let client = secure(silent.addr(), &offer);
    assert_eq!(client.conn.alpn_protocol(), None);
    drop((client, endpoint.accept()));
    let named = opening(&ca, endpoint.addr(), ", alpn = ['postgresql']");
    let offer = Offer::build(&ca).alpn(&["postgresql"]).done();
    let mut client = secure(named.addr(), &offer);
    assert_eq!(client.conn.alpn_protocol(), Some(&b"postgresql"[..]));
    client.write_all(b"over").unwrap();
    assert_eq!(endpoint.accept().exactly(4), b"over");
}

#[test]
fn a_client_that_resets_is_passed_on() {
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let proxy = opening(&ca, endpoint.addr(), "");
    let client = secure(proxy.addr(), &Offer::build(&ca).alpn(&[]).done());
    let mut server = endpoint.accept();
    End(client.sock).reset();
    assert_eq!(server.next(), Came::Reset);
    let mut client = secure(proxy.addr(), &Offer::build(&ca).alpn(&[]).done());
    endpoint.accept().reset();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

// === towards endpoints ===

/// An endpoint's end of TLS, and the protocols that it was offered.
fn accept(
    endpoint: &Endpoint,
    config: &Arc<ServerConfig>,
) -> (StreamOwned<ServerConnection, TcpStream>, Option<usize>) {
    let mut socket = endpoint.accept().0;
    let mut acceptor = rustls::server::Acceptor::default();
    let accepted = loop {
        acceptor.read_tls(&mut socket).unwrap();
        if let Some(accepted) = acceptor.accept().unwrap_or_else(|(e, _)| panic!("{e}")) {
            break accepted;
        }
    };
    let offered = accepted.client_hello().alpn().map(Iterator::count);
    let session = accepted.into_connection(config.clone());
    let mut session = session.unwrap_or_else(|(e, _)| panic!("{e}"));
    while session.is_handshaking() {
        session.complete_io(&mut socket).unwrap();
    }
    (StreamOwned::new(session, socket), offered)
}

/// Seen red: it was offered `http/1.1`, and one that speaks something else hangs up on that (RFC 7301
/// section 3.2). With `protocol = "h2"` it was spoken to in HTTP/2.
#[test]
fn bytes_are_encrypted_towards_an_endpoint_and_no_protocol_is_offered() {
    let ca = Ca::new();
    let mut config = server(&ca.server(), BOTH, None);
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let config = Arc::new(config);
    for protocol in [
        "",
        "protocol = 'h1'",
        "protocol = 'h2'",
        "protocol = 'auto'",
    ] {
        let endpoint = Endpoint::new();
        let proxy = Proxy::start(&format!(
            "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
             [listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['{}']\nconnect_timeout = '20s'\n{protocol}\n\
             tls = {{ ca = '{}', server_name = 'localhost' }}\n",
            endpoint.addr(),
            ca.file.display()
        ));
        let mut client = End::connect(proxy.addr());
        let (mut server, offered) = accept(&endpoint, &config);
        assert_eq!(offered, None, "{protocol}");
        client.send("over");
        assert_eq!(exactly(&mut server, 4), b"over");
        let all = pattern(0, 1 << 20);
        let expected = all.clone();
        let reading = std::thread::spawn(move || {
            assert!(client.exactly(1 << 20) == expected, "other bytes");
            client.send("thanks");
            client.end();
            client
        });
        server.write_all(&all).unwrap();
        server.flush().unwrap();
        let mut rest = Vec::new();
        // Clean: an end without close_notify is an error here.
        server.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"thanks");
        server.write_all(b"late").unwrap();
        server.conn.send_close_notify();
        server.flush().unwrap();
        let mut client = reading.join().unwrap();
        assert_eq!(client.read_to_end(), b"late");
    }
}

/// One that only hangs up may have been cut by anybody on the way.
#[test]
fn an_endpoint_that_does_not_say_that_it_ends_is_no_end() {
    let ca = Ca::new();
    let config = Arc::new(server(&ca.server(), BOTH, None));
    let endpoint = Endpoint::new();
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{}']\nconnect_timeout = '20s'\n\
         tls = {{ ca = '{}', server_name = 'localhost' }}\n",
        endpoint.addr(),
        ca.file.display()
    ));
    let mut client = End::connect(proxy.addr());
    let (mut server, _) = accept(&endpoint, &config);
    server.write_all(b"half").unwrap();
    server.flush().unwrap();
    assert_eq!(client.exactly(4), b"half");
    drop(server);
    assert_eq!(client.next(), Came::Reset);
    eventually("its record", || ended(&proxy, "failed") == 1.0);
}

/// Nothing can be peeked at where TLS ends, and that was taken for a client that has gone: each that was to
/// wait was reset.
#[test]
fn a_full_endpoint_is_waited_for_in_line() {
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let line = "max_connections = 1\nqueue = { length = 2, timeout = '60s' }";
    let proxy = opening_over(&ca, endpoint.addr(), "", line);
    let queued = |n: f64| {
        let name = "isobar_upstream_queue_length{upstream=\"app\"}";
        eventually("so many in the line", || proxy.metric(name) == n);
    };
    for versions in [V12, V13] {
        let offer = Offer::build(&ca).versions(versions).alpn(&[]).done();
        let mut first = secure(proxy.addr(), &offer);
        let mut server = endpoint.accept();
        first.write_all(b"word").unwrap();
        assert_eq!(server.exactly(4), b"word");
        // One that has said something, and one that has said nothing and is reset.
        let mut second = secure(proxy.addr(), &offer);
        second.write_all(b"over").unwrap();
        queued(1.0);
        let third = secure(proxy.addr(), &offer);
        queued(2.0);
        End(third.sock).reset();
        queued(1.0);
        // No room is made, and nobody who waits is asked to go.
        assert!(endpoint.is_quiet());
        end(&mut first);
        server.end();
        assert_eq!(server.next(), Came::End);
        let mut server = endpoint.accept();
        assert_eq!(server.exactly(4), b"over");
        server.send("here");
        assert_eq!(exactly(&mut second, 4), b"here");
        queued(0.0);
        // The next round begins with nobody.
        end(&mut second);
        server.end();
        assert_eq!(server.next(), Came::End);
        eventually("no connection", || proxy.connections() == [0]);
    }
    assert_eq!(ended(&proxy, "refused"), 0.0);
}
