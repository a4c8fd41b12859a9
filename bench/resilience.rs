//! What do clients notice of a slow endpoint, and of more load than there is capacity?
//!
//! `cargo bench --bench resilience`. Endpoints are queues with a fixed number of servers and a fixed
//! service time; requests come open loop (Poisson), and a latency counts from the moment the request
//! was due. isobar and, if there is one, HAProxy stand in front of the same endpoints in turn, several
//! rounds interleaved; printed are medians of the rounds.
//!
//! 1. `slow`: one of ten endpoints is four times slower, and has 90 % of what it bears if it gets an
//!    equal share: p50, p99 and the slow one's share, by policy.
//! 2. `hedge`: one of ten is ten times slower: p99 without and with `hedge_after = "p95"`, and how many
//!    more requests that costs.
//! 3. `overload`: twice the capacity of five endpoints: answers a second, as a share of the peak; p99 of
//!    those admitted, as a multiple of the unloaded one; and how long the others waited for their 503.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock itself")]
#![expect(clippy::unnecessary_wraps, reason = "a peer may not be installed")]
#![expect(
    clippy::single_match_else,
    reason = "both ends of an answer side by side"
)]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isobar::base::rng::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(4);

/// An endpoint: `servers` at once, `service` each, first come first served.
struct Endpoint {
    addr: SocketAddr,
    served: Arc<AtomicU64>,
}

/// A proxy under test.
struct Proxy {
    child: Child,
    web: SocketAddr,
    folder: PathBuf,
}

/// What came of a request.
#[derive(Clone, Copy)]
struct Sample {
    /// Since the load began.
    due: Duration,
    status: u16,
    took: Duration,
}

/// One way to stand in front of the endpoints.
struct Way {
    name: &'static str,
    start: fn(&[SocketAddr], &str) -> Option<Proxy>,
    /// Goes into the configuration: lines of the upstream, or HAProxy's `balance`.
    setting: &'static str,
}

fn main() {
    // `cargo test --benches` only asks whether it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let runtime = Runtime::new().unwrap();
    if is_wanted("slow") {
        slow(&runtime);
    }
    if is_wanted("hedge") {
        hedge(&runtime);
    }
    if is_wanted("overload") {
        overload(&runtime);
    }
}

// === the jobs ===

fn slow(runtime: &Runtime) {
    let (servers, service, rate) = (4, Duration::from_millis(10), 900.0);
    println!("\nslow: ten endpoints, 4 servers of 10 ms each, one of 40 ms; {rate} requests/s");
    let ways = [
        Way {
            name: "isobar least_request (default)",
            start: isobar,
            setting: "",
        },
        Way {
            name: "isobar peak_ewma",
            start: isobar,
            setting: "balance = \"peak_ewma\"",
        },
        Way {
            name: "isobar round_robin",
            start: isobar,
            setting: "balance = \"round_robin\"",
        },
        Way {
            name: "haproxy roundrobin (default)",
            start: haproxy,
            setting: "roundrobin",
        },
        Way {
            name: "haproxy leastconn",
            start: haproxy,
            setting: "leastconn",
        },
        Way {
            name: "haproxy random(2)",
            start: haproxy,
            setting: "random(2)",
        },
    ];
    let mut table = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for (way, rows) in ways.iter().zip(&mut table) {
            let endpoints = runtime.block_on(async {
                let mut all = Vec::new();
                for i in 0..10 {
                    let factor = if i == 3 { 4 } else { 1 };
                    all.push(endpoint(servers, service * factor).await);
                }
                all
            });
            let addrs: Vec<_> = endpoints.iter().map(|e| e.addr).collect();
            let Some(proxy) = (way.start)(&addrs, way.setting) else {
                continue;
            };
            let samples = runtime.block_on(offer(proxy.web, rate, TIME, round as u64));
            let total: u64 = endpoints
                .iter()
                .map(|e| e.served.load(Ordering::Relaxed))
                .sum();
            let share = endpoints[3].served.load(Ordering::Relaxed) as f64 / total as f64;
            let [p50, p99] = spread(&samples);
            rows.push([p50, p99, 100.0 * share, failures(&samples)]);
        }
    }
    println!(
        "{:<34} {:>9} {:>9} {:>12} {:>9}",
        "", "p50 ms", "p99 ms", "slow one %", "failed"
    );
    for (way, rows) in ways.iter().zip(&table) {
        if rows.is_empty() {
            println!("{:<34} not installed", way.name);
            continue;
        }
        let m = medians(rows);
        println!(
            "{:<34} {:>9.1} {:>9.1} {:>12.1} {:>9.0}",
            way.name, m[0], m[1], m[2], m[3]
        );
    }
}

