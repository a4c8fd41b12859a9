//! Handing the listening descriptors to a successor process, over a Unix stream between the two.
//!
//! The sockets stay the same ones: what waits in their queues is accepted by the successor, and at
//! no time is an address unbound.
//!
//! # The course of a handover
//! ```text
//! predecessor                                successor
//!   starts it, ISOBAR_HANDOVER=1, one end
//!   of a socketpair as its standard input,
//!   without `systemd::OF_ONE_PROCESS`
//!   send: manifest, descriptors      ---->   receive: each descriptor is checked
//!                                            loads its configuration, `Inherited::bind`s, serves
//!   (waits; gives up after a time)   <----   `Ready`, or `Failed` with the reason
//!   `Go`: it is yours                ---->   owns files that both know (control socket, state)
//!   drains, ends                             drops what it did not take
//! ```
//! A stream that closes before `Ready`, a `Failed` and a deadline are one thing to the predecessor:
//! it keeps serving as if nothing had been; so the descriptors that it sends are copies, and it
//! closes its own only after `Go`. `Stop` tells a successor that is too late to end.
//!
//! # Why the standard input
//! It is the one descriptor that a process can adopt from its parent without `unsafe`, and without a
//! name in the file system that somebody else could connect to. [`from_stdin`] takes it and leaves
//! `/dev/null` in its place.
//!
//! # The format
//! Frames: a tag of one byte, the length of what follows (32 bits, big-endian), that many bytes. The
//! manifest is a frame of JSON; after it come batches of descriptors, each a byte that holds their
//! number with that many descriptors attached (`SCM_RIGHTS`), in the order of the manifest; then
//! [`Message`]s both ways. Everything has a bound and a deadline: the other process may be any version
//! of isobar, and broken.

mod inherited;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::base::addr::BindAddr;

pub use inherited::Inherited;
use wire::{Tag, Wire};

/// Set to `1` in the environment of a successor: its standard input is the stream of a handover.
pub const ENV: &str = "ISOBAR_HANDOVER";

/// The version of the format that this code speaks.
pub const VERSION: u32 = 1;

/// Descriptors in one handover: 16 addresses on 256 cores; four times the usual soft limit of open
/// files.
const MAX_DESCRIPTORS: usize = 4096;

/// A manifest of 4096 entries with paths of the longest kind (108 bytes) takes less.
const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// The text of a message: diagnostics of a whole configuration, cut to what is still read.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// What a descriptor is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The admin address.
    AdminTcp,
    /// The control socket.
    AdminUnix,
    /// A listener's.
    Tcp,
    /// A listener's, of datagrams.
    Udp,
    /// A listener's.
    Unix,
}

/// Sockets of one address.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// What they are.
    pub kind: Kind,
    /// Of the listener; for messages only, the address is what counts.
    pub name: String,
    /// As configured ([`BindAddr`] displayed).
    pub addr: String,
    /// How many: one a worker, one altogether for a Unix socket.
    pub count: usize,
    /// How many of them, from the first on, systemd has as well ([`Bound::kept`](super::Bound::kept)).
    #[serde(default)]
    pub kept: usize,
}

/// What is handed over, and by whom.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The predecessor's process.
    pub pid: u32,
    /// How many upgrades there were before; the successor's is one more.
    pub generation: u64,
    /// In the order of the descriptors.
    pub sockets: Vec<Entry>,
}

/// What the two processes say to each other once the descriptors are over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// From the successor: it ends, and why.
    Failed(String),
    /// From the predecessor: it will accept nothing any more, and leaves its files.
    Go,
    /// From the successor: it serves.
    Ready,
    /// From the predecessor: it keeps serving, the successor is to end, and why.
    Stop(String),
}

