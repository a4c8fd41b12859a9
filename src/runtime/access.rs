//! The access log across reloads: a new one takes over before the old one is closed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{AccessFormat, Config, LogTarget};
use crate::telemetry::access_log::{AccessLog, Format, Settings, Target, WorkerLog};
use crate::telemetry::metrics::registry::Registry;

use super::worker::Command;
use super::workers::Workers;

/// The access log that is written, and those that still have something to write.
#[derive(Debug, Default)]
pub struct Access {
    current: Option<AccessLog>,
    settings: Option<Settings>,
    /// With what the workers drop when they have let go of it.
    old: Vec<(AccessLog, Arc<()>)>,
}

/// What is still written after the last exchange: a disk that stalls longer loses lines.
const PATIENCE: Duration = Duration::from_secs(5);

// === impl Access ===

impl Access {
    /// Opens the first access log; also an end of it for each worker.
    ///
    /// # Errors
    /// The target cannot be opened.
    pub fn start(
        settings: Option<Settings>,
        registry: &Registry,
    ) -> io::Result<(Self, Vec<Option<WorkerLog>>)> {
        let (current, ends) = open(settings.as_ref(), registry)?;
        let access = Self {
            current,
            settings,
            old: Vec::new(),
        };
        Ok((access, ends))
    }

    /// Opens the log that `settings` ask for, if it is not the one that is written: what
    /// [`Access::switch`] takes.
    ///
    /// # Errors
    /// The target cannot be opened; nothing has changed.
    pub fn prepare(&self, settings: Option<Settings>, registry: &Registry) -> io::Result<Next> {
        if settings == self.settings {
            return Ok(Next(None));
        }
        let opened = open(settings.as_ref(), registry)?;
        Ok(Next(Some((settings, opened))))
    }

    /// Makes the workers write the new log.
    pub fn switch(&mut self, next: Next, workers: &Workers) {
        let Some((settings, (log, ends))) = next.0 else {
            return;
        };
        self.settings = settings;
        let done = Arc::new(());
        let mut ends = ends.into_iter();
        workers.tell(|_| Command::Log {
            log: ends.next().flatten(),
            done: done.clone(),
        });
        if let Some(old) = std::mem::replace(&mut self.current, log) {
            self.old.push((old, done));
        }
    }

    /// Closes old logs that no worker writes any more.
    pub fn tidy(&mut self) {
        let (done, busy) = std::mem::take(&mut self.old)
            .into_iter()
            .partition(|(_, done)| Arc::strong_count(done) == 1);
        self.old = busy;
        close(done);
    }

    /// Opens the file anew (after a rotation).
    pub fn reopen(&self) {
        if let Some(log) = &self.current {
            log.reopen();
        }
    }

    /// Writes what is left, waiting a while: the workers have ended.
    pub fn shutdown(self) {
        close(self.old);
        if let Some(log) = self.current {
            end(log);
        }
    }
}

/// A log that is open and not yet written.
#[derive(Debug)]
pub struct Next(Option<(Option<Settings>, Opened)>);

/// A log, and an end of it for each worker.
type Opened = (Option<AccessLog>, Vec<Option<WorkerLog>>);

/// What `config` wants of the access log.
pub fn settings(config: &Config) -> Option<Settings> {
    let access = config.log.access.as_ref()?;
    Some(Settings {
        format: match access.format {
            AccessFormat::Combined => Format::Combined,
            AccessFormat::Common => Format::Common,
            AccessFormat::Json => Format::Json,
            AccessFormat::Text => Format::Text,
        },
        target: match &access.to {
            LogTarget::File(path) => Target::File(path.clone()),
            LogTarget::Stderr => Target::Stderr,
            LogTarget::Stdout => Target::Stdout,
        },
        sample: access.sample,
    })
}

fn open(settings: Option<&Settings>, registry: &Registry) -> io::Result<Opened> {
    Ok(match settings {
        Some(settings) => {
            let (log, ends) = AccessLog::start(settings, registry)?;
            (Some(log), ends.into_iter().map(Some).collect())
        }
        None => (None, (0..registry.workers()).map(|_| None).collect()),
    })
}

fn close(logs: Vec<(AccessLog, Arc<()>)>) {
    for (log, _) in logs {
        end(log);
    }
}

fn end(log: AccessLog) {
    if let Err(error) = log.shutdown(PATIENCE) {
        tracing::warn!(%error, "the last lines of the access log may be missing");
    }
}