fn hedge(runtime: &Runtime) {
    let rate = 500.0;
    println!("\nhedge: ten endpoints, 8 servers of 10 ms each, one of 100 ms; {rate} requests/s");
    let ways = [
        Way {
            name: "isobar",
            start: isobar,
            setting: "",
        },
        Way {
            name: "isobar hedge_after p95",
            start: hedging,
            setting: "p95",
        },
        Way {
            name: "isobar hedge_after 20ms",
            start: hedging,
            setting: "20ms",
        },
    ];
    let mut table = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for (way, rows) in ways.iter().zip(&mut table) {
            let endpoints = runtime.block_on(async {
                let mut all = Vec::new();
                for i in 0..10 {
                    let factor = if i == 3 { 10 } else { 1 };
                    all.push(endpoint(8, Duration::from_millis(10) * factor).await);
                }
                all
            });
            let addrs: Vec<_> = endpoints.iter().map(|e| e.addr).collect();
            let Some(proxy) = (way.start)(&addrs, way.setting) else {
                continue;
            };
            let samples = runtime.block_on(offer(proxy.web, rate, TIME, round as u64));
            let total: u64 = endpoints
                .iter()
                .map(|e| e.served.load(Ordering::Relaxed))
                .sum();
            let more = 100.0 * (total as f64 / samples.len() as f64 - 1.0);
            let [p50, p99] = spread(&samples);
            rows.push([p50, p99, more, failures(&samples)]);
        }
    }
    println!(
        "{:<34} {:>9} {:>9} {:>12} {:>9}",
        "", "p50 ms", "p99 ms", "more asked %", "failed"
    );
    for (way, rows) in ways.iter().zip(&table) {
        let m = medians(rows);
        println!(
            "{:<34} {:>9.1} {:>9.1} {:>12.1} {:>9.0}",
            way.name, m[0], m[1], m[2], m[3]
        );
    }
}

fn overload(runtime: &Runtime) {
    let (servers, service) = (4, Duration::from_millis(20));
    let capacity = 5.0 * servers as f64 / service.as_secs_f64();
    println!(
        "\noverload: five endpoints, 4 servers of 20 ms each: {capacity} requests/s; offered twice that"
    );
    let ways = [
        Way {
            name: "isobar max_connections",
            start: isobar,
            setting: "max_connections = 4\nqueue = { length = 200, timeout = \"1s\" }",
        },
        Way {
            name: "isobar adaptive_concurrency",
            start: isobar,
            setting: "adaptive_concurrency = true\nqueue = { length = 200, timeout = \"1s\" }",
        },
        Way {
            name: "isobar without limits",
            start: isobar,
            setting: "",
        },
        Way {
            name: "haproxy maxconn",
            start: haproxy_maxconn,
            setting: "leastconn",
        },
    ];
    let mut table = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS as u64 {
        for (way, rows) in ways.iter().zip(&mut table) {
            let addrs: Vec<_> = runtime.block_on(async {
                let mut all = Vec::new();
                for _ in 0..5 {
                    all.push(endpoint(servers, service).await.addr);
                }
                all
            });
            let Some(proxy) = (way.start)(&addrs, way.setting) else {
                continue;
            };
            let quiet = runtime.block_on(offer(proxy.web, capacity / 10.0, TIME / 2, round));
            let peak = runtime.block_on(saturate(proxy.web, 20, TIME / 2));
            let samples = runtime.block_on(offer(proxy.web, 2.0 * capacity, TIME, round));
            // While it lasts: who waits as the load ends is served after all, late.
            // And a learnt limit has had its time to learn.
            let (begun, lasted) = (TIME / 4, TIME / 2);
            let is_lasting = |s: &&Sample| s.due > begun && s.due < begun + lasted;
            let lasting = samples.iter().filter(is_lasting);
            let (good, bad): (Vec<Sample>, Vec<Sample>) = lasting.partition(|s| s.status == 200);
            let goodput = good.len() as f64 / lasted.as_secs_f64();
            let refused = spread(&bad)[0];
            let (p99, unloaded) = (spread(&good)[1], spread(&quiet)[1]);
            rows.push([100.0 * goodput / peak, p99, p99 / unloaded, refused]);
        }
    }
    println!(
        "{:<34} {:>12} {:>12} {:>12} {:>14}",
        "", "goodput %", "p99 ms", "x unloaded", "refused p50 ms"
    );
    for (way, rows) in ways.iter().zip(&table) {
        if rows.is_empty() {
            println!("{:<34} not installed", way.name);
            continue;
        }
        let m = medians(rows);
        println!(
            "{:<34} {:>12.1} {:>12.1} {:>12.2} {:>14.1}",
            way.name, m[0], m[1], m[2], m[3]
        );
    }
}

