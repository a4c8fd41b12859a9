//! The program's own log: `tracing` events to standard error.
//!
//! Library code only uses the macros of `tracing`; the program decides here where they go.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Registry, reload};

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object an event.
    Json,
    /// For eyes; in colour on a terminal.
    #[default]
    Text,
}

/// Sends events at `level` and above to standard error.
///
/// # Errors
/// When the process has a subscriber already (tests, an embedding program): it stays in place.
pub fn init(level: Level, format: LogFormat) -> Result<LevelSwitch, TryInitError> {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let base = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(level >= Level::DEBUG);
    let ours = filter_fn(|event| {
        // It warns of each folder that is gone before it is forgotten, as with every swap of a
        // Kubernetes volume. What matters it returns as an error.
        !event.target().starts_with("notify")
    });
    let registry = tracing_subscriber::registry().with(filter).with(ours);
    match format {
        LogFormat::Json => registry.with(base.json().flatten_event(true)).try_init()?,
        LogFormat::Text => registry
            .with(base.with_ansi(io::stderr().is_terminal()))
            .try_init()?,
    }
    Ok(LevelSwitch(handle))
}

/// Changes the level while the program runs.
#[derive(Clone, Debug)]
pub struct LevelSwitch(reload::Handle<LevelFilter, Registry>);

// === impl LevelSwitch ===

impl LevelSwitch {
    /// Shows events at `level` and above from now on.
    pub fn set(&self, level: Level) {
        // It fails only when the subscriber is gone, and with it the log.
        let _ = self
            .0
            .modify(|filter| *filter = LevelFilter::from_level(level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because the subscriber is the process's: the only global of the crate.
    #[test]
    fn second_init_is_refused_and_harmless() {
        let _ = init(Level::WARN, LogFormat::Text);
        assert!(init(Level::TRACE, LogFormat::Json).is_err());
        tracing::debug!("not shown");
    }
}
