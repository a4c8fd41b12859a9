//! What does a reload of a large configuration cost, and do requests notice?
//!
//! `cargo bench --bench reload`: 10,000 routes and 10,000 endpoints (1,000 upstreams of ten), 8
//! keep-alive clients that send 100 requests/s each, on the clock: a latency counts from the moment
//! the request was due, so a stall is seen in all that it delays. The file is changed and isobar
//! told (SIGHUP); then a HAProxy of equal configuration (map of hosts, master-worker, SIGUSR2), if
//! there is one. Printed: milliseconds from the signal to the new configuration serving, and p50,
//! p99 and the worst latency in the seconds before and from the signal on, medians of the rounds.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock itself")]
#![expect(clippy::unnecessary_wraps, reason = "a peer may not be installed")]
#![expect(
    clippy::single_match_else,
    reason = "both ends of an answer side by side"
)]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const ROUTES: usize = 10_000;
const UPSTREAMS: usize = 1_000;
const ENDPOINTS: usize = 10;
const CLIENTS: usize = 8;
const EVERY: Duration = Duration::from_millis(10);
const ROUNDS: usize = 5;
/// Latencies before the signal, and from it on. A reload of HAProxy takes two seconds here.
const WINDOW: Duration = Duration::from_secs(3);

/// A proxy under test.
struct Proxy {
    name: &'static str,
    child: Child,
    web: SocketAddr,
    folder: PathBuf,
    write: fn(&Path, SocketAddr, u16, usize),
    signal: Signal,
}

/// When a request was due, how long it took, and whether the connection had to be made again.
#[derive(Clone, Copy)]
struct Sample {
    due: Instant,
    took: Duration,
    reconnected: bool,
}

fn main() {
    // `cargo test --benches` only asks whether it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let origin = origin();
    println!(
        "{ROUTES} routes, {} endpoints; {CLIENTS} clients, {} requests/s; {ROUNDS} rounds",
        UPSTREAMS * ENDPOINTS,
        CLIENTS as u128 * 1000 / EVERY.as_millis(),
    );
    println!(
        "{:<10} {:>12} {:>22} {:>22} {:>12}",
        "", "reload ms", "before p50/p99/max ms", "after p50/p99/max ms", "reconnects"
    );
    let folder = std::env::temp_dir().join(format!("isobar-bench-reload-{}", std::process::id()));
    for start in [isobar, haproxy] {
        let Some(mut proxy) = start(&folder, origin) else {
            println!("haproxy is not installed");
            continue;
        };
        measure(&proxy, origin);
        let _ = proxy.child.kill();
        let _ = proxy.child.wait();
        let _ = std::fs::remove_dir_all(&proxy.folder);
    }
}

fn measure(proxy: &Proxy, origin: u16) {
    let samples = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (samples, stop, web) = (samples.clone(), stop.clone(), proxy.web);
            std::thread::spawn(move || client(web, n, &samples, &stop))
        })
        .collect();
    let mut rounds: Vec<[f64; 8]> = Vec::new();
    for round in 1..=ROUNDS {
        (proxy.write)(&proxy.folder, proxy.web, origin, round);
        samples.lock().unwrap().clear();
        std::thread::park_timeout(WINDOW);
        let told = Instant::now();
        kill_process(Pid::from_child(&proxy.child), proxy.signal).unwrap();
        while served(proxy.web) != Some(round) {
            std::thread::park_timeout(Duration::from_millis(5));
            assert!(told.elapsed() < Duration::from_secs(60), "no reload");
        }
        let reload = told.elapsed();
        std::thread::park_timeout(WINDOW.saturating_sub(reload));
        let samples = samples.lock().unwrap().clone();
        let (calm, busy): (Vec<Sample>, Vec<Sample>) =
            samples.into_iter().partition(|s| s.due + s.took < told);
        let again = busy.iter().filter(|s| s.reconnected).count() as f64;
        let [a, b, c] = spread(&calm);
        let [d, e, f] = spread(&busy);
        rounds.push([millis(reload), a, b, c, d, e, f, again]);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let at = |i: usize| {
        let mut column: Vec<f64> = rounds.iter().map(|r| r[i]).collect();
        column.sort_by(f64::total_cmp);
        column[column.len() / 2]
    };
    println!(
        "{:<10} {:>12.0} {:>22} {:>22} {:>12.0}",
        proxy.name,
        at(0),
        format!("{:.2}/{:.2}/{:.2}", at(1), at(2), at(3)),
        format!("{:.2}/{:.2}/{:.2}", at(4), at(5), at(6)),
        at(7),
    );
}

