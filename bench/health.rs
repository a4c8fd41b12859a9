//! What do checks of 10,000 endpoints at 5 s cost, and do they keep their times?
//!
//! `cargo bench --bench health`: for tcp and http checks, CPU of the control thread a second, and how
//! late checks come: of every two checks in a row of one endpoint, by how much the time between them
//! is off the interval (jitter is 0). All endpoints are one listener: 10,000 addresses of loopback.

#![expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot run has nothing to report"
)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use isobar::base::clock::Clock;
use isobar::config;
use isobar::server::Server;

const ENDPOINTS: u32 = 10_000;
const INTERVAL: u64 = 5;

/// The first interval is the spread start; then four whole ones.
const SECONDS: u64 = 5 * INTERVAL;

fn main() {
    println!(
        "{:<8}{:>10}{:>14}{:>12}{:>12}{:>12}",
        "check", "checks/s", "CPU ms/s", "late p50", "p99", "max ms"
    );
    for check in ["tcp", "http"] {
        run(check);
    }
}

fn run(check: &'static str) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, arrivals) = mpsc::channel();
    std::thread::spawn(move || serve(&listener, check, &seen));
    let addr = |n: u32| {
        format!(
            "'127.{}.{}.{}:{port}'",
            1 + n / 62_500,
            n / 250 % 250,
            1 + n % 250
        )
    };
    let endpoints: Vec<_> = (0..ENDPOINTS).map(addr).collect();
    let text = format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = [{}]\n\
         health = {{ check = '{check}', interval = '{INTERVAL}s', jitter = 0 }}\n",
        endpoints.join(", ")
    );
    let loaded = config::parse_with("bench", &text, config::PortZero::Allowed).unwrap();
    let server = Server::start(&loaded.config).unwrap();
    let clock = Clock::start();
    let pause = |seconds| std::thread::park_timeout(Duration::from_secs(seconds));
    pause(INTERVAL);
    let (cpu, from) = (control_cpu(), clock.now());
    pause(SECONDS - INTERVAL);
    let (cpu, took) = (control_cpu() - cpu, clock.now() - from);
    drop(server);
    let mut last: HashMap<IpAddr, u64> = HashMap::new();
    let mut late = Vec::new();
    let mut total = 0u64;
    while let Ok((ip, at)) = arrivals.try_recv() {
        total += u64::from(at >= from);
        if let Some(before) = last.insert(ip, at) {
            late.push((at - before).abs_diff(INTERVAL * 1_000_000_000));
        }
    }
    assert_eq!(last.len(), ENDPOINTS as usize, "every endpoint was checked");
    late.sort_unstable();
    let ms = |share: f64| late[((late.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    let seconds = took as f64 / 1e9;
    println!(
        "{check:<8}{:>10.0}{:>14.1}{:>12.2}{:>12.2}{:>12.2}",
        total as f64 / seconds,
        cpu as f64 / 1e6 / seconds,
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
}

/// Notes which endpoint was asked, and when; answers HTTP.
fn serve(listener: &TcpListener, check: &str, seen: &mpsc::Sender<(IpAddr, u64)>) {
    let clock = Clock::start();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let Ok(addr) = stream.local_addr() else {
            continue;
        };
        if seen.send((addr.ip(), clock.now())).is_err() {
            return;
        }
        if check == "http" {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

/// Nanoseconds on a processor of the thread that checks.
fn control_cpu() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            let task = task.ok()?.path();
            let name = std::fs::read_to_string(task.join("comm")).ok()?;
            let times = std::fs::read_to_string(task.join("schedstat")).ok()?;
            let is_control = name.trim() == "isobar-control";
            is_control.then(|| times.split(' ').next()?.parse::<u64>().ok())?
        })
        .sum()
}
