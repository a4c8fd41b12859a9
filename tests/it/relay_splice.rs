//! Large bodies move inside the kernel, and arrive as they were.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::support::client::Client;
use crate::support::eventually::{eventually, stalled};
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step, pattern};
use crate::support::proxy::Proxy;
use crate::support::wire::Broken;

const SPLICED: &str = "isobar_relayed_bytes_total{way=\"splice\"}";
const COPIED: &str = "isobar_relayed_bytes_total{way=\"copy\"}";

/// What lies behind a head in its buffer is copied; everything after it is spliced.
const COPIED_MAX: f64 = 150_000.0;

/// Waits until all of `bytes` are counted (counters follow the last byte), and returns how many of
/// them were spliced.
#[track_caller]
fn spliced(proxy: &Proxy, bytes: usize) -> f64 {
    eventually("all relayed bytes in the metrics", || {
        (proxy.metric(SPLICED) + proxy.metric(COPIED) - bytes as f64).abs() < 0.5
    });
    proxy.metric(SPLICED)
}

#[track_caller]
fn expect_spliced(proxy: &Proxy, bytes: usize) {
    let spliced = spliced(proxy, bytes);
    assert!(
        spliced > bytes as f64 - COPIED_MAX,
        "only {spliced} of {bytes} bytes were spliced"
    );
}

#[test]
fn large_downloads_are_spliced_and_leave_both_connections_usable() {
    let origin = Origin::start(|r| origin::filled(r.head.target()[1..].parse().unwrap()));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let sizes = [400_000, 5_000_001, 1 << 20, (1 << 20) + 1, 9_999_999];
    for size in sizes {
        let response = client.request("GET", &format!("/{size}"));
        assert!(response.body.data == pattern(0, size), "{size}");
    }
    assert_eq!(origin.accepted(), 1);
    let all: usize = sizes.iter().sum();
    // Each one's begin is copied.
    assert!(spliced(&proxy, all) > all as f64 - 5.0 * COPIED_MAX);
}

#[test]
fn large_uploads_are_spliced_and_leave_both_connections_usable() {
    let origin = Origin::named("ok");
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let sizes = [400_000, 5_000_001, (1 << 20) + 1];
    for (n, size) in sizes.into_iter().enumerate() {
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
        ));
        client.send(pattern(0, size));
        assert_eq!(client.response().text(), "ok");
        let seen = origin.await_done(2 * n);
        assert!(seen.body.data == pattern(0, size), "{size}");
        // (A request that must not be repeated may take a new connection.)
        assert_eq!(client.request("GET", "/").text(), "ok");
        assert_eq!(origin.requests()[2 * n + 1].connection, seen.connection);
    }
    let all: usize = sizes.iter().sum();
    // The answers' two bytes each count too.
    assert!(spliced(&proxy, all + 12) > all as f64 - 3.0 * COPIED_MAX);
}

#[test]
fn small_bodies_are_copied() {
    let origin = Origin::always(origin::filled(60_000));
    let proxy = Proxy::over(&[origin.addr()], "");
    assert!(Client::get(proxy.addr(), "/").body.data == pattern(0, 60_000));
    let spliced = spliced(&proxy, 60_000);
    assert!(spliced < 0.5, "{spliced}");
}