fn spread(samples: &[Sample]) -> [f64; 3] {
    let mut took: Vec<f64> = samples.iter().map(|s| millis(s.took)).collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    [at(0.5), at(0.99), at(1.0)]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn client(web: SocketAddr, n: usize, samples: &Mutex<Vec<Sample>>, stop: &AtomicBool) {
    let mut stream = TcpStream::connect(web).unwrap();
    // Clients spread over the period, so that they do not meet.
    let mut due = Instant::now() + EVERY * n as u32 / CLIENTS as u32;
    let mut host = n * 997;
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        host = (host + 7919) % ROUTES;
        let request = format!("GET / HTTP/1.1\r\nHost: h{host}.example.com\r\n\r\n");
        let mut reconnected = false;
        loop {
            let answered = stream.write_all(request.as_bytes()).and_then(|()| {
                let n = stream.read(&mut buffer)?;
                if n == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                Ok(n)
            });
            match answered {
                Ok(n) => {
                    assert!(buffer[..n].starts_with(b"HTTP/1.1 200"), "not a 200");
                    let head = String::from_utf8_lossy(&buffer[..n]).to_lowercase();
                    let took = due.elapsed();
                    if head.contains("connection: close") {
                        reconnected = true;
                        stream = TcpStream::connect(web).unwrap();
                    }
                    samples.lock().unwrap().push(Sample {
                        due,
                        took,
                        reconnected,
                    });
                    break;
                }
                Err(_) => {
                    reconnected = true;
                    stream = TcpStream::connect(web).unwrap();
                }
            }
        }
        due += EVERY;
    }
}

/// One listener that is every endpoint: 127.0.0.0/8 is all here.
fn origin() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn endpoint(n: usize, port: u16) -> String {
    format!("127.1.{}.{}:{port}", n / 250, n % 250 + 1)
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn isobar(folder: &Path, origin: u16) -> Option<Proxy> {
    let folder = folder.join("isobar");
    std::fs::create_dir_all(&folder).unwrap();
    let web = free();
    write_isobar(&folder, web, origin, 0);
    let program = Path::new(env!("CARGO_BIN_EXE_isobar"));
    let child = Command::new(program)
        .arg("run")
        .arg(folder.join("isobar.toml"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    await_port(web);
    Some(Proxy {
        name: "isobar",
        child,
        web,
        folder,
        write: write_isobar,
        signal: Signal::HUP,
    })
}

fn write_isobar(folder: &Path, web: SocketAddr, origin: u16, round: usize) {
    let mut text = format!(
        "[log]\nlevel = 'warn'\n[listeners.web]\nbind = '{web}'\n\
         [[routes]]\nhost = 'round'\nrespond = {{ body = '{round}' }}\n"
    );
    for n in 0..ROUTES {
        let upstream = n % UPSTREAMS;
        let _ = writeln!(
            text,
            "[[routes]]\nhost = 'h{n}.example.com'\nupstream = 'u{upstream}'"
        );
    }
    for u in 0..UPSTREAMS {
        let _ = writeln!(text, "[upstreams.u{u}]\nendpoints = [");
        for e in 0..ENDPOINTS {
            // Every round all weights change: no upstream is the same.
            let weight = 1 + (round + e) % 3;
            let address = endpoint(u * ENDPOINTS + e, origin);
            let _ = writeln!(text, "{{ address = '{address}', weight = {weight} }},");
        }
        text.push_str("]\n");
    }
    std::fs::write(folder.join("isobar.toml"), text).unwrap();
}

fn haproxy(folder: &Path, origin: u16) -> Option<Proxy> {
    let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
        .into_iter()
        .find(|path| Path::new(path).exists())?;
    let folder = folder.join("haproxy");
    std::fs::create_dir_all(&folder).unwrap();
    let web = free();
    write_haproxy(&folder, web, origin, 0);
    let child = Command::new(program)
        .args(["-W", "-db", "-q", "-f"])
        .arg(folder.join("haproxy.cfg"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    await_port(web);
    Some(Proxy {
        name: "haproxy",
        child,
        web,
        folder,
        write: write_haproxy,
        signal: Signal::USR2,
    })
}

fn write_haproxy(folder: &Path, web: SocketAddr, origin: u16, round: usize) {
    let mut map = String::new();
    for n in 0..ROUTES {
        let _ = writeln!(map, "h{n}.example.com u{}", n % UPSTREAMS);
    }
    let file = folder.join("hosts.map");
    std::fs::write(&file, map).unwrap();
    let mut text = format!(
        "global\n maxconn 2000\n nbthread 2\ndefaults\n mode http\n timeout client 60s\n \
         timeout server 60s\n timeout connect 1s\n http-reuse always\n\
         frontend web\n bind {web}\n \
         http-request return status 200 content-type text/plain string \"{round}\" \
         if {{ hdr(host) round }}\n \
         use_backend %[req.hdr(host),lower,map({})]\n",
        file.display()
    );
    for u in 0..UPSTREAMS {
        let _ = writeln!(text, "backend u{u}\n balance leastconn");
        for e in 0..ENDPOINTS {
            let weight = 1 + (round + e) % 3;
            let address = endpoint(u * ENDPOINTS + e, origin);
            let _ = writeln!(text, " server s{e} {address} weight {weight}");
        }
    }
    std::fs::write(folder.join("haproxy.cfg"), text).unwrap();
}

/// Waits until somebody listens.
fn await_port(addr: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(addr).is_err() {
        assert!(start.elapsed() < Duration::from_secs(30), "{addr} is dead");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The round whose configuration answers.
fn served(web: SocketAddr) -> Option<usize> {
    let mut stream = TcpStream::connect(web).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: round\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.rsplit("\r\n").next()?.trim().parse().ok()
}
