//! What can be said at all: a fact that cannot be so is refused, whoever says it.

use std::fmt;
use std::time::Duration;

use crate::base::addr::EndpointAddr;
use crate::config::name;
use crate::fleet::fact::{About, Fact, Key, MAX_FACT, MAX_WHY, Part, Value, Word};
use crate::upstream::overrides::{MAX_WEIGHT, Refused, is_usable};

/// Shortest time that a registration lasts: it is renewed three times in it, over a network.
pub const MIN_TTL: Duration = Duration::from_secs(1);

/// Longest time that a registration lasts: whoever is silent for a day is not there.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest version of a peer, in bytes.
pub const MAX_VERSION: usize = 64;

/// What is wrong with a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flaw {
    /// No endpoint can have this address, or it means another one elsewhere (an IPv6 zone).
    Address,
    /// Its stamp is too far ahead. Not found here: it takes a clock.
    Ahead,
    /// A text has a control character.
    ControlCharacter,
    /// There is no room for another fact.
    Full,
    /// A name that no file could have.
    Name,
    /// An operator's word without the operator.
    NoOwner,
    /// Somebody else than the only one who may.
    Origin,
    /// Who says it has said as much as one peer may.
    Quota,
    /// A text, or all of it, is too long.
    TooLong,
    /// A registration that lasts too short or too long a time.
    Ttl,
    /// The value is not one of this key.
    Value,
    /// A weight that no file could have.
    Weight,
}

// === impl Fact ===

impl Fact {
    /// Whether it can be so.
    ///
    /// # Errors
    /// [`Flaw`]; of several, one.
    pub fn check(&self) -> Result<(), Flaw> {
        encoded(self).map(drop)
    }
}

/// The encoding of a fact that can be so.
pub(super) fn encoded(fact: &Fact) -> Result<Vec<u8>, Flaw> {
    let writer = fact.key.writer();
    if writer.is_some_and(|writer| writer != fact.origin) {
        return Err(Flaw::Origin);
    }
    if let Some(upstream) = fact.key.upstream() {
        check_name(upstream)?;
    }
    if fact.key.endpoint().is_some_and(|addr| !is_everywhere(addr)) {
        return Err(Flaw::Address);
    }
    check_value(&fact.key, &fact.value)?;
    // What can be so can be encoded; a path that is no UTF-8 could not, and is no usable address.
    let bytes = postcard::to_allocvec(fact).map_err(|_| Flaw::Address)?;
    if bytes.len() > MAX_FACT {
        return Err(Flaw::TooLong);
    }
    Ok(bytes)
}

/// Whether the address is usable, and the same one at every peer.
fn is_everywhere(addr: &EndpointAddr) -> bool {
    let is_zoned = match addr {
        // The zone is a number of an interface of one machine, and is not part of what is sent.
        EndpointAddr::Ip(std::net::SocketAddr::V6(ip)) => ip.scope_id() != 0 || ip.flowinfo() != 0,
        EndpointAddr::Ip(std::net::SocketAddr::V4(_)) | EndpointAddr::Unix(_) => false,
    };
    !is_zoned && is_usable(addr)
}

fn check_value(key: &Key, value: &Value) -> Result<(), Flaw> {
    match (key, value) {
        (_, Value::Gone) => Ok(()),
        (Key::Peer(_), Value::Peer(About { zone, version, .. })) => {
            zone.as_deref().map_or(Ok(()), check_name)?;
            check_text(version, MAX_VERSION)
        }
        (
            Key::Registration { .. },
            Value::Registered {
                weight,
                zone,
                ttl_ms,
            },
        ) => {
            check_weight(*weight)?;
            zone.as_deref().map_or(Ok(()), check_name)?;
            let ttl = Duration::from_millis(u64::from(*ttl_ms));
            if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
                return Err(Flaw::Ttl);
            }
            Ok(())
        }
        (Key::Override { part, .. }, Value::Said { word, by }) => {
            match (part, word) {
                (Part::Member, Word::Joins(weight)) | (Part::Weight, Word::Weight(weight)) => {
                    check_weight(*weight)?;
                }
                (Part::Member, Word::Leaves) | (Part::State, Word::Drain | Word::Disable) => {}
                (Part::Member | Part::State | Part::Weight, _) => return Err(Flaw::Value),
            }
            by.check().map_err(|refused| match refused {
                Refused::NoOwner => Flaw::NoOwner,
                Refused::ControlCharacter { .. } => Flaw::ControlCharacter,
                _ => Flaw::TooLong,
            })
        }
        (Key::Vote { .. }, Value::Vote { why, .. }) => check_text(why, MAX_WHY),
        (
            Key::Peer(_) | Key::Registration { .. } | Key::Override { .. } | Key::Vote { .. },
            Value::Peer(_) | Value::Registered { .. } | Value::Said { .. } | Value::Vote { .. },
        ) => Err(Flaw::Value),
    }
}

fn check_name(text: &str) -> Result<(), Flaw> {
    name::check(text).map_err(|_| Flaw::Name)
}

fn check_weight(weight: u32) -> Result<(), Flaw> {
    if weight > MAX_WEIGHT {
        return Err(Flaw::Weight);
    }
    Ok(())
}

fn check_text(text: &str, max: usize) -> Result<(), Flaw> {
    if text.len() > max {
        return Err(Flaw::TooLong);
    }
    // They are shown on terminals and in logs, one line each.
    if text.contains(char::is_control) {
        return Err(Flaw::ControlCharacter);
    }
    Ok(())
}

// === impl Flaw ===

impl Flaw {
    /// All of them, in the order of the labels.
    pub const ALL: [Self; 12] = [
        Self::Address,
        Self::Ahead,
        Self::ControlCharacter,
        Self::Full,
        Self::Name,
        Self::NoOwner,
        Self::Origin,
        Self::Quota,
        Self::TooLong,
        Self::Ttl,
        Self::Value,
        Self::Weight,
    ];

    /// The word of metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Ahead => "ahead",
            Self::ControlCharacter => "control_character",
            Self::Full => "full",
            Self::Name => "name",
            Self::NoOwner => "no_owner",
            Self::Origin => "origin",
            Self::Quota => "quota",
            Self::TooLong => "too_long",
            Self::Ttl => "ttl",
            Self::Value => "value",
            Self::Weight => "weight",
        }
    }
}

/// For people, after "refused: ".
impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("no endpoint can have this address at every peer"),
            Self::Ahead => f.write_str("it is of a time that is yet to come"),
            Self::ControlCharacter => f.write_str("a text has a control character"),
            Self::Full => write!(
                f,
                "the fleet has said {} things, the most there can be",
                super::MAX_FACTS
            ),
            Self::Name => f.write_str("a name that cannot be"),
            Self::NoOwner => f.write_str("nobody is named who says it"),
            Self::Origin => f.write_str("another peer than this one alone may say it"),
            Self::Quota => write!(
                f,
                "the peer has said {} things, the most that one may",
                super::MAX_OF_ORIGIN
            ),
            Self::TooLong => write!(
                f,
                "a text is too long, or all of it exceeds {MAX_FACT} bytes"
            ),
            Self::Ttl => write!(
                f,
                "a registration lasts from {} s to {} h",
                MIN_TTL.as_secs(),
                MAX_TTL.as_secs() / 3600
            ),
            Self::Value => f.write_str("the key has no such value"),
            Self::Weight => write!(f, "a weight above {MAX_WEIGHT}"),
        }
    }
}

impl std::error::Error for Flaw {}
