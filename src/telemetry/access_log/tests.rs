//! The way of a line: worker, buffers, writer, file.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::rng::Rng;
use crate::telemetry::metrics::registry::Registry;

/// Long enough for a loaded machine, short enough to fail a hung test.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    registry: Registry,
    settings: Settings,
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::File(dir.path().join("access.log"));
        let settings = Settings {
            format: Format::Common,
            target,
            sample: 1.0,
        };
        Self {
            registry: Registry::new(2),
            settings,
            dir,
        }
    }

    fn start(&self) -> (AccessLog, Vec<WorkerLog>) {
        AccessLog::start(&self.settings, &self.registry).unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    fn dropped(&self) -> u64 {
        self.registry.worker_cells().sum(|c| c.log_dropped.value())
    }
}

fn entry(target: &[u8]) -> Entry<'_> {
    Entry {
        method: b"GET",
        target,
        protocol: "HTTP/1.1",
        status: 200,
        ..Entry::default()
    }
}

#[test]
fn every_line_of_every_worker_is_written_before_shutdown_returns() {
    let bed = Bed::new();
    let (log, workers) = bed.start();
    let threads: Vec<_> = workers
        .into_iter()
        .enumerate()
        .map(|(i, mut worker)| {
            std::thread::spawn(move || {
                for n in 0..1000 {
                    worker.write(&entry(format!("/{i}/{n}").as_bytes()), &mut Rng::new(1));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    log.shutdown(PATIENCE).unwrap();
    let text = bed.read("access.log");
    for i in 0..2 {
        let own: Vec<_> = text
            .lines()
            .filter(|l| l.contains(&format!("GET /{i}/")))
            .collect();
        assert_eq!(own.len(), 1000);
        for (n, line) in own.iter().enumerate() {
            assert!(
                line.contains(&format!("\"GET /{i}/{n} HTTP/1.1\" 200 -")),
                "{line}"
            );
        }
    }
    assert_eq!(
        bed.registry.worker_cells().sum(|c| c.log_lines.value()),
        2000
    );
    assert_eq!(bed.registry.log_writer().lines.value(), 2000);
    assert_eq!(bed.registry.log_writer().bytes.value(), text.len() as u64);
    assert_eq!(bed.dropped(), 0);
}

/// The writer is stuck in a write (a pipe nobody reads): the worker goes on, memory is bounded, and
/// every line is either in the pipe's order or counted as dropped.
#[test]
fn stuck_target_drops_and_counts_and_never_blocks() {
    let bed = Bed::new();
    let pipe = bed.dir.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    // Opened for reading and writing, so that neither open waits for the other.
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let settings = Settings {
        target: Target::File(pipe),
        ..bed.settings.clone()
    };
    let (log, mut workers) = AccessLog::start(&settings, &bed.registry).unwrap();
    let total = 20_000;
    for n in 0..total {
        workers[0].write(&entry(format!("/{n}").as_bytes()), &mut Rng::new(1));
    }
    let dropped = bed.dropped();
    assert!(dropped > 0);
    let kept = total - dropped;
    assert_eq!(
        bed.registry.worker_cells().sum(|c| c.log_lines.value()),
        kept
    );
    let bytes = kept * 80;
    assert!(
        bytes < (BUFFER_BYTES * (SPARE_BUFFERS + 1)) as u64 * 2,
        "{kept} lines kept"
    );
    assert_eq!(
        log.shutdown(Duration::from_millis(1)).unwrap_err().kind(),
        std::io::ErrorKind::TimedOut
    );
    // Drain the pipe, so that the writer can end and its thread is not left behind.
    drop(workers);
    // Gaps are where lines were dropped: the first write fills the pipe and gives its buffer back,
    // sooner or later.
    let lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    let mut last = None;
    for line in lines.take(kept as usize) {
        let line = line.unwrap();
        let n = line.split("GET /").nth(1).and_then(|l| l.split(' ').next());
        let n: u64 = n.unwrap().parse().unwrap();
        assert!(last < Some(n), "{n} after {last:?}");
        last = Some(n);
    }
}

#[test]
fn reopen_follows_a_rotation() {
    let bed = Bed::new();
    let (log, mut workers) = bed.start();
    workers[0].write(&entry(b"/before"), &mut Rng::new(1));
    workers[0].flush();
    assert!(workers[0].is_empty());
    while bed.registry.log_writer().lines.value() < 1 {
        std::thread::yield_now();
    }
    let file = |name: &str| bed.dir.path().join(name);
    fs::rename(file("access.log"), file("access.log.1")).unwrap();
    log.reopen();
    while !file("access.log").exists() {
        std::thread::yield_now();
    }
    workers[0].write(&entry(b"/after"), &mut Rng::new(1));
    drop(workers);
    log.shutdown(PATIENCE).unwrap();
    assert!(bed.read("access.log.1").contains("/before"));
    assert!(bed.read("access.log").contains("/after"));
    assert!(!bed.read("access.log").contains("/before"));
}

/// /dev/full answers every write with ENOSPC: a full disk.
#[test]
fn full_disk_is_counted_and_survived() {
    let bed = Bed::new();
    let settings = Settings {
        target: Target::File("/dev/full".into()),
        ..bed.settings.clone()
    };
    let (log, mut workers) = AccessLog::start(&settings, &bed.registry).unwrap();
    let cells = bed.registry.log_writer();
    for round in 1..=20 {
        workers[1].write(&entry(b"/x"), &mut Rng::new(1));
        workers[1].flush();
        while cells.errors.value() < round {
            std::thread::yield_now();
        }
    }
    assert_eq!((cells.lost_lines.value(), cells.lines.value()), (20, 0));
    drop(workers);
    log.shutdown(PATIENCE).unwrap();
}

#[test]
fn file_that_cannot_be_opened_fails_the_start() {
    let bed = Bed::new();
    let target = Target::File(bed.dir.path().join("no/such/dir/access.log"));
    let settings = Settings {
        target,
        ..bed.settings.clone()
    };
    let error = AccessLog::start(&settings, &bed.registry).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn sample_is_the_share_of_lines() {
    let lines = |sample: f64| {
        let bed = Bed::new();
        let settings = Settings {
            sample,
            ..bed.settings.clone()
        };
        let (log, mut workers) = AccessLog::start(&settings, &bed.registry).unwrap();
        let mut rng = Rng::new(42);
        for _ in 0..1000 {
            workers[0].write(&entry(b"/"), &mut rng);
        }
        drop(workers);
        log.shutdown(PATIENCE).unwrap();
        Arc::clone(&bed.registry.worker_cells()).sum(|c| c.log_lines.value())
    };
    assert_eq!(lines(1.0), 1000);
    assert_eq!(lines(0.0), 0);
    assert_eq!(lines(f64::NAN), 0);
    // Exact under the seed; 250 are expected, with a standard deviation of 14.
    assert_eq!(lines(0.25), 273);
}
