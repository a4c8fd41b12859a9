//! An endpoint killed under load, with nothing configured: no GET fails, no POST is sent twice.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of a test: failing is their report, and its figures are printed"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::child::Server;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::proxy::Proxy;
use crate::support::{now, scaled};

/// What clients share.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    gets: AtomicUsize,
    posts: AtomicUsize,
}

/// Clients that ask until they are told to end.
struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<(String, u16)>>>,
}

/// A pause between two requests: the load is to be concurrent, not heavy, as others test too.
const PAUSE: Duration = Duration::from_millis(4);

// === impl Load ===

impl Load {
    /// Two clients of each kind: GET and POST, on one connection and on a new one for each request.
    fn start(addr: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..8)
            .map(|client| {
                let shared = shared.clone();
                let method = if client % 2 == 0 { "GET" } else { "POST" };
                let is_kept = client < 4;
                std::thread::spawn(move || ask(&shared, addr, method, client, is_kept))
            })
            .collect();
        Self { shared, threads }
    }

    fn await_more(&self, gets: usize, posts: usize) {
        let (of_gets, of_posts) = (
            self.shared.gets.load(Ordering::SeqCst) + gets,
            self.shared.posts.load(Ordering::SeqCst) + posts,
        );
        eventually("more answers", || {
            self.shared.gets.load(Ordering::SeqCst) >= of_gets
                && self.shared.posts.load(Ordering::SeqCst) >= of_posts
        });
    }

    /// Every request with the status of its answer.
    fn end(self) -> Vec<(String, u16)> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let threads = self.threads.into_iter();
        threads.flat_map(|t| t.join().unwrap()).collect()
    }
}

fn ask(
    shared: &Shared,
    addr: SocketAddr,
    method: &str,
    client: usize,
    is_kept: bool,
) -> Vec<(String, u16)> {
    let mut told = Vec::new();
    let mut connection = None;
    for n in 0.. {
        if shared.is_over.load(Ordering::SeqCst) {
            break;
        }
        let mut client_of = connection.take().unwrap_or_else(|| Client::connect(addr));
        let target = format!("/{client}/{n}");
        let body = if method == "POST" {
            "Content-Length: 4\r\n\r\nbody"
        } else {
            "\r\n"
        };
        client_of.send(format!("{method} {target} HTTP/1.1\r\nHost: t\r\n{body}"));
        let response = client_of.response();
        let is_open = response.field("connection") != Some("close");
        told.push((format!("{method} {target}"), response.status()));
        let count = if method == "GET" {
            &shared.gets
        } else {
            &shared.posts
        };
        count.fetch_add(1, Ordering::SeqCst);
        connection = (is_kept && is_open).then_some(client_of);
        std::thread::park_timeout(PAUSE);
    }
    told
}

fn killed_endpoint_costs_no_get(of: usize) {
    let mut servers: Vec<Server> = (0..of).map(|n| Server::start(&n.to_string())).collect();
    let addrs: Vec<SocketAddr> = servers.iter().map(Server::addr).collect();
    let endpoints: Vec<String> = addrs.iter().map(|a| format!("'{a}'")).collect();
    // Nothing but what must be said, and a number of workers that is the same everywhere.
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 2\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = [{}]\n",
        endpoints.join(", ")
    ));
    let load = Load::start(proxy.addr());
    load.await_more(200, 200);
    let asked = servers[0].requests().len();
    assert!(asked > 0);

    servers[0].kill();
    let killed = now();
    load.await_more(100, 100);
    let ejected = format!(
        "isobar_endpoint_ejected{{upstream=\"app\",endpoint=\"{}\"}}",
        addrs[0]
    );
    eventually("it is ejected", || proxy.metric(&ejected) == 1.0);
    load.await_more(100, 100);

    servers[0].restart();
    // Ten seconds of ejection, which need not be seen twice.
    let back = scaled(of == 3, true).then(|| {
        let known = servers[0].requests().len();
        eventually("it serves again", || servers[0].requests().len() > known);
        killed.elapsed()
    });
    load.await_more(50, 50);
    let told = load.end();

    let retries = ["connect", "reset", "status", "timeout"].map(|reason| {
        proxy.metric(&format!(
            "isobar_upstream_retries_total{{upstream=\"app\",reason=\"{reason}\"}}"
        ))
    });
    let failed: Vec<_> = told.iter().filter(|(_, status)| *status != 200).collect();
    eprintln!(
        "1 of {of} killed: {} requests, {} failed, retries {retries:?} (connect, reset, \
         status, timeout); used again after (if awaited) {back:?}",
        told.len(),
        failed.len(),
    );
    // A POST that was under way may be lost: that is told, and nothing else fails.
    for (request, status) in &failed {
        assert!(request.starts_with("POST "), "{request}: {status}");
        assert_eq!(*status, 502, "{request}");
    }
    let mut came: HashMap<String, usize> = HashMap::new();
    for request in servers.iter().flat_map(Server::requests) {
        *came.entry(request).or_default() += 1;
    }
    for (request, status) in told.iter().filter(|(r, _)| r.starts_with("POST ")) {
        let times = came.get(request).copied().unwrap_or(0);
        assert!(times <= 1, "{request} came {times} times");
        assert!(times == 1 || *status == 502, "{request}: {status}");
    }
}

#[test]
fn one_of_three_killed_costs_no_get() {
    killed_endpoint_costs_no_get(3);
}

#[test]
fn one_of_two_killed_costs_no_get() {
    killed_endpoint_costs_no_get(2);
}
