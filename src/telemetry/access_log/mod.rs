//! The access log: one line an exchange, formatted by the worker, written by one thread.
//!
//! A worker formats into a 64 KiB buffer of its own and hands full ones (and, on a timer, started
//! ones) to the writer over a bounded queue; empty ones come back. A worker owns [`SPARE_BUFFERS`]
//! and one, never more: when the writer is behind and none is left, new lines are dropped and
//! counted. No worker waits for a disk, takes a lock, or allocates for a line.
//!
//! ```text
//! WorkerLog::write -> format -> buffer --full/flush--> queue -> Writer -> file | stdout | stderr
//!                                 ^------------- recycled -------'
//! ```

mod entry;
mod escape;
mod format;
mod stamp;
mod worker;
mod writer;

pub use entry::{Ending, Entry, Phase, Timings};
pub use worker::WorkerLog;
pub use writer::AccessLog;

use std::path::PathBuf;

/// Line formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache combined.
    Combined,
    /// Apache common.
    Common,
    /// One JSON object a line.
    Json,
    /// For eyes: a short summary, then `key=value`.
    Text,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, opened for append, reopened on request.
    File(PathBuf),
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
}

/// What the access log of a server is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Line format.
    pub format: Format,
    /// Where lines go.
    pub target: Target,
    /// Share of exchanges logged, 0.0-1.0.
    pub sample: f64,
}

/// Size of a buffer: some 150 JSON lines of 400 bytes, written by one system call.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers of a worker that may be on the way to the writer. With the one being filled 512 KiB a
/// worker: 1,300 JSON lines, 10 ms of a stalled disk at 130,000 requests/s.
pub const SPARE_BUFFERS: usize = 7;

#[cfg(test)]
mod tests;
