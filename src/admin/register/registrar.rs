//! What the registration server asks the fleet for.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::base::addr::EndpointAddr;
use crate::config::Name;
use crate::upstream::overrides::MAX_WEIGHT;

/// Who takes registrations. Called on the control runtime: nothing here may block.
pub trait Registrar: fmt::Debug + Send + Sync + 'static {
    /// Registers an endpoint, or renews that it is registered. Bounds of the request are checked already.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing has changed.
    fn register(&self, wish: Wish) -> Result<Registration, RegisterError>;

    /// Whether an endpoint is registered here already: renewing costs the fleet nothing, and is not counted.
    fn is_registered(&self, upstream: &str, endpoint: &EndpointAddr) -> bool;

    /// Takes the registration of an endpoint back; whether there was one here.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing has changed.
    fn deregister(&self, upstream: &str, endpoint: &EndpointAddr) -> Result<bool, RegisterError>;

    /// Who is a member of an upstream.
    ///
    /// # Errors
    /// [`RegisterError::UnknownUpstream`] or [`RegisterError::Unready`].
    fn members(&self, upstream: &str) -> Result<Vec<MemberView>, RegisterError>;
}

/// What an endpoint asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// To belong to which upstream.
    pub upstream: Name,
    /// As which endpoint.
    pub endpoint: EndpointAddr,
    /// With which weight.
    pub weight: u32,
    /// Standing where.
    pub zone: Option<Name>,
    /// Until how long after the last renewal.
    pub ttl: Duration,
}

/// An endpoint is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// At whom: the identity of this peer.
    pub registrar: String,
    /// Whether it was not before.
    pub is_new: bool,
}

/// A member of an upstream, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// Its address.
    pub endpoint: String,
    /// Its weight in the end.
    pub weight: u32,
    /// `active`, `drain` or `disable`.
    pub state: String,
    /// Where it comes from: `file`, `operator` or `registered`.
    pub origin: String,
}

/// Why a registration was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// There is no room: for registrations of this peer, or of the upstream.
    #[error("{0}")]
    Full(String),
    /// Members come and go in `dynamic` upstreams only.
    #[error(
        "upstream `{upstream}` is not dynamic: set `dynamic = true` in the file that this peer serves"
    )]
    NotDynamic {
        /// The upstream.
        upstream: Name,
    },
    /// There is no such upstream.
    #[error("there is no upstream `{}`", .upstream.escape_debug())]
    UnknownUpstream {
        /// What was asked for.
        upstream: Name,
    },
    /// The fleet has not started, or this peer is on its way out.
    #[error("this peer takes no registrations now: {why}")]
    Unready {
        /// `it is starting`, `it is draining`.
        why: &'static str,
    },
    /// The weight is too large.
    #[error("weight {weight} is too large; a weight is a share from 0 to {MAX_WEIGHT}")]
    Weight {
        /// What was asked for.
        weight: u32,
    },
}
