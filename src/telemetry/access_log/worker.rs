//! A worker's end of the access log: sampling, buffers, drops.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::entry::Entry;
use super::format::Formatter;
use super::writer::{Lines, Message};
use super::{BUFFER_BYTES, Settings};
use crate::base::rng::Rng;
use crate::telemetry::metrics::cell::PerWorker;
use crate::telemetry::metrics::cells::WorkerCells;

/// The access log as one worker holds it. Dropped: what is in its buffer goes to the writer.
#[derive(Debug)]
pub struct WorkerLog {
    worker: usize,
    cells: Arc<PerWorker<WorkerCells>>,
    formatter: Formatter,
    /// A draw below it is logged; `None` = all are.
    threshold: Option<u64>,
    current: Vec<u8>,
    lines: u64,
    /// Given out so far: buffers are made when first needed, an idle worker holds none.
    made: usize,
    queue: SyncSender<Message>,
    spare: Receiver<Vec<u8>>,
}

// === impl WorkerLog ===

impl WorkerLog {
    pub(super) fn new(
        worker: usize,
        settings: &Settings,
        cells: Arc<PerWorker<WorkerCells>>,
        queue: SyncSender<Message>,
        spare: Receiver<Vec<u8>>,
    ) -> Self {
        Self {
            worker,
            cells,
            formatter: Formatter::new(settings.format),
            threshold: threshold(settings.sample),
            current: Vec::new(),
            lines: 0,
            made: 0,
            queue,
            spare,
        }
    }

    /// Writes the line of an exchange, or not (sampling; the writer is behind). Never waits.
    #[inline]
    pub fn write(&mut self, entry: &Entry<'_>, rng: &mut Rng) {
        if self
            .threshold
            .is_some_and(|threshold| rng.next_u64() >= threshold)
        {
            return;
        }
        self.write_sampled(entry);
    }

    /// Hands a started buffer to the writer, if there is a spare one to go on with: call it about
    /// every 100 ms. Cheap when there is nothing.
    pub fn flush(&mut self) {
        if self.lines > 0 {
            self.hand_over();
        }
    }

    /// Whether nothing waits for a [`flush`](Self::flush).
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    fn write_sampled(&mut self, entry: &Entry<'_>) {
        let bound = Formatter::bound(entry);
        let full = self.current.capacity() - self.current.len() < bound;
        if full && !self.hand_over() {
            self.cells.worker(self.worker).log_dropped.inc();
            return;
        }
        self.formatter.write(entry, &mut self.current);
        debug_assert!(
            self.current.capacity() == BUFFER_BYTES,
            "a line outgrew its bound"
        );
        self.lines += 1;
        self.cells.worker(self.worker).log_lines.inc();
    }

    /// Puts an empty buffer in the place of the current one, which goes to the writer. False: none
    /// is left, and the current one stays.
    fn hand_over(&mut self) -> bool {
        let empty = match self.spare.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.made <= super::SPARE_BUFFERS => {
                self.made += 1;
                Vec::with_capacity(BUFFER_BYTES)
            }
            Err(_) => return false,
        };
        let buffer = std::mem::replace(&mut self.current, empty);
        self.send(buffer);
        true
    }

    fn send(&mut self, buffer: Vec<u8>) {
        let count = std::mem::take(&mut self.lines);
        if buffer.is_empty() {
            return;
        }
        let message = Message::Lines(Lines {
            worker: self.worker,
            buffer,
            count,
        });
        // The queue holds every buffer there is: it is full only if the writer is gone.
        if self.queue.try_send(message).is_err() {
            self.cells.worker(self.worker).log_dropped.add(count);
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.current);
        self.send(last);
    }
}

/// `sample` of all 64-bit draws.
fn threshold(sample: f64) -> Option<u64> {
    let all = sample >= 1.0;
    // 2^64 as f64 is exact; the cast saturates, and NaN logs nothing.
    (!all).then_some((sample * 18_446_744_073_709_551_616.0) as u64)
}
