//! Workers and listeners: how many, how evenly used, on which sockets, and how they start and stop.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use isobar::server::StartError;

use crate::support::binary::Binary;
use crate::support::client::Client;
use crate::support::origin::{self, Origin};
use crate::support::proxy::Proxy;
use crate::support::{deadline, remaining};

/// A server without endpoints, whose listener `web` answers "hello".
fn hello(workers: usize, bind: &str) -> String {
    format!(
        "[process]\nworkers = {workers}\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [listeners.web]\nbind = {bind}\n[[routes]]\nrespond = {{ body = \"hello\" }}\n"
    )
}

const LOCAL: &str = "\"127.0.0.1:0\"";

#[track_caller]
fn await_true(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = deadline();
    while !is_so() {
        std::thread::park_timeout(remaining(end, what).min(Duration::from_millis(5)));
    }
}

fn over_unix(path: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn workers_are_as_many_threads_as_configured() {
    for workers in [1, 3] {
        let proxy = Proxy::start(&hello(workers, LOCAL));
        assert_eq!(proxy.connections().len(), workers);
        assert_eq!(proxy.metric("isobar_workers"), workers as f64);
    }
}

#[test]
fn worker_threads_bear_their_names() {
    // A Unix socket: the program itself takes no port 0, and no port is surely free.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let toml = format!(
        "[process]\nworkers = 4\n[listeners.web]\nbind = \"unix:{}\"\n\
         [[routes]]\nrespond = {{ body = \"hello\" }}\n",
        path.display()
    );
    let binary = Binary::start(&toml);
    let tasks = format!("/proc/{}/task", binary.pid());
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(&tasks)
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .filter(|name| {
                name.strip_prefix("isobar-")
                    .is_some_and(|n| n.parse::<u32>().is_ok())
            })
            .collect();
        names.sort();
        names
    };
    await_true("four worker threads", || {
        names() == ["isobar-0", "isobar-1", "isobar-2", "isobar-3"]
    });
}

#[test]
fn connections_are_spread_evenly() {
    let proxy = Proxy::start(&hello(4, LOCAL));
    let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/").text(), "hello");
    }
    let loads = proxy.connections();
    assert_eq!(loads.iter().sum::<usize>(), 64, "{loads:?}");
    // 17 of a mean of 16: a ratio of 1.0625, below 1.1.
    assert!(loads.iter().all(|&n| n <= 17), "{loads:?}");
    drop(clients);
    await_true("no connection left", || proxy.connections() == [0, 0, 0, 0]);
}

#[test]
fn connections_that_are_handed_over_are_counted_once() {
    let proxy = Proxy::start(&hello(4, LOCAL));
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/").text(), "hello");
    }
    assert_eq!(
        proxy.metric("isobar_listener_accepts_total{listener=\"web\"}"),
        40.0
    );
    assert_eq!(
        proxy.metric("isobar_listener_connections{listener=\"web\"}"),
        40.0
    );
    assert_eq!(
        proxy.metric("isobar_listener_requests_total{listener=\"web\"}"),
        40.0
    );
    drop(clients);
    await_true("no connection left", || {
        proxy.metric("isobar_listener_connections{listener=\"web\"}") == 0.0
    });
}

#[test]
fn unix_socket_serves_and_its_file_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let proxy = Proxy::start(&hello(2, &format!("\"unix:{}\"", path.display())));
    for _ in 0..8 {
        let answer = over_unix(&path);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    proxy.shutdown();
    assert!(!path.exists());
}

#[test]
fn endpoint_behind_a_unix_socket_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let inner = Proxy::start(&hello(1, &format!("\"unix:{}\"", path.display())));
    let toml = format!(
        "[listeners.web]\nbind = {LOCAL}\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"unix:{}\"]\n",
        path.display()
    );
    let outer = Proxy::start(&toml);
    for _ in 0..3 {
        assert_eq!(Client::get(outer.addr(), "/").text(), "hello");
    }
    drop((outer, inner));
}

