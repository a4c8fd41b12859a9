//! Shared health: a few peers ask each endpoint for all of them, and their votes say what it is.
//!
//! [`assign`] (who asks), [`verdict`] (what votes come to) and [`confirm`] (when a fellow's doubt is a reason to
//! ask at once) are pure parts; [`Duties`] puts them together for one peer. What one process finds by asking
//! becomes a vote in `health::ballot`; `health::checker` is told whom to ask by [`crate::health::duty::Duty`].

use std::sync::Arc;
use std::time::Duration;

use crate::base::addr::EndpointAddr;
use crate::config::{HealthSpec, Name};
use crate::health::check_hash::check_hash;
use crate::health::duty::Duty;

use super::id::PeerId;
use super::stamp::Stamp;

pub mod assign;
pub mod confirm;
pub mod verdict;

mod duties;
mod entry;

pub use duties::Duties;

use verdict::Ruling;

/// An endpoint of this process's configuration that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its upstream.
    pub upstream: Name,
    /// Where it is.
    pub endpoint: EndpointAddr,
    /// Where it stands.
    pub zone: Option<Name>,
    /// What is asked: votes on something else do not count.
    pub check: u64,
    /// From one check to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
}

/// A vote, as the facts have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast<'a> {
    /// Whether the check passed.
    pub passed: bool,
    /// What was asked.
    pub check: u64,
    /// When it was said.
    pub stamp: Stamp,
    /// What was found, for people.
    pub why: &'a str,
}

/// What changed since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whom the checker asks from now on; `None` = as before. To be sent together with what follows from `rulings`,
    /// without a wait between the two.
    pub duty: Option<Arc<Duty>>,
    /// What the fleet says of which endpoints.
    pub rulings: Vec<Ruled>,
    /// Endpoints to be asked at once.
    pub confirm: Vec<(Name, EndpointAddr)>,
    /// Endpoints that are not this peer's to ask any more: its vote on them is to be taken back.
    pub retract: Vec<(Name, EndpointAddr)>,
}

/// What the fleet says of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// Its upstream.
    pub upstream: Name,
    /// Where it is.
    pub endpoint: EndpointAddr,
    /// What it is.
    pub ruling: Ruling,
    /// Whose votes made it so, in the order in which they were cast.
    pub by: Vec<PeerId>,
    /// The same for people: `2 of 3 peers: connect failed`.
    pub why: String,
}

// === impl Subject ===

impl Subject {
    /// An endpoint that is checked as `spec` says.
    pub fn new(
        upstream: Name,
        endpoint: EndpointAddr,
        zone: Option<Name>,
        spec: &HealthSpec,
    ) -> Self {
        Self {
            upstream,
            endpoint,
            zone,
            check: check_hash(spec),
            interval: spec.interval,
            timeout: spec.timeout,
        }
    }
}

// === impl Ruled ===

impl Ruled {
    /// Who found it, for people: the peers' names.
    pub fn peers(&self) -> String {
        names(&self.by)
    }
}

/// Peers, for people.
pub fn names(peers: &[PeerId]) -> String {
    let names: Vec<_> = peers.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