/// Why a handover failed. Descriptors received before that are closed; those of the sender are as
/// they were.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// The other process ended, or closed its end.
    #[error("the other process closed the handover before it was complete")]
    Closed,
    /// Not within the time given.
    #[error("the other process took longer than {after:?}")]
    Deadline {
        /// The time given.
        after: Duration,
    },
    /// The system refused.
    #[error("the stream of the handover failed")]
    Io(#[source] io::Error),
    /// The other side does not speak this protocol.
    #[error("not understood: {what}")]
    Malformed {
        /// What was wrong.
        what: String,
    },
    /// A descriptor is not what the manifest says.
    #[error("{kind:?} `{name}` at {addr}: {why}")]
    Socket {
        /// What it should be.
        kind: Kind,
        /// Of the listener.
        name: String,
        /// As configured.
        addr: String,
        /// What is wrong.
        why: String,
    },
    /// More than a handover may have.
    #[error("{count} {what}, of which a handover takes at most {max}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The most.
        max: usize,
    },
    /// The system gave up some of the descriptors.
    #[error(
        "not all descriptors arrived: raise the limit of open files (systemd: LimitNOFILE=, \
         shell: ulimit -n)"
    )]
    Truncated,
    /// Another version of the format.
    #[error("the other process speaks version {theirs} of the handover, this one {VERSION}")]
    Version {
        /// The version there.
        theirs: u32,
    },
}

// === impl Kind ===

impl Kind {
    /// That of an admin address.
    pub fn of_admin(addr: &BindAddr) -> Self {
        match addr {
            BindAddr::Any(_) | BindAddr::Ip(_) => Self::AdminTcp,
            BindAddr::Unix(_) => Self::AdminUnix,
        }
    }

    /// That of an address of a listener of streams.
    pub fn of_listener(addr: &BindAddr) -> Self {
        match addr {
            BindAddr::Any(_) | BindAddr::Ip(_) => Self::Tcp,
            BindAddr::Unix(_) => Self::Unix,
        }
    }
}

// === impl Manifest ===

impl Manifest {
    /// A manifest of this process.
    pub fn new(generation: u64, sockets: Vec<Entry>) -> Self {
        Self {
            version: VERSION,
            pid: std::process::id(),
            generation,
            sockets,
        }
    }

    fn check(&self) -> Result<(), HandoverError> {
        if self.version != VERSION {
            return Err(HandoverError::Version {
                theirs: self.version,
            });
        }
        // Saturating: a count comes from another process.
        let count = self.count();
        if count > MAX_DESCRIPTORS {
            return Err(HandoverError::TooLarge {
                what: "descriptors",
                count,
                max: MAX_DESCRIPTORS,
            });
        }
        if let Some(entry) = self.sockets.iter().find(|e| e.kept > e.count) {
            let Entry { name, addr, .. } = entry;
            let what = format!("more sockets of `{name}` at {addr} kept than there are");
            return Err(HandoverError::Malformed { what });
        }
        if let Some(entry) = self.sockets.iter().find(|e| e.count == 0) {
            let what = format!("no socket of `{}` at {}", entry.name, entry.addr);
            return Err(HandoverError::Malformed { what });
        }
        for (i, entry) in self.sockets.iter().enumerate() {
            let same = |e: &Entry| e.kind == entry.kind && e.addr == entry.addr;
            if self.sockets[..i].iter().any(same) {
                let what = format!("{:?} {} twice in the manifest", entry.kind, entry.addr);
                return Err(HandoverError::Malformed { what });
            }
        }
        Ok(())
    }

    fn count(&self) -> usize {
        let counts = self.sockets.iter().map(|e| e.count);
        counts.fold(0, usize::saturating_add)
    }
}

