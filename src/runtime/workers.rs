//! The worker threads, as the control plane holds them.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::worker::Command;

/// All worker threads of a server.
#[derive(Debug, Default)]
pub struct Workers {
    threads: Vec<WorkerThread>,
}

#[derive(Debug)]
struct WorkerThread {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<io::Result<()>>,
}

/// Commands waiting for a worker. A reload sends one or two a listener that it touches; a worker
/// takes them between two turns.
pub const COMMANDS: usize = 1024;

/// How long to wait for a place in a queue that is full: a turn of a worker takes microseconds.
const FULL: Duration = Duration::from_millis(1);

// === impl Workers ===

impl Workers {
    /// Adds a thread that follows what is sent to `commands`.
    pub fn add(&mut self, commands: mpsc::Sender<Command>, thread: JoinHandle<io::Result<()>>) {
        self.threads.push(WorkerThread { commands, thread });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Tells each worker, in order; `command` is called with its index. Waits for a place in the
    /// queue of a worker that is behind, so it must not be called on a worker or inside a runtime.
    pub fn tell(&self, mut command: impl FnMut(usize) -> Command) {
        for index in 0..self.threads.len() {
            self.tell_one(index, command(index));
        }
    }

    /// Tells the worker of that index, as [`Workers::tell`] does.
    pub fn tell_one(&self, index: usize, mut command: Command) {
        let Some(worker) = self.threads.get(index) else {
            return;
        };
        loop {
            match worker.commands.try_send(command) {
                // A worker that is gone has said why in the log.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(back)) => {
                    command = back;
                    std::thread::park_timeout(FULL);
                }
            }
        }
    }

    /// Whether every worker has ended.
    pub fn have_ended(&self) -> bool {
        self.threads.iter().all(|w| w.thread.is_finished())
    }

    /// Waits for all of them to end: they were told to.
    pub fn join(&mut self) {
        for worker in self.threads.drain(..) {
            drop(worker.commands);
            match worker.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker could not run"),
                Err(_) => tracing::error!("a worker panicked; its connections were lost"),
            }
        }
    }
}
