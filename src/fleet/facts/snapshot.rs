//! The facts on disk, `fleet.facts` in `state_dir`: who this peer is, and what it knew when it last saved.
//!
//! A peer that starts while every other is away acts on it. What cannot be understood is set aside, never
//! deleted or written over.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::base::file::{self, Unsaved};
use crate::fleet::fact::{Fact, GC_AFTER, MAX_FACT};
use crate::fleet::id::PeerId;

use super::{Facts, MAX_EVER};

/// Its name in `state_dir`.
pub const FILE: &str = "fleet.facts";

/// Of the format. A process refuses a newer one rather than lose what it does not know. An older one is set aside:
/// version 1, which was never released, did not know since when a peer knows what the fleet says.
pub const VERSION: u32 = 2;

/// No text file, and no other program's.
const MAGIC: [u8; 8] = *b"isobar\x00F";

/// Magic, version, checksum of all that follows it, length of the content. So in all versions to come: what is
/// damaged is told from what is newer.
const HEAD: usize = MAGIC.len() + 4 + 4 + 8;

/// Largest file read: all facts at their longest, and the head.
const MAX_BYTES: u64 = (MAX_EVER * MAX_FACT + 4096) as u64;

/// What a peer knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Who it is.
    pub peer: PeerId,
    /// Its fleet's name.
    pub fleet: String,
    /// When it was saved, in milliseconds since 1970.
    pub saved_unix_ms: u64,
    /// In the order of their keys. Not checked: they are merged like any other.
    pub facts: Vec<Fact>,
}

/// What [`load`] found.
#[derive(Debug)]
pub enum Loaded {
    /// No file: a peer that is new.
    Fresh,
    /// A file that cannot be used, which is kept under another name: a peer that is new, and an operator must
    /// know.
    SetAside(SetAside),
    /// What this peer knew.
    Known(Snapshot),
    /// This peer, but what it knew is older than [`GC_AFTER`]: others have forgotten what was taken back since, and
    /// it would bring that back if it told it. For [`Peer::remember`](crate::fleet::peer::Peer::remember).
    Past(Snapshot),
}

/// A snapshot that cannot be used.
#[derive(Debug, Error)]
#[error(
    "the facts of the fleet in {} are not used: {why}; the file is kept as {}, and this peer starts as a new one and asks the others",
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

/// What is wrong with a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// It is not as it was written.
    #[error("it is damaged ({0})")]
    Damaged(&'static str),
    /// It is of a peer of another fleet.
    #[error("they are of the fleet `{0}`")]
    Fleet(String),
    /// It is of an older program, whose format this one does not read.
    #[error("they have format version {0}, and this program reads version {VERSION}")]
    Older(u32),
    /// It is larger than any that this program writes.
    #[error("it is larger than {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
}

/// The snapshot is in the way: nothing has changed on disk.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A newer program wrote it.
    #[error(
        "the facts of the fleet in {} have format version {version}, this program knows {VERSION}; start the newer program, or move the file away (the peer then is a new one)",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It cannot be read.
    #[error("cannot read the facts of the fleet in {}; is the file readable for the user that isobar runs as?", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be used, and cannot be renamed either.
    #[error(
        "the facts of the fleet in {} cannot be used ({why}), and the file cannot be set aside; move it away and restart",
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