#[test]
fn every_bind_of_a_listener_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let bind = format!(
        "[\"127.0.0.1:0\", \"127.0.0.2:0\", \"[::1]:0\", \"unix:{}\"]",
        path.display()
    );
    let proxy = Proxy::start(&hello(2, &bind));
    let addrs = proxy.listeners("web");
    assert_eq!(addrs.len(), 3);
    assert_eq!(
        addrs.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>(),
        ["127.0.0.1", "127.0.0.2", "::1"]
    );
    for addr in addrs {
        assert_eq!(Client::get(addr, "/").text(), "hello", "{addr}");
    }
    assert!(over_unix(&path).ends_with("hello"));
}

#[test]
fn port_alone_is_both_families() {
    let proxy = Proxy::start(&hello(2, "\":0\""));
    let port = proxy.addr().port();
    for ip in ["127.0.0.1", "::1"] {
        let addr = SocketAddr::new(ip.parse().unwrap(), port);
        assert_eq!(Client::get(addr, "/").text(), "hello", "{ip}");
    }
}

#[test]
fn client_of_a_dual_stack_socket_has_its_ipv4_address() {
    let origin = Origin::always(origin::mirror());
    let toml = format!(
        "[listeners.web]\nbind = \":0\"\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        origin.addr()
    );
    let proxy = Proxy::start(&toml);
    let addr = SocketAddr::new("127.0.0.1".parse().unwrap(), proxy.addr().port());
    assert_eq!(Client::get(addr, "/").status(), 200);
    assert_eq!(
        origin.await_done(0).head.field("x-forwarded-for"),
        Some("127.0.0.1")
    );
}

#[test]
fn two_servers_in_one_process_live_apart() {
    let first = Proxy::start(&hello(2, LOCAL).replace("hello", "first"));
    let second = Proxy::start(&hello(2, LOCAL).replace("hello", "second"));
    let mut kept = Client::connect(second.addr());
    for _ in 0..3 {
        assert_eq!(Client::get(first.addr(), "/").text(), "first");
        assert_eq!(kept.request("GET", "/").text(), "second");
    }
    let requests = "isobar_listener_requests_total{listener=\"web\"}";
    assert_eq!(
        (first.metric(requests), second.metric(requests)),
        (3.0, 3.0)
    );
    let gone = first.addr();
    first.shutdown();
    let refused = TcpStream::connect(gone).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(kept.request("GET", "/").text(), "second", "untouched");
}

#[test]
fn port_in_use_is_a_clear_error_and_nothing_stays_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let free = {
        // An address of its own: nobody else asks for ports there.
        let probe = TcpListener::bind("127.0.0.3:0").unwrap();
        probe.local_addr().unwrap()
    };
    let toml = format!(
        "[process]\nworkers = 2\n\
         [listeners.first]\nbind = [\"{free}\", \"unix:{}\"]\n\
         [listeners.second]\nbind = \"{taken}\"\n\
         [[routes]]\nrespond = {{ body = \"x\" }}\n",
        path.display()
    );
    let Err(error) = Proxy::try_start(&toml) else {
        panic!("started on a port that is taken")
    };
    assert!(matches!(&error, StartError::Listener { name, .. } if &**name == "second"));
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "listener `second`: {taken} is in use by another program"
        )),
        "{text}"
    );
    drop(TcpListener::bind(free).expect("the first listener's port is free again"));
    assert!(!path.exists(), "the socket's file is left behind");
}

#[test]
fn admin_port_in_use_is_a_clear_error_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let toml = format!(
        "[admin]\nbind = \"{taken}\"\n[listeners.web]\nbind = \"unix:{}\"\n\
         [[routes]]\nrespond = {{ body = \"x\" }}\n",
        path.display()
    );
    let Err(error) = Proxy::try_start(&toml) else {
        panic!("started on a port that is taken")
    };
    assert!(
        error
            .to_string()
            .starts_with(&format!("admin: {taken} is in use"))
    );
    assert!(!path.exists(), "the socket's file is left behind");
}
