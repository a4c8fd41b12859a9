//! What the integration tests stand on: a scripted origin, a raw client, the proxy under test.
//!
//! Everything here is blocking and on threads of its own, so a test is a plain function read from
//! top to bottom. Every wait ends after [`DEADLINE`] with a panic that says what was awaited.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests' own clock: deadlines of waits, not behaviour of the proxy"
)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code outside #[test] functions: a panic is the report, stderr is the test's"
)]
#![expect(
    unreachable_pub,
    reason = "a kit for all test files: not each of them uses each tool"
)]

pub mod asking;
pub mod binary;
pub mod certs;
pub mod child;
pub mod client;
pub mod control;
pub mod eventually;
pub mod fleet;
pub mod gate;
pub mod grpc;
pub mod h2;
pub mod h2_origin;
pub mod h2raw;
pub mod hello;
pub mod namespaces;
pub mod openssl;
pub mod origin;
pub mod proxied;
pub mod proxy;
pub mod relay;
pub mod running;
#[cfg(test)]
mod selftest;
pub mod tcp;
pub mod tls;
pub mod udp;
pub mod unreachable;
pub mod watched;
pub mod wire;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything may be awaited: far above what a loaded two-core machine needs, and small
/// enough that a hang is reported while somebody still looks.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The end of a wait that starts now.
pub fn deadline() -> Instant {
    Instant::now() + DEADLINE
}

/// Now, for waits shorter than [`DEADLINE`].
pub fn now() -> Instant {
    Instant::now()
}

/// What is left until `deadline`; panics with `what` when nothing is.
#[track_caller]
pub fn remaining(deadline: Instant, what: &str) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    assert!(!left.is_zero(), "not within {DEADLINE:?}: {what}");
    left
}

/// The path of `tool`, or `None` after having said that this test could not run.
///
/// libtest hides what a passing test prints, so the line goes to the file named by
/// `ISOBAR_NOT_RUN` as well, which `tests/run` sets, collects and counts.
pub fn need(tool: &str) -> Option<PathBuf> {
    let found = find(tool);
    if found.is_none() {
        report_not_run(
            &test_name(),
            &format!("{tool} is not installed"),
            std::env::var_os("ISOBAR_NOT_RUN").map(PathBuf::from),
        );
    }
    found
}

/// Says that this test could not run, for want of something that is no tool.
pub fn not_run(why: &str) {
    let file = std::env::var_os("ISOBAR_NOT_RUN").map(PathBuf::from);
    report_not_run(&test_name(), why, file);
}

/// The same without a word if it is absent.
pub fn find(tool: &str) -> Option<PathBuf> {
    // Servers live in sbin, which an ordinary user's PATH does not name.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
}

/// `long` under `tests/run --all` (`ISOBAR_LONG=1`), else `short`: a long test is never absent,
/// only shorter.
pub fn scaled<T>(short: T, long: T) -> T {
    if std::env::var_os("ISOBAR_LONG").is_some() {
        long
    } else {
        short
    }
}

fn report_not_run(test: &str, why: &str, file: Option<PathBuf>) {
    let line = format!("NOT RUN: {test}: {why}\n");
    eprint!("{line}");
    if let Some(file) = file {
        // One write in append mode: lines of parallel tests do not mix.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut f| f.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("cannot append to {}: {e}", file.display()));
    }
}

/// libtest names the thread after the test; nextest runs each alone, with the name as argument.
fn test_name() -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => std::env::args()
            .nth(1)
            .unwrap_or_else(|| "unknown test".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_of_every_machine_is_found() {
        assert!(need("sh").is_some());
    }

    #[test]
    fn absent_tool_is_named_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not-run");
        report_not_run(
            &test_name(),
            "frobnicate is not installed",
            Some(file.clone()),
        );
        report_not_run("other", "why", Some(file.clone()));
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(
            text,
            "NOT RUN: support::tests::absent_tool_is_named_in_the_file: \
             frobnicate is not installed\nNOT RUN: other: why\n"
        );
    }
}
