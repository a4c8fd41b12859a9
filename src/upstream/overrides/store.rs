//! The file of overrides, `overrides.json` in `state_dir`: what survives a restart.
//!
//! It is written whole and put in place by a rename, so that a reader (the next process of an
//! upgrade, or the one after a power cut) sees the set before a change or after it, never a half.
//! A file that cannot be understood is set aside, never deleted or written over.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::file::{self, Unsaved};

use super::{MAX_ENTRIES, MAX_WEIGHT, OperatorLayer, Overrides, Part, address};

const FILE: &str = "overrides.json";

/// Of the format. A process refuses a newer one rather than lose what it does not know.
const VERSION: u32 = 1;

/// Largest file read: twice what [`MAX_ENTRIES`] entries with the longest texts take.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The file of overrides. Exists only if what was in the file has been read or set aside.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// What [`Store::open`] found.
#[derive(Debug)]
pub struct Opened {
    /// Where to save.
    pub store: Store,
    /// What was saved; empty if there is no file, or none that can be understood.
    pub overrides: Overrides,
    /// The file could not be understood: the process may go on, an operator must know.
    pub set_aside: Option<SetAside>,
}

/// A file of overrides that could not be understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "the overrides in {} are not in force: {why}; the file is kept as {}: repair it, move it back and restart, or set the overrides again",
    .path.display(),
    .kept.display()
)]
pub struct SetAside {
    /// Where it was.
    pub path: PathBuf,
    /// Where it is now.
    pub kept: PathBuf,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a file of overrides.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// It is no JSON, or not of the shape of its version.
    #[error("it is damaged ({0})")]
    Damaged(#[source] serde_json::Error),
    /// It says what no operator could have said.
    #[error("it is out of bounds ({0})")]
    OutOfBounds(String),
    /// It is larger than any that this program writes.
    #[error("it is larger than {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
    /// A newer program wrote it.
    #[error("its format has version {0}, this program knows {VERSION}")]
    Version(u32),
}

/// The file of overrides is in the way: nothing has changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error("cannot read the overrides in {}; is it readable for the user that isobar runs as?", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be understood, and cannot be renamed either.
    #[error(
        "the overrides in {} are not in force ({why}), and the file cannot be set aside; move it away and restart",
        .path.display()
    )]
    SetAside {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Why,
        /// What the system said.
        source: io::Error,
    },
}

/// The overrides could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The set was not written; the file is as before.
    #[error(
        "cannot write the overrides to {}; `state_dir` must exist, have room, and be writable for the user that isobar runs as",
        .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The set is in the file, but may be lost if the power fails now.
    #[error("cannot flush the folder of {}: after a power cut the overrides may be those of before", .path.display())]
    Flush {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The file, version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    upstreams: BTreeMap<String, BTreeMap<String, OperatorLayer>>,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

// === impl Store ===

impl Store {
    /// Reads the overrides in `state_dir`. No folder or no file is no override.
    ///
    /// # Errors
    /// [`OpenError`]: there is something that can neither be read nor set aside. There is no store
    /// then, so that nothing writes over it.
    pub fn open(state_dir: &Path) -> Result<Opened, OpenError> {
        let folder = state_dir.to_owned();
        let path = folder.join(FILE);
        let store = Self { folder };
        let opened = |overrides, set_aside| Opened {
            store,
            overrides,
            set_aside,
        };
        let text = match file::read(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Ok(opened(Overrides::default(), None));
            }
            Err(source) => return Err(OpenError::Read { path, source }),
        };
        match parse(&text) {
            Ok(overrides) => Ok(opened(overrides, None)),
            Err(why) => match file::set_aside(&path) {
                Ok(kept) => {
                    let aside = SetAside { path, kept, why };
                    Ok(opened(Overrides::default(), Some(aside)))
                }
                Err(source) => Err(OpenError::SetAside { path, why, source }),
            },
        }
    }

    /// Saves the whole set. Blocks for two flushes of the disk: not for the thread of a worker.
    ///
    /// # Errors
    /// [`SaveError::Write`]: the file is as before. [`SaveError::Flush`]: it is the new one.
    pub fn save(&self, overrides: &Overrides) -> Result<(), SaveError> {
        let path = self.folder.join(FILE);
        let written = text(overrides).map_err(Unsaved::Written);
        match written.and_then(|text| file::replace(&path, &text)) {
            Ok(()) => Ok(()),
            Err(Unsaved::Written(source)) => Err(SaveError::Write { path, source }),
            Err(Unsaved::Flushed(source)) => Err(SaveError::Flush { path, source }),
        }
    }
}

fn text(overrides: &Overrides) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&Saved::from(overrides))?;
    text.push(b'\n');
    Ok(text)
}

fn parse(text: &[u8]) -> Result<Overrides, Why> {
    if text.len() as u64 > MAX_BYTES {
        return Err(Why::TooLarge);
    }
    // First: a newer format may have another shape altogether.
    let Versioned { version } = serde_json::from_slice(text).map_err(Why::Damaged)?;
    if version != VERSION {
        return Err(Why::Version(version));
    }
    let saved: Saved = serde_json::from_slice(text).map_err(Why::Damaged)?;
    saved.into_overrides().map_err(Why::OutOfBounds)
}

// === impl Saved ===

impl Saved {
    fn into_overrides(self) -> Result<Overrides, String> {
        let mut overrides = Overrides::default();
        let entries: usize = self.upstreams.values().map(BTreeMap::len).sum();
        if entries > MAX_ENTRIES {
            return Err(format!("{entries} endpoints, at most {MAX_ENTRIES}"));
        }
        for (upstream, endpoints) in self.upstreams {
            let name = upstream.as_str().into();
            for (text, layer) in endpoints {
                let wrong = |what: &str| format!("upstream `{upstream}`, endpoint {text}: {what}");
                let addr = address(&text).map_err(|e| wrong(&e.to_string()))?;
                let weights = [&layer.added, &layer.weight];
                if weights
                    .iter()
                    .any(|w| w.as_ref().is_some_and(|s| s.value > MAX_WEIGHT))
                {
                    return Err(wrong(&format!("a weight above {MAX_WEIGHT}")));
                }
                let Some(parts) = layer.into_parts() else {
                    return Err(wrong("says nothing, or contradicts itself"));
                };
                if let Some((part, _)) = parts.said().find(|(_, by)| by.check().is_err()) {
                    return Err(wrong(match part {
                        Part::Added => "`added` has an owner or reason that cannot be",
                        Part::Removed => "`removed` has an owner or reason that cannot be",
                        Part::State => "`state` has an owner or reason that cannot be",
                        Part::Weight => "`weight` has an owner or reason that cannot be",
                    }));
                }
                overrides.put(&name, &addr, parts);
            }
        }
        Ok(overrides)
    }
}

impl From<&Overrides> for Saved {
    fn from(overrides: &Overrides) -> Self {
        let upstreams = overrides.upstreams.iter().map(|(name, endpoints)| {
            let endpoints = endpoints.iter();
            let endpoints = endpoints.map(|(addr, parts)| (addr.to_string(), parts.layer()));
            (name.to_string(), endpoints.collect())
        });
        Self {
            version: VERSION,
            upstreams: upstreams.collect(),
        }
    }
}
