//! What does an access line cost the worker, and what a counter and a histogram?
//!
//! `cargo bench --bench log`: nanoseconds per operation, the fastest and the median of the rounds.
//! Lines go through the whole of `WorkerLog::write`, the hand-over to a writer thread included; the
//! target is a file on a memory file system where there is one (`/dev/shm`), so that the writer keeps
//! up on one core less than the machine has.

#![expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot run has nothing to report"
)]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use isobar::base::clock::Clock;
use isobar::base::rng::Rng;
use isobar::telemetry::access_log::{AccessLog, Entry, Format, Settings, Target, Timings};
use isobar::telemetry::metrics::cell::{Counter, Histogram};
use isobar::telemetry::metrics::registry::Registry;

const ROUNDS: usize = 21;

/// Per round. Fits a worker's eight buffers with room to spare: no round ever drops a line, which
/// would be cheaper than writing one.
const LINES: usize = 400;

fn main() {
    println!(
        "{:<28}{:>10}{:>10}{:>8}",
        "", "min ns", "median ns", "bytes"
    );
    for (name, format) in [
        ("line json", Format::Json),
        ("line combined", Format::Combined),
        ("line common", Format::Common),
        ("line text", Format::Text),
    ] {
        lines(name, format);
    }
    cells();
}

fn lines(name: &str, format: Format) {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    let path = dir.join(format!("isobar-bench-log-{}", std::process::id()));
    let registry = Registry::new(1);
    let settings = Settings {
        format,
        target: Target::File(path.clone()),
        sample: 1.0,
    };
    let (log, mut ends) = AccessLog::start(&settings, &registry).unwrap();
    let mut worker = ends.remove(0);
    let mut rng = Rng::new(1);
    let clock = Clock::start();
    let mut entry = entry();
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let start = clock.now();
        for _ in 0..LINES {
            // A request every 10 us: the second changes as often as it would.
            entry.unix_nanos += 10_000;
            worker.write(black_box(&entry), &mut rng);
        }
        let elapsed = clock.now() - start;
        // The first round makes the buffers.
        if round > 0 {
            rounds.push(elapsed as f64 / LINES as f64);
        }
        // Let the writer catch up, outside the measured time.
        while registry.log_writer().lines.value()
            < registry.worker_cells().worker(0).log_lines.value()
        {
            // A flush without a spare buffer does nothing: ask again once one is back.
            worker.flush();
            std::thread::yield_now();
        }
    }
    drop(worker);
    log.shutdown(Duration::from_secs(10)).unwrap();
    assert_eq!(
        registry.worker_cells().worker(0).log_dropped.value(),
        0,
        "lines were dropped"
    );
    let cells = registry.log_writer();
    report(
        name,
        rounds,
        Some(cells.bytes.value() / cells.lines.value()),
    );
    std::fs::remove_file(path).unwrap();
}

fn cells() {
    let clock = Clock::start();
    let mut rng = Rng::new(2);
    let values: Vec<u64> = (0..4096)
        .map(|_| rng.next_u64() >> (28 + rng.below(24)))
        .collect();
    let (counter, histogram) = (Counter::default(), Histogram::default());
    let mut counts = Vec::new();
    let mut observations = Vec::new();
    for _ in 0..ROUNDS {
        let start = clock.now();
        for &v in &values {
            black_box(&counter).add(v);
        }
        let middle = clock.now();
        for &v in &values {
            black_box(&histogram).observe(v);
        }
        counts.push((middle - start) as f64 / values.len() as f64);
        observations.push((clock.now() - middle) as f64 / values.len() as f64);
    }
    report("counter add", counts, None);
    report("histogram observe", observations, None);
}

fn report(name: &str, mut rounds: Vec<f64>, bytes: Option<u64>) {
    rounds.sort_by(f64::total_cmp);
    let bytes = bytes.map_or_else(String::new, |bytes| bytes.to_string());
    println!(
        "{name:<28}{:>10.1}{:>10.1}{bytes:>8}",
        rounds[0],
        rounds[rounds.len() / 2]
    );
}

/// What a browser's request looks like.
fn entry() -> Entry<'static> {
    Entry {
        unix_nanos: 1_795_231_995_042_000_000,
        client: Some("192.0.2.7".parse().unwrap()),
        peer: Some("10.1.2.3:45678".parse().unwrap()),
        listener: "web",
        route: "api",
        upstream: "app",
        endpoint: "10.0.0.11:8000",
        method: b"GET",
        target: b"/v1/things/4711?sort=name&page=2",
        host: b"api.example.com",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        referer: b"https://shop.example.com/catalogue",
        protocol: "HTTP/1.1",
        request_id: b"01939f6e8a7c4d0fb2a1c3d4e5f60718",
        status: 200,
        attempts: 1,
        bytes_out: 5_120,
        timings: Timings {
            head: Some(12_345),
            picked: Some(15_000),
            connected: Some(16_999),
            first_byte: Some(1_234_567),
            total: 1_345_678,
        },
        ..Entry::default()
    }
}