/// Sends copies of `descriptors`, which are in the order of `manifest`. Blocks, `within` that time.
///
/// # Errors
/// [`HandoverError`]; the receiver sees the stream close when it is dropped.
pub fn send(
    stream: &UnixStream,
    manifest: &Manifest,
    descriptors: &[BorrowedFd<'_>],
    within: Duration,
) -> Result<(), HandoverError> {
    manifest.check()?;
    if manifest.count() != descriptors.len() {
        let (listed, given) = (manifest.count(), descriptors.len());
        let what = format!("{listed} descriptors in the manifest, {given} given");
        return Err(HandoverError::Malformed { what });
    }
    let json = serde_json::to_vec(manifest).map_err(|e| HandoverError::Malformed {
        what: e.to_string(),
    })?;
    let mut wire = Wire::new(stream, within)?;
    wire.write_frame(Tag::Manifest, &json, MAX_MANIFEST_BYTES)?;
    wire.write_descriptors(descriptors)
}

/// Receives what [`send`] sent, and checks every descriptor: a listening socket (UDP: a bound one)
/// of the right family at the address that the manifest says. Blocks, `within` that time.
///
/// # Errors
/// [`HandoverError`]; what was received is closed, which harms nothing: the sender has its own.
pub fn receive(stream: &UnixStream, within: Duration) -> Result<Inherited, HandoverError> {
    let mut wire = Wire::new(stream, within)?;
    let (tag, json) = wire.read_frame(|tag| match tag {
        Tag::Manifest => MAX_MANIFEST_BYTES,
        Tag::Failed | Tag::Go | Tag::Ready | Tag::Stop => MAX_TEXT_BYTES,
    })?;
    match tag {
        Tag::Manifest => {}
        Tag::Stop => {
            let text = String::from_utf8_lossy(&json);
            let what = format!("stopped by the other process: {text}");
            return Err(HandoverError::Malformed { what });
        }
        Tag::Failed | Tag::Go | Tag::Ready => {
            let what = format!("{tag:?} in the place of the manifest");
            return Err(HandoverError::Malformed { what });
        }
    }
    let malformed = |e: serde_json::Error| HandoverError::Malformed {
        what: format!("the manifest: {e}"),
    };
    // The version first: another one may have other fields.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let version: Version = serde_json::from_slice(&json).map_err(malformed)?;
    if version.version != VERSION {
        return Err(HandoverError::Version {
            theirs: version.version,
        });
    }
    let manifest: Manifest = serde_json::from_slice(&json).map_err(malformed)?;
    manifest.check()?;
    let descriptors = wire.read_descriptors(manifest.count())?;
    Inherited::handed(manifest, descriptors)
}

/// Says `message` to the other process; a text is cut to 64 KiB. Blocks, `within` that time.
///
/// # Errors
/// [`HandoverError`].
pub fn say(stream: &UnixStream, message: &Message, within: Duration) -> Result<(), HandoverError> {
    let (tag, text) = match message {
        Message::Failed(text) => (Tag::Failed, text.as_str()),
        Message::Go => (Tag::Go, ""),
        Message::Ready => (Tag::Ready, ""),
        Message::Stop(text) => (Tag::Stop, text.as_str()),
    };
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    Wire::new(stream, within)?.write_frame(tag, text, MAX_TEXT_BYTES)
}

/// Waits for what the other process says next. Blocks, `within` that time.
///
/// # Errors
/// [`HandoverError`]; after one the stream is of no more use.
pub fn hear(stream: &UnixStream, within: Duration) -> Result<Message, HandoverError> {
    let (tag, text) = Wire::new(stream, within)?.read_frame(|_| MAX_TEXT_BYTES)?;
    let text = || String::from_utf8_lossy(&text).into_owned();
    match tag {
        Tag::Failed => Ok(Message::Failed(text())),
        Tag::Go => Ok(Message::Go),
        Tag::Manifest => Err(HandoverError::Malformed {
            what: "a manifest in the place of a message".to_owned(),
        }),
        Tag::Ready => Ok(Message::Ready),
        Tag::Stop => Ok(Message::Stop(text())),
    }
}

/// The successor's end of the stream, which is its standard input; that becomes `/dev/null`.
///
/// # Errors
/// The standard input is not a Unix stream, or what the system says.
pub fn from_stdin() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    let is_unix = rustix::net::sockopt::socket_domain(stdin.as_fd())?
        == rustix::net::AddressFamily::UNIX
        && rustix::net::sockopt::socket_type(stdin.as_fd())? == rustix::net::SocketType::STREAM;
    if !is_unix {
        let message = format!("{ENV} is set, but the standard input is no Unix stream");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let stream = stdin.as_fd().try_clone_to_owned()?;
    // Else the stream would stay open, unseen, and go on to whatever this process starts.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(stream.into())
}
