//! What an operator asks for, and the answers.

use serde::Serialize;

use crate::base::addr::EndpointAddr;
use crate::config::Name;

use super::{Effective, MAX_ENTRIES, MAX_OWNER, MAX_REASON, MAX_WEIGHT, as_text};

/// An operator's wish for one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The upstream's name.
    pub upstream: Name,
    /// The endpoint; [`address`](super::address) reads one.
    pub endpoint: EndpointAddr,
    /// What is to be done.
    pub verb: Verb,
    /// `uid:0`, or a given name.
    pub owner: String,
    /// Why; may be empty.
    pub reason: String,
    /// From when on it is to hold no longer, in milliseconds since 1970; without a meaning for
    /// [`Verb::Clear`] and [`Verb::Undrain`], which say nothing new.
    pub expires_unix_ms: Option<u64>,
}

/// What is to be done with an endpoint. Saying a thing again replaces owner, reason, time and expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Joins a `dynamic` upstream, or comes back to it; `None` = the file's weight, or 1.
    Add {
        /// Its weight.
        weight: Option<u32>,
    },
    /// Takes back weight, state and removal: the file alone speaks again.
    Clear,
    /// No picks at all.
    Disable,
    /// No new picks.
    Drain,
    /// Leaves a `dynamic` upstream.
    Remove,
    /// Gets this weight.
    SetWeight(u32),
    /// Takes back drain and disable.
    Undrain,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// In which upstream.
    #[serde(serialize_with = "as_text")]
    pub upstream: Name,
    /// To which endpoint.
    #[serde(serialize_with = "as_text")]
    pub endpoint: EndpointAddr,
    /// Before; `None` = no member.
    pub before: Option<Effective>,
    /// Since; `None` = no member. Equal to `before`: no new generation is needed.
    pub after: Option<Effective>,
    /// One sentence for people, without owner and reason.
    pub text: String,
    /// What the operator should know besides.
    pub notes: Vec<String>,
}

/// Why a change was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The text is no address of an endpoint.
    #[error(
        "`{text}` is not the address of an endpoint; write `10.0.0.1:80`, `[::1]:80` or `unix:/run/app.sock`"
    )]
    Address {
        /// What was given.
        text: String,
    },
    /// An endpoint that is there cannot be added.
    #[error(
        "upstream `{upstream}` has the endpoint {endpoint} already; `isobar set` changes its weight"
    )]
    AlreadyThere {
        /// The upstream.
        upstream: Name,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// A text has a line break or another control character.
    #[error("the {what} has a control character; write it in one line of plain text")]
    ControlCharacter {
        /// `owner` or `reason`.
        what: &'static str,
    },
    /// The expiry is over already.
    #[error(
        "the expiry is not in the future: {expires_unix_ms} against {now_unix_ms} (milliseconds since 1970)"
    )]
    Expiry {
        /// What was asked for.
        expires_unix_ms: u64,
        /// The time of the process.
        now_unix_ms: u64,
    },
    /// There are [`MAX_ENTRIES`].
    #[error(
        "there are overrides for {MAX_ENTRIES} endpoints, the most there can be; clear some, or write them into the file"
    )]
    Full,
    /// Members come and go in `dynamic` upstreams only.
    #[error(
        "upstream `{upstream}` is not dynamic: set `dynamic = true` in the file, or drain or disable the endpoint"
    )]
    NotDynamic {
        /// The upstream.
        upstream: Name,
    },
    /// Nobody asks.
    #[error("a change needs an owner: who asks for it")]
    NoOwner,
    /// The endpoint was removed by an operator.
    #[error(
        "the endpoint {endpoint} of upstream `{upstream}` was removed by {by}; add it to bring it back"
    )]
    Removed {
        /// The upstream.
        upstream: Name,
        /// The endpoint.
        endpoint: EndpointAddr,
        /// Who removed it.
        by: String,
    },
    /// A text is too long.
    #[error(
        "the {what} has {bytes} bytes; at most {} fit",
        if *what == "owner" { MAX_OWNER } else { MAX_REASON }
    )]
    TooLong {
        /// `owner` or `reason`.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// The upstream has no such endpoint.
    #[error(
        "upstream `{upstream}` has no endpoint {endpoint}; `isobar get upstream/{upstream}` lists them"
    )]
    UnknownEndpoint {
        /// The upstream.
        upstream: Name,
        /// What was asked for.
        endpoint: EndpointAddr,
    },
    /// There is no such upstream.
    #[error("there is no upstream `{}`; `isobar status` lists them", .upstream.escape_debug())]
    UnknownUpstream {
        /// What was asked for.
        upstream: Name,
    },
    /// The weight is too large.
    #[error("weight {weight} is too large; a weight is a share from 0 to {MAX_WEIGHT}")]
    Weight {
        /// What was asked for.
        weight: u32,
    },
}
