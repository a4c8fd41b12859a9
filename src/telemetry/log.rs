//! The program's own log: `tracing` events to standard error.
//!
//! Library code only uses the macros of `tracing`; the program decides here where they go.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

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
pub fn init(level: Level, format: LogFormat) -> Result<(), TryInitError> {
    let base = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from_level(level))
        .with_writer(io::stderr)
        .with_target(level >= Level::DEBUG);
    match format {
        LogFormat::Json => base.json().flatten_event(true).finish().try_init(),
        LogFormat::Text => base
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .try_init(),
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
