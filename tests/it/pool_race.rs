//! The race of every HTTP proxy: endpoints that close idle connections at random times.
//!
//! An origin and clients of their own on tokio, because the scripted ones are made to be read and
//! not to be fast. A pause is the stimulus here, not a wait for something to happen.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "test code outside #[test] functions: a panic is the report; tasks live as long as the test's own runtime"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::support::proxy::Proxy;
use crate::support::scaled;

/// How long a connection of an endpoint may idle, in microseconds: drawn anew after each response.
#[derive(Clone, Copy, Debug)]
struct Idle {
    from: u64,
    to: u64,
}

/// Endpoints as bad as they come: one that closes at any moment from the last byte on, one whose
/// closes hide among much longer lives, and one that only old connections need fear.
const ENDPOINTS: [Idle; 3] = [
    Idle {
        from: 0,
        to: 10_000,
    },
    Idle {
        from: 0,
        to: 1_000_000,
    },
    Idle {
        from: 3_000_000,
        to: 6_000_000,
    },
];

const CLIENTS: usize = 24;

/// How often each request came, by its number.
type Arrivals = Arc<Mutex<HashMap<u32, u32>>>;

/// A small generator (xorshift64*, Vigna 2016): a test must be repeatable by its seed.
#[derive(Clone, Debug)]
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX) << 20 | 1)
    }
}

#[test]
fn endpoints_that_close_at_random_times_cost_no_request_and_double_no_post() {
    let seed = std::env::var("ISOBAR_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()) << 16 | 1);
    eprintln!("ISOBAR_SEED={seed}");
    let total = scaled(100_000, 400_000);
    let mut rng = Rng(seed);

    // Clients and origins on the same threads: an origin that stalls finds requests late, which is
    // what makes the race a race.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let arrivals = Arrivals::default();
    let closes = Arc::new(AtomicUsize::new(0));
    let origins: Vec<SocketAddr> = ENDPOINTS
        .iter()
        .map(|idle| origin(&runtime, *idle, rng.fork(), &arrivals, &closes))
        .collect();
    let proxy = Proxy::over(&origins, "");

    let addr = proxy.addr();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let rng = rng.fork();
            let ids = (client * total / CLIENTS) as u32..((client + 1) * total / CLIENTS) as u32;
            runtime.spawn(requests(addr, ids, rng))
        })
        .collect();
    let errors: Vec<String> = clients
        .into_iter()
        .flat_map(|client| runtime.block_on(client).unwrap())
        .collect();

    let metric = |name: &str| proxy.metric(name);
    let (fresh, reused, stale, replays) = (
        metric(r#"isobar_upstream_pool_total{upstream="app",result="fresh"}"#),
        metric(r#"isobar_upstream_pool_total{upstream="app",result="reused"}"#),
        metric(r#"isobar_upstream_pool_total{upstream="app",result="stale"}"#),
        metric(r#"isobar_upstream_replays_total{upstream="app"}"#),
    );
    let closed = closes.load(Ordering::Relaxed);
    eprintln!(
        "{total} requests: {fresh} fresh, {reused} reused, {stale} found dead, {replays} replayed; \
         {closed} closed while idle"
    );
    assert!(
        errors.is_empty(),
        "{} errors: {:?}",
        errors.len(),
        &errors[..errors.len().min(5)]
    );
    let arrivals = arrivals.lock().unwrap();
    let wrong: Vec<_> = (0..total as u32)
        .filter(|id| is_post(*id))
        .map(|id| (id, arrivals.get(&id).copied().unwrap_or(0)))
        .filter(|(_, times)| *times != 1)
        .collect();
    assert!(
        wrong.is_empty(),
        "POSTs that did not arrive once: {wrong:?}"
    );
    // That the race was run at all, and by POSTs too, to the endpoint that has earned it.
    assert!(closed > total / 200, "only {closed} closes");
    assert!(stale > 0.0, "no dead connection was found");
    let gets = (total - total / 5 * 2) as f64;
    assert!(
        reused > gets,
        "no POST rode a kept connection: {reused} reused"
    );
}

/// Two in five.
fn is_post(id: u32) -> bool {
    id % 5 < 2
}

// === the clients ===

/// One connection: bursts, and pauses in which the endpoints' connections idle.
async fn requests(addr: SocketAddr, ids: std::ops::Range<u32>, mut rng: Rng) -> Vec<String> {
    let mut errors = Vec::new();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    for id in ids {
        if rng.below(12) == 0 {
            tokio::time::sleep(Duration::from_micros(rng.below(30_000))).await;
        }
        let request = if is_post(id) {
            format!("POST /{id} HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello")
        } else {
            format!("GET /{id} HTTP/1.1\r\nHost: t\r\n\r\n")
        };
        if let Err(error) = exchange(&mut stream, &mut buffer, &request, id).await {
            errors.push(format!("{id}: {error}"));
            buffer.clear();
            stream = TcpStream::connect(addr).await.unwrap();
        }
    }
    errors
}

async fn exchange(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &str,
    id: u32,
) -> Result<(), String> {
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| e.to_string())?;
    let want = id.to_string();
    loop {
        if let Some(at) = end_of_head(buffer) {
            let head = String::from_utf8_lossy(&buffer[..at]).into_owned();
            if !head.starts_with("HTTP/1.1 200 ") {
                return Err(head);
            }
            if buffer.len() >= at + want.len() {
                let body = String::from_utf8_lossy(&buffer[at..]).into_owned();
                buffer.clear();
                return if body == want { Ok(()) } else { Err(body) };
            }
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return Err("closed".to_owned()),
            Ok(_) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some(at + 4)
}

// === the origins ===

fn origin(
    runtime: &Runtime,
    idle: Idle,
    mut rng: Rng,
    arrivals: &Arrivals,
    closes: &Arc<AtomicUsize>,
) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    let (arrivals, closes) = (arrivals.clone(), closes.clone());
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(
                stream,
                idle,
                rng.fork(),
                arrivals.clone(),
                closes.clone(),
            ));
        }
    });
    addr
}

/// Answers with the request's number until the connection has idled for its time.
async fn serve(
    mut stream: TcpStream,
    idle: Idle,
    mut rng: Rng,
    arrivals: Arrivals,
    closes: Arc<AtomicUsize>,
) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    let mut is_first = true;
    loop {
        let time = Duration::from_micros(idle.from + rng.below(idle.to - idle.from));
        while end_of_request(&buffer).is_none() {
            let read = stream.read_buf(&mut buffer);
            // A new connection is no idle one: its first request is awaited.
            let read = if is_first {
                read.await
            } else if let Ok(read) = tokio::time::timeout(time, read).await {
                read
            } else {
                closes.fetch_add(1, Ordering::Relaxed);
                return;
            };
            if !matches!(read, Ok(n) if n > 0) {
                return;
            }
        }
        is_first = false;
        let target = String::from_utf8_lossy(&buffer);
        let id = target.split(['/', ' ']).nth(2).unwrap().to_owned();
        *arrivals
            .lock()
            .unwrap()
            .entry(id.parse().unwrap())
            .or_default() += 1;
        buffer.clear();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{id}",
            id.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Head, and the five bytes of a POST.
fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let end = end_of_head(bytes)? + if bytes.starts_with(b"POST") { 5 } else { 0 };
    (bytes.len() >= end).then_some(end)
}