#[test]
fn download_in_pieces_is_spliced() {
    let (first, second) = (Gate::new(), Gate::new());
    let origin = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 600001\r\n\r\n".to_vec()),
        Step::Pass(first.clone()),
        Step::Send(pattern(0, 300_000)),
        Step::Pass(second.clone()),
        Step::Send(pattern(300_000, 300_000)),
        Step::Send(pattern(600_000, 1)),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    first.open();
    assert!(client.exactly(300_000) == pattern(0, 300_000));
    second.open();
    assert!(client.exactly(300_001) == pattern(300_000, 300_001));
    expect_spliced(&proxy, 600_001);
    assert_eq!(client.request("GET", "/").body.data.len(), 600_001);
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn upload_in_pieces_is_spliced() {
    let origin = Origin::always(vec![
        Step::ReadSome(1000),
        Step::ReadSome(399_001),
        Step::Send(origin::response(200, "ok")),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 400001\r\n\r\n");
    origin.await_requests(1);
    client.send(pattern(0, 1000));
    eventually("the first piece at the endpoint", || {
        origin.requests()[0].body.raw.len() == 1000
    });
    for at in (1000..400_001).step_by(9000) {
        client.send(pattern(at, 9000.min(400_001 - at)));
    }
    assert_eq!(client.response().text(), "ok");
    assert!(origin.await_done(0).body.raw == pattern(1000, 399_001));
}

#[test]
fn slow_readers_get_every_byte_of_a_spliced_body() {
    // A body's end waits in the pipe while its client does not read: it must not be forgotten.
    // For some of these lengths the kernel's buffers hold all but the end.
    let origin = Origin::start(|r| origin::filled(r.head.target()[1..].parse().unwrap()));
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut clients = Vec::new();
    for size in (1..=40).map(|n| n * 150_001) {
        let mut client = Client::connect_narrow(proxy.addr());
        client.send(format!("GET /{size} HTTP/1.1\r\nHost: t\r\n\r\n"));
        clients.push((size, client));
    }
    origin.await_requests(clients.len());
    stalled("the endpoints to be blocked or done", || {
        origin.requests().iter().map(|r| r.filled).sum()
    });
    for (size, mut client) in clients {
        assert_eq!(client.head().status(), 200);
        assert!(client.exactly(size) == pattern(0, size), "{size}");
        assert_eq!(client.request("GET", "/3").body.data, [0, 1, 2]);
    }
}

#[test]
fn slow_endpoint_gets_every_byte_of_a_spliced_upload() {
    let gate = Gate::new();
    let origin = Origin::always(vec![
        Step::Pass(gate.clone()),
        Step::ReadBody,
        Step::Send(origin::response(200, "ok")),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let size = 9_000_001;
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
    ));
    let mut writing = client.stream().try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&pattern(0, size)).is_ok());
    gate.await_reached(1);
    stalled("the proxy's buffers to fill", || 1);
    gate.open();
    assert_eq!(client.response().text(), "ok");
    assert_eq!(writer.join().ok(), Some(true));
    assert!(origin.await_done(0).body.data == pattern(0, size));
}

#[test]
fn endpoint_that_dies_in_mid_splice_is_seen_as_a_cut() {
    for end in [Step::Close, Step::Reset] {
        let origin = Origin::start(move |r| match r.head.target() {
            "/dies" => vec![
                Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec()),
                Step::Fill(2_000_000),
                end.clone(),
            ],
            _ => origin::filled(2_000_000),
        });
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        client.send("GET /dies HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.broken(), Broken::Reset);
        // The pipe that held its bytes poisons nobody.
        for _ in 0..3 {
            let response = Client::get(proxy.addr(), "/lives");
            assert!(response.body.data == pattern(0, 2_000_000));
        }
    }
}

#[test]
fn client_that_dies_in_mid_splice_poisons_nobody() {
    let origin = Origin::start(|r| match r.head.target() {
        "/large" => origin::filled(30_000_000),
        _ => origin::filled(2_000_000),
    });
    let proxy = Proxy::over(&[origin.addr()], "");
    for n in 0..3 {
        let mut client = Client::connect_narrow(proxy.addr());
        client.send("GET /large HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.head().status(), 200);
        client.exactly(100_000);
        client.reset();
        // Its endpoint connection goes with it.
        assert_eq!(origin.await_done(2 * n).broken, Some(Broken::Reset));
        let response = Client::get(proxy.addr(), "/next");
        assert!(response.body.data == pattern(0, 2_000_000));
    }
}

/// Joins every connection to the Unix socket `path` with one to `addr`.
#[expect(clippy::unwrap_used, reason = "test code outside #[test] functions")]
fn bridge(path: &Path, addr: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        while let Ok((unix, _)) = listener.accept() {
            let tcp = TcpStream::connect(addr).unwrap();
            let (unix2, tcp2) = (unix.try_clone().unwrap(), tcp.try_clone().unwrap());
            std::thread::spawn(move || {
                pump(unix, &tcp);
                let _ = tcp.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                pump(tcp2, &unix2);
                let _ = UnixStream::shutdown(&unix2, Shutdown::Write);
            });
        }
    });
}

fn pump(mut from: impl Read, mut to: impl Write) {
    // Until one side ends, which is what ends the bridge.
    let _ = std::io::copy(&mut from, &mut to);
}

#[test]
fn bodies_to_and_from_unix_sockets_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.sock");
    let origin = Origin::always(vec![Step::ReadBody, Step::Mirror]);
    bridge(&path, origin.addr());
    let config = Proxy::config_over(&[origin.addr()], "").replace(
        &format!("\"{}\"", origin.addr()),
        &format!("\"unix:{}\"", path.display()),
    );
    let proxy = Proxy::start(&config);
    let mut client = Client::connect(proxy.addr());
    let size = 2_000_000;
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
    ));
    client.send(pattern(0, size));
    let data = client.response().body.data;
    assert!(data.ends_with(&pattern(0, size)));
    assert_eq!(client.request("GET", "/").status(), 200);
    assert_eq!(origin.accepted(), 1);
    eventually("the bytes to be counted", || proxy.metric(COPIED) > 4e6);
    assert!(proxy.metric(SPLICED) < 0.5);
}
