//! Datagrams of those who mean no good, and reloads that once lost flows.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a stop takes, and how many seconds have lines, is told by the clock"
)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::eventually::eventually;
use crate::support::proxy::Proxy;
use crate::support::udp::{UdpClient, UdpOrigin};
use crate::support::{deadline, now};

/// A listener `web` of UDP in front of this endpoint; `listener` is further lines of it.
fn config(endpoint: SocketAddr, listener: &str) -> String {
    format!(
        "[process]\nworkers = 1\ngrace = \"0s\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [listeners.web]\nprotocol = \"udp\"\nupstream = \"app\"\n{listener}\n\
         [upstreams.app]\nendpoints = [\"{endpoint}\"]\n"
    )
}

/// Answers each datagram once, and "end" with more answers than are due.
fn ending() -> UdpOrigin {
    UdpOrigin::start(|data| {
        let n = if data == b"end" { 9 } else { 1 };
        vec![data.to_vec(); n]
    })
}

const ONE: &str = "bind = \"127.0.0.1:0\"";

fn of_web(proxy: &Proxy, family: &str, reason: &str) -> f64 {
    proxy.metric(&format!("{family}{{listener=\"web\",reason=\"{reason}\"}}"))
}

/// An address that comes back while its flows drain once cut the whole listener, at its other addresses and for
/// good.
#[test]
fn a_listener_may_take_back_one_of_its_addresses() {
    let origin = UdpOrigin::named("a");
    let bound = |more: &str| {
        let binds = format!("bind = [\"127.0.0.1:0\"{more}]");
        config(origin.addr(), &binds)
    };
    let proxy = Proxy::start(&bound(", \"127.0.0.76:0\""));
    let addrs = proxy.listeners("web");
    let clients = [UdpClient::new(addrs[0]), UdpClient::new(addrs[1])];
    for client in &clients {
        assert_eq!(client.ask("x"), "a:x");
    }
    proxy.reload(&bound(""));
    assert_eq!(clients[1].ask("x"), "a:x");
    // Its port at another address is in nobody's way.
    let port = addrs[1].port();
    proxy.reload(&bound(&format!(", \"127.0.0.77:{port}\"")));
    for client in &clients {
        assert_eq!(client.ask("x"), "a:x");
    }
    proxy.reload(&bound(&format!(", \"127.0.0.76:{port}\"")));
    assert_eq!(clients[0].ask("x"), "a:x");
    assert_eq!(UdpClient::new(addrs[0]).ask("y"), "a:y");
    assert_eq!(clients[1].ask_until_answered("x"), "a:x");
    assert_eq!(UdpClient::new(addrs[1]).ask_until_answered("y"), "a:y");
}

/// Each address has a table of its own.
#[test]
fn the_addresses_of_a_listener_share_its_flows() {
    let origin = UdpOrigin::named("a");
    let more = "bind = [\"127.0.0.1:0\", \"127.0.0.78:0\"]\nmax_flows = 20";
    let proxy = Proxy::start(&config(origin.addr(), more));
    let addrs = proxy.listeners("web");
    for addr in &addrs {
        for _ in 0..30 {
            assert_eq!(UdpClient::new(*addr).ask("x"), "a:x");
        }
    }
    assert_eq!(proxy.metric("isobar_udp_flows{listener=\"web\"}"), 20.0);
}

/// The flows of before were forgotten, and counted as open for ever: a stop waited for them.
#[test]
fn flows_end_by_what_they_began_with_when_their_listener_speaks_tcp() {
    let origin = ending();
    let config = |more: &str| {
        let toml = config(origin.addr(), &format!("{ONE}\n{more}"));
        toml.replace("grace = \"0s\"", "grace = \"1m\"")
    };
    let proxy = Proxy::start(&config("responses = 2\ngrace = \"1m\""));
    let client = UdpClient::new(proxy.addr());
    assert_eq!(client.ask("x"), "x");
    let tcp = config("grace = \"1m\"").replace("\"udp\"", "\"tcp\"");
    proxy.reload(&tcp);
    assert_eq!(client.ask("y"), "y");
    client.send("end");
    assert_eq!(client.receive(), "end");
    let started = Instant::now();
    proxy.shutdown();
    assert!(started.elapsed() < Duration::from_secs(50));
}

/// One datagram with a known connection id and a forged source had all answers go there.
#[test]
fn who_knows_a_connection_id_gets_no_answers_but_his_own() {
    // A packet of QUIC with a long header, and one with a short one.
    let long = |destination: &[u8], source: &[u8]| {
        let mut packet = vec![0xc3, 0, 0, 0, 1, destination.len() as u8];
        packet.extend(destination);
        packet.push(source.len() as u8);
        packet.extend(source);
        packet
    };
    let short = |text: &[u8]| [&[0x41], &b"server-a"[..], text].concat();
    let origin = UdpOrigin::start(move |data| match data {
        [0x80..=0xff, ..] => vec![long(b"client", b"server-a")],
        [.., b'!'] => vec![vec![b'A'; 1000]],
        _ => vec![b"a".to_vec()],
    });
    let proxy = Proxy::start(&config(origin.addr(), &format!("{ONE}\nflow = \"quic\"")));
    let client = UdpClient::new(proxy.addr());
    client.send(long(b"first id", b"client"));
    client.receive_from();
    // Somebody else: more than three times what he has sent does not go there.
    let other = UdpClient::new(proxy.addr());
    other.send(short(b"!"));
    let family = "isobar_udp_dropped_datagrams_total";
    eventually("an answer to be dropped", || {
        of_web(&proxy, family, "refused") == 1.0
    });
    // The client has its own meanwhile.
    client.send(short(b"!"));
    assert_eq!(client.receive().len(), 1000);
    assert_eq!(origin.senders().len(), 2, "another path for the endpoint");
    // Who speaks again after an answer is there.
    other.send(short(b"?"));
    assert_eq!(other.receive(), "a");
    other.send(short(b"!"));
    assert_eq!(other.receive().len(), 1000);
    client.send(short(b"!"));
    assert_eq!(client.receive().len(), 1000);
    assert_eq!(origin.senders().len(), 2);
    assert_eq!(proxy.metric("isobar_udp_flows{listener=\"web\"}"), 1.0);
}

