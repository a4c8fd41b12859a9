//! The writer: one thread, one target; errors are counted and it goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::worker::WorkerLog;
use super::{SPARE_BUFFERS, Settings, Target};
use crate::telemetry::metrics::cells::LogWriterCells;
use crate::telemetry::metrics::registry::Registry;

/// The access log of a server: starts the writer, gives each worker its end, reopens, ends.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    orders: Arc<Orders>,
    /// Nothing is ever sent: it disconnects when the writer ends.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

/// What a worker hands over.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) worker: usize,
    pub(super) buffer: Vec<u8>,
    pub(super) count: u64,
}

#[derive(Debug)]
pub(super) enum Message {
    Lines(Lines),
    /// Look at the [`Orders`].
    Wake,
}

/// Orders are flags, not messages, so that they need no place in the queue: a full queue wakes the
/// writer anyway.
#[derive(Debug, Default)]
struct Orders {
    reopen: AtomicBool,
    stop: AtomicBool,
}

struct Writer {
    target: Target,
    /// `None` after a failed reopen: the next buffer tries again.
    out: Option<File>,
    /// A write broke off within a line: the next one starts on a new line.
    torn: bool,
    cells: Arc<LogWriterCells>,
    spares: Vec<SyncSender<Vec<u8>>>,
    orders: Arc<Orders>,
}

// === impl AccessLog ===

impl AccessLog {
    /// Opens the target, starts the writer, and makes an end for each of the registry's workers.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started; nothing is left behind.
    pub fn start(settings: &Settings, registry: &Registry) -> io::Result<(Self, Vec<WorkerLog>)> {
        let out = open(&settings.target)?;
        let workers = registry.workers();
        // Room for every buffer of every worker (the one being filled included) and some wake-ups.
        let (queue, messages) = sync_channel(workers * (SPARE_BUFFERS + 1) + 4);
        let mut spares = Vec::with_capacity(workers);
        let mut ends = Vec::with_capacity(workers);
        for worker in 0..workers {
            let (give, spare) = sync_channel(SPARE_BUFFERS + 1);
            spares.push(give);
            let cells = registry.worker_cells();
            ends.push(WorkerLog::new(
                worker,
                settings,
                cells,
                queue.clone(),
                spare,
            ));
        }
        let orders = Arc::<Orders>::default();
        let mut writer = Writer {
            target: settings.target.clone(),
            out: Some(out),
            torn: false,
            cells: registry.log_writer(),
            spares,
            orders: Arc::clone(&orders),
        };
        let (alive, ended) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("isobar-access".to_owned())
            .spawn(move || {
                writer.run(&messages);
                drop::<SyncSender<()>>(alive);
            })?;
        Ok((
            Self {
                queue,
                orders,
                ended,
                thread,
            },
            ends,
        ))
    }

    /// Asks the writer to open its file anew (after a rotation); does not wait for it. What was
    /// handed over before goes to the old file or the new one, never lost.
    pub fn reopen(&self) {
        self.order(&self.orders.reopen);
    }

    /// Ends the writer once all that was handed over is written; waits for it at most `patience`.
    /// Drop (or flush) the workers' ends first.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`]: the target takes nothing; the thread is left to itself, and
    /// what it still holds is lost with the process.
    pub fn shutdown(self, patience: Duration) -> io::Result<()> {
        self.order(&self.orders.stop);
        drop(self.queue);
        match self.ended.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self
                .thread
                .join()
                .map_err(|_| io::Error::other("access-log writer panicked")),
        }
    }

    fn order(&self, flag: &AtomicBool) {
        // Release pairs with the writer's acquire: an order given after a hand-over is seen with
        // that hand-over in the queue.
        flag.store(true, Ordering::Release);
        let _ = self.queue.try_send(Message::Wake);
    }
}

fn open(target: &Target) -> io::Result<File> {
    match target {
        Target::File(path) => {
            use std::os::unix::fs::FileTypeExt;
            // Opening a FIFO to write waits for its reader; to read as well, it waits for nobody
            // (fifo(7)). Without a reader lines fill the pipe, and then are dropped and counted.
            let is_fifo = path.metadata().is_ok_and(|m| m.file_type().is_fifo());
            OpenOptions::new()
                .create(!is_fifo)
                .append(true)
                .read(is_fifo)
                .open(path)
        }
        // Duplicates: no lock and no line buffer of the standard library in between.
        Target::Stderr => Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
        Target::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
    }
}

// === impl Writer ===

impl Writer {
    /// Until told to stop, or every worker's end and the [`AccessLog`] are gone.
    fn run(&mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            self.take(message);
            if self.orders.reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            if self.orders.stop.load(Ordering::Acquire) {
                while let Ok(message) = messages.try_recv() {
                    self.take(message);
                }
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        let Message::Lines(Lines {
            worker,
            mut buffer,
            count,
        }) = message
        else {
            return;
        };
        match self.write(&buffer) {
            Ok(()) => {
                self.cells.lines.add(count);
                self.cells.bytes.add(buffer.len() as u64);
            }
            Err(error) => {
                if self.cells.errors.value() == 0 {
                    tracing::warn!(%error, "access log: cannot write; lines are being lost");
                }
                self.cells.errors.inc();
                self.cells.lost_lines.add(count);
            }
        }
        buffer.clear();
        if let Some(spare) = self.spares.get(worker) {
            // Full or gone: the worker has all its buffers, or has ended.
            let _ = spare.try_send(buffer);
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert(open(&self.target)?),
        };
        if self.torn {
            out.write_all(b"\n")?;
            self.torn = false;
        }
        while !bytes.is_empty() {
            match out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.torn = bytes[n - 1] != b'\n';
                    bytes = &bytes[n..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn reopen(&mut self) {
        if !matches!(self.target, Target::File(_)) {
            return;
        }
        match open(&self.target) {
            Ok(out) => {
                self.out = Some(out);
                self.torn = false;
            }
            // The old file stays: lines in a renamed file are better than none.
            Err(error) => {
                tracing::warn!(%error, "access log: cannot reopen; the old file stays");
                self.cells.errors.inc();
            }
        }
    }
}
