//! Endpoints and clients of TCP that die, at the worst of times.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::child::Server;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::origin::pattern;
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, End, Endpoint};
use crate::support::{need, now};

/// One listener `web` over one endpoint; `listener` and `upstream` are further lines of theirs.
fn over(endpoint: SocketAddr, listener: &str, upstream: &str) -> Proxy {
    Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream = 'app'\n{listener}\n\
         [upstreams.app]\nendpoints = ['{endpoint}']\n{upstream}\n"
    ))
}

fn flows(proxy: &Proxy, outcome: &str) -> f64 {
    let name = "isobar_listener_flows_total";
    proxy.metric(&format!("{name}{{listener=\"web\",outcome=\"{outcome}\"}}"))
}

/// Waits until its sender is told that nobody is there.
fn sends_until_it_fails(end: &mut End) {
    let block = pattern(0, 64 * 1024);
    let error = loop {
        if let Err(error) = end.0.write_all(&block) {
            break error.kind();
        }
    };
    assert!(
        matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{error}"
    );
}

#[test]
fn a_killed_endpoint_ends_its_connections_and_serves_again_after() {
    let mut server = Server::start("one");
    let proxy = over(server.addr(), "", "outlier = 'off'");
    let mut client = Client::connect(proxy.addr());
    client.send("GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping");
    server.kill();
    client.expect_closed();
    End::connect_to_be_reset(proxy.addr());
    server.restart();
    assert_eq!(Client::get(proxy.addr(), "/").text(), "one");
    drop(client);
    eventually("no connection", || proxy.connections() == [0]);
}

#[test]
fn an_endpoint_learns_that_its_client_was_killed() {
    let Some(bash) = need("bash") else { return };
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "");
    let port = proxy.addr().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; exec cat <&3");
    let client = Tool::start(&bash, &["-c", &script]);
    let mut server = endpoint.accept();
    assert_eq!(server.exactly(6), b"hello\n");
    server.send(pattern(0, 1 << 20));
    // SIGKILL.
    drop(client);
    sends_until_it_fails(&mut server);
    eventually("its record", || flows(&proxy, "cancelled") == 1.0);
}

/// A client that still sends must not cost what its endpoint said before it went. Seen red: the write
/// that failed was seen first, and what lay there unread was lost.
#[test]
fn the_last_words_of_an_endpoint_that_resets_reach_a_client_that_still_sends() {
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "outlier = 'off'");
    let words = pattern(0, 4096);
    for n in 0..50 {
        let (mut client, mut server) = endpoint.join(&proxy);
        client.talks_to(&mut server);
        let mut sender = End(client.0.try_clone().unwrap());
        let sending = std::thread::spawn(move || {
            let block = [0; 1024];
            while sender.0.write_all(&block).is_ok() {}
        });
        // What it does not read makes its end a reset.
        assert_eq!(server.exactly(8192).len(), 8192);
        server.send(&words);
        assert_eq!(server.0.peek(&mut [0]).unwrap(), 1);
        drop(server);
        let mut received = Vec::new();
        while let Came::Bytes(bytes) = client.next() {
            received.extend(bytes);
        }
        assert_eq!(received.len(), words.len(), "{n}");
        sending.join().unwrap();
    }
}

#[test]
fn the_last_words_of_a_client_that_resets_reach_its_endpoint() {
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "");
    let words = pattern(0, 100_000);
    for n in 0..50 {
        let (mut client, mut server) = endpoint.join(&proxy);
        client.send(&words);
        assert!(server.exactly(words.len() - 1) == words[..words.len() - 1]);
        client.reset();
        assert_eq!(
            server.next(),
            Came::Bytes(words[words.len() - 1..].to_vec()),
            "{n}"
        );
        assert_eq!(server.next(), Came::Reset, "{n}");
    }
    eventually("their records", || flows(&proxy, "cancelled") == 50.0);
}

#[test]
fn an_endpoint_that_hangs_up_at_once_is_passed_on() {
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "");
    for _ in 0..50 {
        let (mut client, server) = endpoint.join(&proxy);
        drop(server);
        assert_eq!(client.next(), Came::End);
        // It may say what it likes: nobody hears it, and it is not harmed by that.
        let _ = client.0.write_all(b"hello?");
    }
    eventually("no connection", || proxy.connections() == [0]);
    eventually("their records", || flows(&proxy, "ok") == 50.0);
}

#[test]
fn sessions_without_a_byte_in_either_direction_are_whole() {
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "");
    for n in 0..60 {
        let (mut client, mut server) = endpoint.join(&proxy);
        let is_client_first = n % 2 == 0;
        let (first, second) = if is_client_first {
            (&mut client, &mut server)
        } else {
            (&mut server, &mut client)
        };
        first.end();
        assert_eq!(second.next(), Came::End);
        // Nothing at all, or all in one direction.
        if n % 3 > 0 {
            second.send("words");
        }
        second.end();
        let expected: &[u8] = if n % 3 > 0 { b"words" } else { b"" };
        assert_eq!(first.read_to_end(), expected);
    }
    eventually("their records", || flows(&proxy, "ok") == 60.0);
    eventually("no connection", || proxy.connections() == [0]);
}

/// It has said that it will say no more, so nobody waits for its word. Seen red: only a time-out of
/// minutes told.
#[test]
fn a_reset_after_an_end_is_noticed_though_the_other_side_is_silent() {
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "");
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    client.end();
    assert_eq!(server.next(), Came::End);
    client.reset();
    eventually("the client's record", || flows(&proxy, "cancelled") == 1.0);
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    server.end();
    assert_eq!(client.next(), Came::End);
    server.reset();
    assert_eq!(proxy.connections(), [1]);
    eventually("the endpoint's record", || flows(&proxy, "ok") == 1.0);
    client.end();
    eventually("no connection", || proxy.connections() == [0]);
}

/// And one that only ends its direction keeps its time.
#[test]
fn an_end_alone_is_no_death() {
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "");
    let (mut client, mut server) = endpoint.join(&proxy);
    client.end();
    assert_eq!(server.next(), Came::End);
    let end = now() + Duration::from_millis(3500);
    eventually("time passes", || now() >= end);
    server.send("answer");
    assert_eq!(client.exactly(6), b"answer");
    server.end();
    assert_eq!(client.next(), Came::End);
}

#[test]
fn a_client_that_left_while_its_endpoint_speaks_is_told_of() {
    let endpoint = Endpoint::new();
    let proxy = over(endpoint.addr(), "", "");
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    drop(client);
    assert_eq!(server.next(), Came::End);
    sends_until_it_fails(&mut server);
    eventually("its record", || flows(&proxy, "cancelled") == 1.0);
}
