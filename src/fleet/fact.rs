//! What peers say.
//!
//! A fact is absolute ("weight 5", "drains"), never a step: said twice it says nothing new, and of two with one
//! key the later one holds, wherever and in whatever order they are heard. What holds no more is said too
//! ([`Value::Gone`]), and kept for a day, so that who was away does not bring it back.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::addr::EndpointAddr;
use crate::config::Name;
use crate::upstream::overrides::By;
// What can be said of an endpoint, and the words for it: facts speak the language of operators.
pub use crate::upstream::overrides::{Field as Part, Word};

use super::id::PeerId;
use super::stamp::Stamp;

/// One thing said by a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is about.
    pub key: Key,
    /// What is so.
    pub value: Value,
    /// When it was said.
    pub stamp: Stamp,
    /// Who said it.
    pub origin: PeerId,
}

/// What a fact is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// A peer; said by itself alone.
    Peer(PeerId),
    /// An endpoint that registered itself at a peer, its registrar, who alone says so. It is a member of a
    /// `dynamic` upstream while any registrar says it is.
    Registration {
        /// Of which upstream.
        upstream: Name,
        /// Which endpoint.
        endpoint: EndpointAddr,
        /// At whom.
        registrar: PeerId,
    },
    /// What operators say of an endpoint; every peer may.
    Override {
        /// Of which upstream.
        upstream: Name,
        /// Which endpoint.
        endpoint: EndpointAddr,
        /// Which of the things that can be said.
        part: Part,
    },
    /// What a peer found when it checked an endpoint; said by itself alone.
    Vote {
        /// Of which upstream.
        upstream: Name,
        /// Which endpoint.
        endpoint: EndpointAddr,
        /// Who checked.
        prober: PeerId,
    },
}

/// What is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing any more: the tombstone of what was said before.
    Gone,
    /// Of [`Key::Peer`].
    Peer(About),
    /// Of [`Key::Registration`].
    Registered {
        /// Its weight.
        weight: u32,
        /// Where it stands.
        zone: Option<Name>,
        /// How long it is a member without being renewed, in milliseconds.
        ttl_ms: u32,
    },
    /// Of [`Key::Override`].
    Said {
        /// What.
        word: Word,
        /// Who said it, why, and for how long.
        #[serde(with = "wire_by")]
        by: By,
    },
    /// Of [`Key::Vote`].
    Vote {
        /// Whether the check passed.
        passed: bool,
        /// Hash of what was checked: peers whose files differ do not vote with each other.
        check: u64,
        /// What was found, for people; at most [`MAX_WHY`] bytes.
        why: String,
    },
}

/// What a peer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Where it stands.
    pub zone: Option<Name>,
    /// Its version.
    pub version: String,
    /// Hash of the configuration that it serves.
    pub config: u64,
    /// When its process started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Since when it has known all that the fleet says, likewise: over restarts, but not over a time in which
    /// what was taken back is forgotten; and by comparing, since when others have. Who began with nothing and has met
    /// nobody knows what was said since it began.
    pub knows_since_unix_ms: u64,
}

/// How long tombstones are kept; who was away for longer does not tell what it knew. As in distributed.md 1.5.
pub const GC_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest text of a vote, in bytes: a row of them fits a datagram.
pub const MAX_WHY: usize = 128;

/// Longest encoded fact, in bytes: a name of 128, a path of 107, an owner of 64 and a reason of 256 fit.
pub const MAX_FACT: usize = 1024;

// === impl Key ===

impl Key {
    /// Which upstream it is about; `None` = a peer.
    pub fn upstream(&self) -> Option<&Name> {
        match self {
            Self::Peer(_) => None,
            Self::Registration { upstream, .. }
            | Self::Override { upstream, .. }
            | Self::Vote { upstream, .. } => Some(upstream),
        }
    }

    /// Which endpoint it is about; `None` = a peer.
    pub fn endpoint(&self) -> Option<&EndpointAddr> {
        match self {
            Self::Peer(_) => None,
            Self::Registration { endpoint, .. }
            | Self::Override { endpoint, .. }
            | Self::Vote { endpoint, .. } => Some(endpoint),
        }
    }

    /// Who alone may say it; `None` = every peer may.
    pub fn writer(&self) -> Option<PeerId> {
        match self {
            Self::Peer(peer) => Some(*peer),
            Self::Registration { registrar, .. } => Some(*registrar),
            Self::Vote { prober, .. } => Some(*prober),
            Self::Override { .. } => None,
        }
    }
}

/// `registration at 0123456789abcdef of upstream app, endpoint 10.0.0.1:80`
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => return write!(f, "peer {peer}"),
            Self::Registration { registrar, .. } => write!(f, "registration at {registrar}")?,
            Self::Override { part, .. } => f.write_str(match part {
                Part::Member => "membership",
                Part::State => "state",
                Part::Weight => "weight",
            })?,
            Self::Vote { prober, .. } => write!(f, "vote of {prober}")?,
        }
        if let (Some(upstream), Some(endpoint)) = (self.upstream(), self.endpoint()) {
            write!(f, " of upstream {upstream}, endpoint {endpoint}")?;
        }
        Ok(())
    }
}

// === impl Value ===

/// `drain (uid:0: kernel update)`, `fails: connect failed`, `nothing any more`: what two peers know differently.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("nothing any more"),
            Self::Peer(about) => write!(f, "version {}", about.version),
            Self::Registered { weight, ttl_ms, .. } => {
                write!(f, "registered with weight {weight} for {} s", ttl_ms / 1000)
            }
            Self::Said { word, by } => {
                write!(f, "{word} ({}", by.owner)?;
                if !by.reason.is_empty() {
                    write!(f, ": {}", by.reason)?;
                }
                f.write_str(")")
            }
            Self::Vote { passed: true, .. } => f.write_str("passes"),
            Self::Vote {
                passed: false, why, ..
            } => write!(f, "fails: {why}"),
        }
    }
}

/// [`By`] as a row of fields: its own form leaves fields out, which this encoding cannot tell.
mod wire_by {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::By;

    pub(super) fn serialize<S: Serializer>(by: &By, serializer: S) -> Result<S::Ok, S::Error> {
        let row = (&by.owner, &by.reason, by.since_unix_ms, by.expires_unix_ms);
        row.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<By, D::Error> {
        let (owner, reason, since_unix_ms, expires_unix_ms) =
            Deserialize::deserialize(deserializer)?;
        Ok(By {
            owner,
            reason,
            since_unix_ms,
            expires_unix_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_short_and_come_back_as_they_were() {
        let fact = Fact {
            key: Key::Override {
                upstream: "app".into(),
                endpoint: EndpointAddr::Ip("10.0.0.1:8080".parse().unwrap()),
                part: Part::State,
            },
            value: Value::Said {
                word: Word::Drain,
                by: By {
                    owner: "uid:0".to_owned(),
                    reason: String::new(),
                    since_unix_ms: 1_700_000_000_000,
                    expires_unix_ms: None,
                },
            },
            stamp: Stamp::at(1_700_000_000_000),
            origin: PeerId(7),
        };
        let bytes = postcard::to_allocvec(&fact).unwrap();
        assert_eq!(postcard::from_bytes::<Fact>(&bytes).unwrap(), fact);
        assert!(bytes.len() <= 64, "{}", bytes.len());
    }
}