/// The facts could not be saved.
#[derive(Debug, Error)]
pub enum SaveError {
    /// They are in the file, but may be lost if the power fails now.
    #[error("cannot flush the folder of {}: after a power cut the facts may be those of before", .path.display())]
    Flush {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// They were not written; the file is as before.
    #[error(
        "cannot write the facts of the fleet to {}; `state_dir` must exist, have room, and be writable for the user that isobar runs as",
        .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The content of a file to be: made where the facts are, written where blocking is allowed.
#[derive(Clone, Debug)]
pub struct Image(Vec<u8>);

/// The content of a [`Snapshot`] whose facts are elsewhere: the same bytes.
#[derive(Serialize)]
struct Content<'a> {
    peer: PeerId,
    fleet: &'a str,
    saved_unix_ms: u64,
    facts: Vec<&'a Fact>,
}

enum Unusable {
    Newer(u32),
    Why(Why),
}

/// Reads the snapshot in `state_dir`. Blocks.
///
/// # Errors
/// [`LoadError`]: there is something that can neither be used nor set aside. Whoever starts nevertheless must not
/// save.
pub fn load(state_dir: &Path, fleet: &str, unix_ms: u64) -> Result<Loaded, LoadError> {
    let path = state_dir.join(FILE);
    let bytes = match file::read(&path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Loaded::Fresh),
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    let why = match decode(&bytes) {
        Ok(snapshot) if snapshot.fleet == fleet => return Ok(aged(snapshot, unix_ms)),
        // As an operator reads it: the file is somebody's.
        Ok(snapshot) => Why::Fleet(snapshot.fleet.escape_debug().take(128).collect()),
        Err(Unusable::Newer(version)) => return Err(LoadError::Newer { path, version }),
        Err(Unusable::Why(why)) => why,
    };
    match file::set_aside(&path) {
        Ok(kept) => Ok(Loaded::SetAside(SetAside { path, kept, why })),
        Err(source) => Err(LoadError::SetAside { path, why, source }),
    }
}

/// Saves a snapshot in `state_dir`. Blocks for two flushes of the disk.
///
/// # Errors
/// [`SaveError::Write`]: the file is as before. [`SaveError::Flush`]: it is the new one.
pub fn save(state_dir: &Path, image: &Image) -> Result<(), SaveError> {
    let path = state_dir.join(FILE);
    match file::replace(&path, &image.0) {
        Ok(()) => Ok(()),
        Err(Unsaved::Written(source)) => Err(SaveError::Write { path, source }),
        Err(Unsaved::Flushed(source)) => Err(SaveError::Flush { path, source }),
    }
}

fn aged(snapshot: Snapshot, unix_ms: u64) -> Loaded {
    let age_ms = unix_ms.saturating_sub(snapshot.saved_unix_ms);
    if u128::from(age_ms) <= GC_AFTER.as_millis() {
        return Loaded::Known(snapshot);
    }
    Loaded::Past(snapshot)
}

fn decode(bytes: &[u8]) -> Result<Snapshot, Unusable> {
    let damaged = |what| Unusable::Why(Why::Damaged(what));
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unusable::Why(Why::TooLarge));
    }
    let Some((head, content)) = bytes.split_at_checked(HEAD) else {
        return Err(damaged("it is cut off"));
    };
    let (magic, head) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(damaged("it does not begin as it should"));
    }
    let (version, rest) = head.split_at(4);
    let (sum, len) = rest.split_at(4);
    if u64_of(len) != content.len() as u64 {
        return Err(damaged("its length is not what it was"));
    }
    // Before the version is believed.
    if u64_of(sum) != u64::from(checksum(version, content)) {
        return Err(damaged("its checksum is wrong"));
    }
    match u64_of(version) as u32 {
        VERSION => {}
        version if version > VERSION => return Err(Unusable::Newer(version)),
        0 => return Err(damaged("there never was such a version")),
        version => return Err(Unusable::Why(Why::Older(version))),
    }
    match postcard::take_from_bytes(content) {
        Ok((snapshot, [])) => Ok(snapshot),
        Ok(_) | Err(_) => Err(damaged("it cannot be decoded")),
    }
}

fn checksum(version: &[u8], content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(version);
    crc.update(&(content.len() as u64).to_le_bytes());
    crc.update(content);
    crc.finalize()
}

/// A number of up to eight bytes, the lowest first.
fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

// === impl Image ===

impl Image {
    /// Of what a peer knows now.
    pub fn new(peer: PeerId, fleet: &str, unix_ms: u64, facts: &Facts) -> Self {
        Self::with(peer, fleet, unix_ms, facts.iter().collect())
    }

    /// Of these facts, as of `unix_ms`.
    pub fn with(peer: PeerId, fleet: &str, unix_ms: u64, facts: Vec<&Fact>) -> Self {
        let content = Content {
            peer,
            fleet,
            saved_unix_ms: unix_ms,
            facts,
        };
        // Facts that are held can be encoded.
        let content = postcard::to_allocvec(&content).unwrap_or_default();
        let version = VERSION.to_le_bytes();
        let mut bytes = Vec::with_capacity(HEAD + content.len());
        bytes.extend(MAGIC);
        bytes.extend(version);
        bytes.extend(checksum(&version, &content).to_le_bytes());
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend(content);
        Self(bytes)
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
