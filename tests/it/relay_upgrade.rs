//! Tunnels: what is spoken after a 101.

use crate::support::binary::Binary;
use crate::support::client::Client;
use crate::support::eventually::{eventually, stalled};
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step, pattern};
use crate::support::proxy::Proxy;
use crate::support::wire::Broken;

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n";

fn answer(then: impl IntoIterator<Item = Step>) -> Vec<Step> {
    let first = Step::Send(ANSWER.into());
    std::iter::once(first).chain(then).collect()
}

/// A client whose upgrade was granted.
#[track_caller]
fn upgraded(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy.addr());
    client.send(ASK);
    assert_eq!(client.head().status(), 101);
    client
}

#[test]
fn upgrade_and_its_answer_pass_with_their_fields() {
    let origin = Origin::always(answer([Step::Echo]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send(ASK);
    let head = client.head();
    assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(
        head.field("connection").map(str::to_lowercase).as_deref(),
        Some("upgrade")
    );
    assert_eq!(head.field("sec-websocket-accept"), Some("a"));
    let asked = &origin.requests()[0].head;
    assert_eq!(asked.field("upgrade"), Some("websocket"));
    assert_eq!(
        asked.field("connection").map(str::to_lowercase).as_deref(),
        Some("upgrade")
    );
    assert_eq!(asked.field("sec-websocket-key"), Some("k"));
    for n in 0..5 {
        let text = format!("ping {n}");
        client.send(&text);
        assert_eq!(client.exactly(text.len()), text.as_bytes());
    }
}

#[test]
fn tunnels_are_counted_while_they_last() {
    let origin = Origin::always(answer([Step::Echo]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let clients: Vec<_> = (0..3).map(|_| upgraded(&proxy)).collect();
    eventually("three tunnels", || {
        (proxy.metric("isobar_tunnels") - 3.0).abs() < 0.1
    });
    drop(clients);
    eventually("no tunnel", || proxy.metric("isobar_tunnels") < 0.1);
    assert!((proxy.metric("isobar_tunnels_opened_total") - 3.0).abs() < 0.1);
    origin.await_open(0);
}

#[test]
fn bytes_sent_early_by_either_side_are_not_lost() {
    let origin = Origin::always(vec![
        Step::Send([ANSWER.as_bytes(), b"early from the endpoint"].concat()),
        Step::Echo,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    // With the head, and more of it than the buffer for heads holds.
    for size in [5, 100_000] {
        let mut client = Client::connect(proxy.addr());
        client.send([ASK.as_bytes(), &pattern(0, size)].concat());
        assert_eq!(client.head().status(), 101);
        assert_eq!(client.exactly(23), b"early from the endpoint");
        assert!(client.exactly(size) == pattern(0, size));
        client.send("late");
        assert_eq!(client.exactly(4), b"late");
    }
}

#[test]
fn request_s_body_is_no_part_of_the_tunnel() {
    let origin = Origin::always(
        std::iter::once(Step::ReadBody)
            .chain(answer([Step::Echo]))
            .collect(),
    );
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 4\r\n\r\n\
         bodyearly",
    );
    assert_eq!(client.head().status(), 101);
    client.send("late");
    client.finish();
    assert_eq!(client.read_to_end(), b"earlylate");
    let seen = origin.await_done(0);
    assert_eq!(
        (seen.body.data, seen.rest),
        (b"body".to_vec(), b"earlylate".to_vec())
    );
}

#[test]
fn either_direction_may_end_first() {
    // The client first: what the endpoint still says arrives.
    let origin = Origin::always(answer([Step::ReadSome(4), Step::AwaitClose]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = upgraded(&proxy);
    client.send("ping");
    client.send("more");
    client.finish();
    assert_eq!(origin.await_done(0).rest, b"more");
    assert_eq!(client.read_to_end(), b"");

    let gate = Gate::new();
    let origin = Origin::always(answer([
        Step::Send(b"goodbye".to_vec()),
        Step::Finish,
        Step::Pass(gate.clone()),
        Step::AwaitClose,
    ]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = upgraded(&proxy);
    assert_eq!(client.read_to_end(), b"goodbye");
    client.send("I heard");
    client.finish();
    gate.open();
    assert_eq!(origin.await_done(0).rest, b"I heard");
}

#[test]
fn endpoint_that_closes_is_heard_to_its_last_byte() {
    // It says something and closes; the client, slow to read, says something meanwhile, which the
    // endpoint's system answers with a reset. All of it fits the proxy's receive buffer (a reset
    // that overtakes bytes on the wire loses them, and nobody could help it) and not the client's.
    // Twenty times: the client's second word must find the first one's reset.
    for _ in 0..20 {
        let size = 50_000;
        let origin = Origin::always(answer([Step::Fill(size), Step::Close]));
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect_narrow(proxy.addr());
        client.send(ASK);
        eventually("the endpoint to have closed", || {
            origin.accepted() == 1 && origin.open() == 0
        });
        client.send("a");
        client.send("b");
        assert_eq!(client.head().status(), 101);
        assert!(client.exactly(size) == pattern(0, size));
        client.expect_closed_after_sending("c");
    }
}

#[test]
fn reset_of_either_side_resets_the_other() {
    let origin = Origin::always(answer([Step::ReadSome(1), Step::Reset]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = upgraded(&proxy);
    client.send("x");
    assert_eq!(client.broken(), Broken::Reset);

    let origin = Origin::always(answer([Step::ReadSome(1), Step::AwaitClose]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = upgraded(&proxy);
    client.send("x");
    client.reset();
    assert_eq!(origin.await_done(0).broken, Some(Broken::Reset));
    eventually("no tunnel", || proxy.metric("isobar_tunnels") < 0.1);
}

#[test]
fn much_goes_through_both_ways_at_once() {
    let size = 30_000_000;
    let origin = Origin::always(answer([Step::Echo]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = upgraded(&proxy);
    let mut writing = client.stream().try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        writing.write_all(&pattern(0, size)).is_ok()
    });
    assert!(client.exactly(size) == pattern(0, size));
    assert_eq!(writer.join().ok(), Some(true));
    client.finish();
    assert_eq!(client.read_to_end(), b"");
    origin.await_open(0);
}

#[test]
fn tunnel_waits_for_a_slow_reader() {
    let size = 64 << 20;
    let origin = Origin::always(answer([Step::Fill(size), Step::Close]));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect_narrow(proxy.addr());
    client.send(ASK);
    assert_eq!(client.head().status(), 101);
    let held = stalled("the endpoint to be blocked", || origin.requests()[0].filled);
    // As in relay_duplex: what kernels and a pipe hold.
    assert!(held < 48 << 20, "{held} bytes lie between");
    assert!(client.read_to_end() == pattern(0, size));
}

/// How many of the process's descriptors are ends of pipes.
fn pipe_ends(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

#[test]
fn idle_tunnels_hold_no_pipes() {
    let origin = Origin::always(answer([Step::Echo]));
    // A process of its own, whose descriptors can be counted, on an address that no other test
    // uses: a port that was free there stays free.
    let free = std::net::TcpListener::bind("127.77.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let isobar = Binary::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"{addr}\"\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        origin.addr()
    ));
    eventually("isobar to listen", || Client::try_connect(addr).is_ok());
    let before = pipe_ends(isobar.pid());
    let size = 300_000;
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let mut client = Client::connect(addr);
            client.send(ASK);
            assert_eq!(client.head().status(), 101);
            client.send(pattern(0, size));
            assert!(client.exactly(size) == pattern(0, size));
            client
        })
        .collect();
    // 16 are kept for whoever comes next; each of the 120 directions had one.
    eventually("pipes to be given back", || {
        pipe_ends(isobar.pid()) <= before + 2 * 16
    });
    drop(clients);
}

#[test]
fn refused_upgrade_leaves_the_client_s_connection_open() {
    let origin = Origin::start(|r| match r.head.target() {
        "/ws" => origin::reply(403, "no"),
        _ => origin::reply(200, "next"),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send(ASK);
    let response = client.response();
    assert_eq!((response.status(), response.text().as_str()), (403, "no"));
    assert_eq!(response.field("upgrade"), None);
    assert_eq!(client.request("GET", "/next").text(), "next");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn unasked_101_is_a_502() {
    for ask in [
        "GET / HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\n\r\n",
    ] {
        let origin = Origin::start(|r| match r.head.target() {
            "/" => answer([Step::AwaitClose]),
            _ => origin::reply(200, "next"),
        });
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        client.send(ask);
        let response = client.response();
        assert_eq!(response.status(), 502);
        assert!(
            response
                .field("proxy-status")
                .unwrap()
                .contains("upgrade_refused")
        );
        assert_eq!(client.request("GET", "/next").text(), "next");
        assert_eq!(origin.accepted(), 2);
    }
}

#[test]
fn http_1_0_client_cannot_upgrade() {
    let origin = Origin::named("plain");
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    assert_eq!(origin.requests()[0].head.field("upgrade"), None);
}

#[test]
fn tunnel_ends_when_the_drain_s_grace_is_over() {
    let origin = Origin::always(answer([Step::Echo]));
    let config = Proxy::config_over(&[origin.addr()], "")
        .replace("workers = 1", "workers = 1\ngrace = \"300ms\"");
    let proxy = Proxy::start(&config);
    let mut client = upgraded(&proxy);
    client.send("a");
    assert_eq!(client.exactly(1), b"a");
    let stop = std::thread::spawn(move || proxy.shutdown());
    // It goes on while the drain lasts.
    client.send("b");
    assert_eq!(client.exactly(1), b"b");
    client.expect_closed();
    origin.await_open(0);
    assert!(stop.join().is_ok());
}