// === endpoints and load ===

async fn endpoint(servers: usize, service: Duration) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let served = Arc::new(AtomicU64::new(0));
    let counted = served.clone();
    // Fair: first come, first served.
    let places = Arc::new(Semaphore::new(servers));
    let serving = async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (places, counted) = (places.clone(), counted.clone());
            connections.spawn(serve(stream, places, service, counted));
        }
    };
    // It lives as long as the runtime; an endpoint nobody asks costs nothing.
    tokio::runtime::Handle::current().spawn(serving);
    Endpoint { addr, served }
}

async fn serve(
    mut stream: TcpStream,
    places: Arc<Semaphore>,
    service: Duration,
    served: Arc<AtomicU64>,
) {
    let mut buf = [0; 4096];
    let mut len = 0;
    loop {
        match stream.read(&mut buf[len..]).await {
            Ok(n) if n > 0 => len += n,
            _ => return,
        }
        if !buf[..len].ends_with(b"\r\n\r\n") {
            continue;
        }
        len = 0;
        served.fetch_add(1, Ordering::Relaxed);
        let place = places.acquire().await.unwrap();
        sleep(service).await;
        drop(place);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

type Idle = Arc<Mutex<Vec<TcpStream>>>;

/// Requests at `rate` a second for `time`, each when it is due, whatever became of those before it.
async fn offer(web: SocketAddr, rate: f64, time: Duration, seed: u64) -> Vec<Sample> {
    let mut rng = Rng::new(seed);
    let idle = Idle::default();
    let begin = tokio::time::Instant::now();
    let mut at = 0.0;
    let mut running = JoinSet::new();
    let mut samples = Vec::new();
    loop {
        let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        at -= (1.0 - uniform).ln() / rate;
        let due = begin + Duration::from_secs_f64(at);
        if at > time.as_secs_f64() {
            break;
        }
        sleep_until(due).await;
        running.spawn(ask(web, idle.clone(), begin.into_std(), due.into_std()));
        while let Some(Ok(sample)) = running.try_join_next() {
            samples.push(sample);
        }
    }
    while let Some(Ok(sample)) = running.join_next().await {
        samples.push(sample);
    }
    samples
}

/// Answers a second that `clients` get who ask again as soon as they are answered.
async fn saturate(web: SocketAddr, clients: usize, time: Duration) -> f64 {
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for _ in 0..clients {
        running.spawn(async move {
            let idle = Idle::default();
            let mut good = 0u64;
            while Instant::now() < end {
                let now = Instant::now();
                let sample = ask(web, idle.clone(), now, now).await;
                good += u64::from(sample.status == 200);
            }
            good
        });
    }
    let good: u64 = running.join_all().await.into_iter().sum();
    good as f64 / time.as_secs_f64()
}

async fn ask(web: SocketAddr, idle: Idle, begin: Instant, due: Instant) -> Sample {
    let status = exchange(web, &idle).await.unwrap_or(0);
    Sample {
        due: due - begin,
        status,
        took: due.elapsed(),
    }
}

async fn exchange(web: SocketAddr, idle: &Idle) -> Option<u16> {
    let kept = idle.lock().unwrap().pop();
    let mut stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(web).await.ok()?;
            stream.set_nodelay(true).ok()?;
            stream
        }
    };
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        .await
        .ok()?;
    let mut answer = Vec::new();
    let mut buf = [0; 2048];
    loop {
        let n = stream.read(&mut buf).await.ok()?;
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&buf[..n]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("content-length: ").nth(1)?;
        let length: usize = length.lines().next()?.trim().parse().ok()?;
        if body.len() >= length {
            if !head.contains("connection: close") {
                idle.lock().unwrap().push(stream);
            }
            break;
        }
    }
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

// === figures ===

fn spread(samples: &[Sample]) -> [f64; 2] {
    let mut took: Vec<f64> = samples
        .iter()
        .map(|s| s.took.as_secs_f64() * 1000.0)
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = took.len().saturating_sub(1);
        took.get((last as f64 * share) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    [at(0.5), at(0.99)]
}

fn failures(samples: &[Sample]) -> f64 {
    samples.iter().filter(|s| s.status != 200).count() as f64
}

fn medians(rows: &[[f64; 4]]) -> [f64; 4] {
    std::array::from_fn(|i| {
        let mut column: Vec<f64> = rows.iter().map(|r| r[i]).collect();
        column.sort_by(f64::total_cmp);
        column[column.len() / 2]
    })
}

// === proxies ===

fn isobar(endpoints: &[SocketAddr], upstream: &str) -> Option<Proxy> {
    start_isobar(endpoints, upstream, "")
}

fn hedging(endpoints: &[SocketAddr], after: &str) -> Option<Proxy> {
    let retry = format!("retry = {{ hedge_after = \"{after}\" }}\n");
    start_isobar(endpoints, "", &retry)
}

fn start_isobar(endpoints: &[SocketAddr], upstream: &str, route: &str) -> Option<Proxy> {
    let (folder, web) = (folder(), free());
    let list: Vec<_> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    let text = format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"{web}\"\n\
         [[routes]]\nupstream = \"app\"\n{route}\
         [upstreams.app]\n{upstream}\nendpoints = [{}]\n",
        list.join(", ")
    );
    let file = folder.join("isobar.toml");
    std::fs::write(&file, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_isobar"))
        .arg("run")
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some(Proxy::await_it(child, web, folder))
}

fn haproxy(endpoints: &[SocketAddr], policy: &str) -> Option<Proxy> {
    start_haproxy(endpoints, policy, "")
}

fn haproxy_maxconn(endpoints: &[SocketAddr], policy: &str) -> Option<Proxy> {
    start_haproxy(endpoints, policy, " maxconn 4 maxqueue 40")
}

fn start_haproxy(endpoints: &[SocketAddr], policy: &str, server: &str) -> Option<Proxy> {
    if !Path::new("/usr/sbin/haproxy").exists() {
        return None;
    }
    let (folder, web) = (folder(), free());
    let mut text = format!(
        "global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n timeout connect 1s\n timeout client 60s\n \
         timeout server 60s\n timeout queue 1s\n http-reuse safe\n\
         frontend web\n bind {web}\n default_backend app\nbackend app\n balance {policy}\n"
    );
    for (i, endpoint) in endpoints.iter().enumerate() {
        writeln!(text, " server s{i} {endpoint}{server}").unwrap();
    }
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let child = Command::new("/usr/sbin/haproxy")
        .args(["-db", "-f"])
        .arg(&file)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Some(Proxy::await_it(child, web, folder))
}

fn folder() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("isobar-bench-resilience-{}-{n}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Proxy {
    fn await_it(child: Child, web: SocketAddr, folder: PathBuf) -> Self {
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(web).is_err() {
            assert!(Instant::now() < end, "nobody listens at {web}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Self { child, web, folder }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