/// Each datagram of a forged source is a flow, and was a line.
#[test]
fn a_flood_of_sources_does_not_fill_the_log() {
    const FLOWS: usize = 300;
    let origin = UdpOrigin::named("a");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = format!(
        "[log.access]\nformat = \"json\"\nto = \"{}\"\n",
        path.display()
    );
    let listener = format!("{ONE}\nmax_flows = 1");
    let toml = config(origin.addr(), &listener);
    let started = Instant::now();
    let proxy = Proxy::start(&format!("{toml}{log}"));
    let clients = UdpClient::many(FLOWS, proxy.addr());
    for client in &clients {
        assert_eq!(client.ask("x"), "a:x");
    }
    let ended = of_web(&proxy, "isobar_udp_flow_ends_total", "client_limit");
    assert_eq!(ended, (FLOWS - 1) as f64, "all are counted");
    proxy.shutdown();
    let seconds = started.elapsed().as_secs() as usize;
    let lines = std::fs::read_to_string(&path).unwrap().lines().count();
    // Ten in each second that it took part of; the last flow ends with the process.
    assert!(
        lines <= 10 * (seconds + 2) + 1,
        "{lines} lines in {seconds} s"
    );
    assert!(lines > 0);
}

/// Once a worker had no flow left it closed its socket, and the kernel spread the datagrams of the others anew.
#[test]
fn flows_of_an_address_that_goes_are_served_while_others_end() {
    let origin = ending();
    let config = |bind: &str| {
        let listener = format!("bind = [\"127.0.0.1:0\"{bind}]\nresponses = 2");
        config(origin.addr(), &listener).replace("workers = 1", "workers = 4")
    };
    let proxy = Proxy::start(&config(", \"127.0.0.80:0\""));
    let going = proxy.listeners("web")[1];
    let clients = UdpClient::many(40, going);
    for client in &clients {
        assert_eq!(client.ask("x"), "x");
    }
    let seen = origin.seen();
    proxy.reload(&config(""));
    let (stay, go) = clients.split_at(3);
    for client in go {
        assert_eq!(client.ask("end"), "end");
    }
    let flows = "isobar_udp_flows{listener=\"web\"}";
    eventually("the others to end", || proxy.metric(flows) == 3.0);
    for _ in 0..20 {
        for (n, client) in stay.iter().enumerate() {
            assert_eq!(client.ask("y"), "y");
            let last = origin.seen().last().unwrap().0;
            assert_eq!(last, seen[n].0, "the same flow");
        }
    }
}

/// With 17 to 32 flows that all had many answers waiting, those behind the sixteenth had none, ever.
#[test]
fn answers_of_all_flows_have_their_turn() {
    const FLOWS: usize = 24;
    let feed = UdpSocket::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(&config(feed.local_addr().unwrap(), ONE));
    let clients = UdpClient::many(FLOWS, proxy.addr());
    let begun = clients.iter().map(|client| {
        client.send("more");
        feed.recv_from(&mut [0; 9]).unwrap().1
    });
    let flows: Vec<SocketAddr> = begun.collect();
    for client in &clients {
        client.socket.set_nonblocking(true).unwrap();
    }
    let (is_over, end) = (AtomicBool::new(false), deadline());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && now() < end {
                    for flow in &flows {
                        let _ = feed.send_to(b"answer", flow);
                    }
                }
            });
        }
        let mut heard = [0; FLOWS];
        eventually("so many answers", || {
            for (client, heard) in clients.iter().zip(&mut heard) {
                *heard += std::iter::from_fn(|| client.socket.recv(&mut [0; 9]).ok()).count();
            }
            heard.iter().sum::<usize>() > 1000 * FLOWS
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(heard.iter().all(|n| *n > 250), "{heard:?}");
    });
}

/// An endpoint that never answers kept a breaker half open for ever, once that had opened.
#[test]
fn a_breaker_closes_over_endpoints_that_never_answer() {
    let silent = || UdpOrigin::at("127.0.0.81:0".parse().unwrap(), |_| Vec::new());
    let addr = silent().addr();
    let breaker = "outlier = \"off\"\nbreaker = { failure_ratio = \"50%\", min_requests = 2, window = \"2s\", \
                   open_for = \"3s\" }";
    let proxy = Proxy::start(&format!("{}\n{breaker}\n", config(addr, ONE)));
    let state = "isobar_upstream_breaker_state{upstream=\"app\"}";
    eventually("it opens", || {
        UdpClient::new(proxy.addr()).send("x");
        proxy.metric(state) != 0.0
    });
    let back = UdpOrigin::at(addr, |_| Vec::new());
    let clients = UdpClient::many(5, proxy.addr());
    eventually("it closes", || {
        for client in &clients {
            client.send("x");
        }
        proxy.metric(state) == 0.0
    });
    assert!(!back.seen().is_empty());
}
