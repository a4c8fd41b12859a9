//! Five servers are restarted one after the other under load, `isobar drain --wait` before each:
//! nobody notices.
//!
//! The route tries nothing again, so that it is the drain that is shown and not the retries. Tunnels
//! are conversations: their clients end them after so many messages, and a drain waits for those
//! that are in one. One that is cut, by a server or by the proxy, is a failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::binary::{Binary, free_port, run};
use crate::support::child::Server;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::now;
use crate::support::origin::pattern;

/// What clients share; of each kind of exchange how many were done.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    done: [AtomicUsize; KINDS],
}

const KINDS: usize = 4;

/// Between two steps of a client: the load is to be concurrent, not heavy, as others test too.
const PAUSE: Duration = Duration::from_millis(5);

/// Messages of one conversation.
const MESSAGES: usize = 40;

/// Bytes of an upload.
const UPLOAD: usize = 200_000;

// === the clients: each exchange is whole, or its thread panics ===

fn get_on_one_connection(addr: SocketAddr, done: &dyn Fn() -> bool) {
    let mut client = Client::connect(addr);
    while done() {
        let response = client.request("GET", "/");
        assert_eq!(response.status(), 200, "{}", response.text());
    }
}

fn get_on_new_connections(addr: SocketAddr, done: &dyn Fn() -> bool) {
    while done() {
        let response = Client::get(addr, "/");
        assert_eq!(response.status(), 200, "{}", response.text());
    }
}

/// POST: what fails once has failed.
fn upload(addr: SocketAddr, done: &dyn Fn() -> bool) {
    let body = pattern(0, UPLOAD);
    let mut client = Client::connect(addr);
    while done() {
        client.send(format!(
            "POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: {UPLOAD}\r\n\r\n"
        ));
        for piece in body.chunks(UPLOAD / 4) {
            client.send(piece);
            std::thread::park_timeout(PAUSE);
        }
        let response = client.response();
        assert_eq!(response.status(), 200, "{}", response.text());
        assert!(response.body.data.ends_with(&body), "another body");
    }
}

fn converse(addr: SocketAddr, done: &dyn Fn() -> bool) {
    while done() {
        let mut client = Client::connect(addr);
        client.send(
            "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert_eq!(client.head().status(), 101);
        for n in 0..MESSAGES {
            // A masked text frame (RFC 6455 section 5.2), its mask 0.
            let text = format!("message {n:05}");
            let frame = [
                &[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0],
                text.as_bytes(),
            ]
            .concat();
            client.send(&frame);
            assert_eq!(client.exactly(frame.len()), frame, "message {n}");
            std::thread::park_timeout(PAUSE);
        }
        client.finish();
        client.expect_closed();
    }
}

type Work = fn(SocketAddr, &dyn Fn() -> bool);

const WORK: [(&str, Work); KINDS] = [
    ("GET on one connection", get_on_one_connection),
    ("GET on new connections", get_on_new_connections),
    ("uploads", upload),
    ("tunnels", converse),
];

/// Two clients of each kind.
fn start_load(addr: SocketAddr, shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let start = |client: usize| {
        let shared = shared.clone();
        std::thread::spawn(move || {
            let kind = client % KINDS;
            let begun = AtomicUsize::new(0);
            let done = move || {
                if begun.fetch_add(1, Ordering::Relaxed) > 0 {
                    shared.done[kind].fetch_add(1, Ordering::SeqCst);
                }
                std::thread::park_timeout(PAUSE);
                !shared.is_over.load(Ordering::SeqCst)
            };
            WORK[kind].1(addr, &done);
        })
    };
    (0..2 * KINDS).map(start).collect()
}

#[test]
fn rolling_restart_with_drains_fails_nothing() {
    let mut servers: Vec<Server> = (0..5).map(|n| Server::start(&n.to_string())).collect();
    let endpoints: Vec<String> = servers.iter().map(|s| format!("'{}'", s.addr())).collect();
    let web: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let isobar = Binary::start(&format!(
        "[process]\nworkers = 2\n[admin]\nsocket = 'admin.sock'\n\
         [listeners.web]\nbind = '{web}'\n\
         [[routes]]\nupstream = 'app'\nretry = 'off'\n\
         [upstreams.app]\nendpoints = [{}]\n",
        endpoints.join(", ")
    ));
    isobar.await_line("stop with Ctrl-C");
    let socket = isobar.folder.path().join("admin.sock");
    let command = |args: &[&str]| {
        let out = run(&[args, &["--socket", &socket.to_string_lossy()]].concat());
        let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        assert_eq!(out.status.code(), Some(0), "{args:?}: {text}");
        text
    };

    let shared = Arc::new(Shared::default());
    let clients = start_load(web, &shared);
    let await_more = |what: &str| {
        let counts = || shared.done.each_ref().map(|n| n.load(Ordering::SeqCst));
        let before = counts();
        eventually(what, || {
            // A client that failed does nothing more: do not wait for it.
            let has_failed = clients.iter().any(JoinHandle::is_finished);
            has_failed || std::iter::zip(counts(), before).all(|(is, was)| is >= was + 2)
        });
    };
    await_more("every kind of exchange");
    let begun = now();
    for server in &mut servers {
        let name = format!("app/{}", server.addr());
        let asked = server.requests().len();
        assert!(asked > 0, "{name} has had its share");
        let text = command(&["drain", &name, "--wait", "--deadline", "25s"]);
        assert!(text.contains("nothing in flight, drained after"), "{text}");
        let drained = server.requests().len();
        await_more("exchanges without it");
        assert_eq!(server.requests().len(), drained, "{name} is left alone");
        server.restart();
        command(&["undrain", &name]);
        eventually("it is used again", || server.requests().len() > drained);
    }
    let took = begun.elapsed();
    shared.is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    let done = shared.done.each_ref().map(|n| n.load(Ordering::SeqCst));
    let done: Vec<_> = std::iter::zip(WORK, done)
        .map(|((kind, _), n)| format!("{n} {kind}"))
        .collect();
    eprintln!("five restarts in {took:?}: 0 failed of {}", done.join(", "));
}
