//! Configuration: text -> document (TOML with spans) -> [`Config`] (checked).
//!
//! Every problem is reported at once, each with its file, line, the offending text and help.
//! - [`load`] reads a file and what it includes; [`parse`] takes a text (tests, embedders).
//! - `reader` and `node` are a typed view of TOML tables and values that records problems and goes
//!   on; `lower` uses it to build the [`model`].
//! - `schema` mirrors the keys for editors; a test keeps the two in step.
//! - [`effective`] writes a checked configuration out again, every default filled in; [`diff`]
//!   tells what differs between two.
//! - `secret` reads files that hold a secret: the model has their paths only.
//! - Units: [`units`]. Problems: [`diagnostic`]. Changes of the files: [`watch`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub mod diagnostic;
pub mod diff;
pub mod effective;
mod include;
mod lower;
pub mod model;
pub mod name;
mod node;
mod reader;
mod schema;
pub(crate) mod secret;
mod source;
mod suggest;
pub mod units;
pub mod watch;

pub use diagnostic::{Diagnostic, Severity};
pub use model::*;
pub use schema::schema;

use diagnostic::Report;
use source::Source;

/// A configuration that may be served, and what there is to know about its making.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// The main file first, then what it includes, in the order of reading.
    pub files: Vec<PathBuf>,
    /// Hash of the texts of all files, in order: equal texts, equal hash.
    pub hash: u64,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Problems {
    /// The texts are wrong: all errors and warnings, by file and position.
    Invalid(Vec<Diagnostic>),
    /// The main file cannot be read.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What port 0 ("any free port") in a `bind` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortZero {
    /// Any free port: for tests and embedders, who ask the server which one it got.
    Allowed,
    /// An error: nobody could find the listener.
    Refused,
}

/// Reads a configuration file and everything it includes.
///
/// # Errors
/// [`Problems::Io`] when `path` itself cannot be read; [`Problems::Invalid`] for everything else,
/// unreadable includes too.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let main = Source::read(path).map_err(|source| Problems::Io {
        path: path.into(),
        source,
    })?;
    finish(main, PortZero::Refused)
}

/// Checks a text; `name` stands for the file in messages, and relative paths start at its folder.
///
/// # Errors
/// [`Problems::Invalid`] with all problems of the text.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    parse_with(name, text, PortZero::Refused)
}

/// [`parse`] with a say about port 0 in `bind`.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(name: &str, text: &str, port_zero: PortZero) -> Result<Loaded, Problems> {
    finish(Source::new(Path::new(name), text.to_owned()), port_zero)
}

fn finish(main: Source, port_zero: PortZero) -> Result<Loaded, Problems> {
    let report = Report::default();
    let sources = include::gather(main, &report);
    let config = lower::lower(&sources, &report, port_zero);
    let problems = report.into_sorted();
    match config {
        Some(config) if problems.iter().all(|p| p.severity == Severity::Warning) => Ok(Loaded {
            config,
            warnings: problems,
            files: sources.iter().map(|s| s.path.clone()).collect(),
            hash: source::hash(&sources),
        }),
        _ => Err(Problems::Invalid(problems)),
    }
}

// === impl Problems ===

impl Problems {
    /// The diagnostics; none for [`Problems::Io`].
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(all) => all,
            Self::Io { .. } => &[],
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(all) => diagnostic::render_all(all, f),
            Self::Io { path, .. } => write!(f, "cannot read {}", path.display()),
        }
    }
}

impl std::error::Error for Problems {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Invalid(_) => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

#[cfg(test)]
mod tests;
