//! Whom this process asks, where a fleet shares the checks.
//!
//! Without a fleet it is [`Duty::Everybody`]. In a fleet a few peers ask each endpoint, and what they find are
//! votes; the rest go by what the votes make of it (`fleet::duty` says who does what). Agents are asked by all
//! in any case: an agent may say something else to each of its clients.

use std::collections::HashMap;

use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::config::Name;

/// Whose checks are run here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// Those of all endpoints, and what they find holds.
    #[default]
    Everybody,
    /// As each role says; an endpoint without one is [`Role::Alone`].
    Shared(Roles),
}

/// The roles by upstream and endpoint.
pub type Roles = HashMap<Name, HashMap<EndpointAddr, Role>>;

/// What this process does about the health of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It asks, and what it finds holds here: as without a fleet.
    #[default]
    Alone,
    /// It asks, and what it finds is a vote. Whatever comes of the votes, it sends nothing where its own checks fail.
    Prober {
        /// When in each interval.
        phase: Phase,
        /// Enough have voted: the votes say what the endpoint is. Else what is found here holds, too.
        is_ruled: bool,
    },
    /// Others ask.
    Spared {
        /// Enough of them have voted. Else the endpoint stays what it is until they have.
        is_ruled: bool,
    },
}

/// A place in an interval, as a share of it in units of 2^-64: the probers of one endpoint have different ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phase(pub u64);

// === impl Duty ===

impl Duty {
    /// What is done about the health of an endpoint.
    pub fn role(&self, upstream: &str, endpoint: &EndpointAddr) -> Role {
        match self {
            Self::Everybody => Role::Alone,
            Self::Shared(roles) => {
                let of_upstream = roles.get(upstream);
                let role = of_upstream.and_then(|of_upstream| of_upstream.get(endpoint));
                role.copied().unwrap_or_default()
            }
        }
    }
}

// === impl Role ===

impl Role {
    /// Whether this process asks the endpoint.
    pub const fn asks(self) -> bool {
        match self {
            Self::Alone | Self::Prober { .. } => true,
            Self::Spared { .. } => false,
        }
    }

    /// Whether what it finds is a vote.
    pub const fn votes(self) -> bool {
        match self {
            Self::Prober { .. } => true,
            Self::Alone | Self::Spared { .. } => false,
        }
    }

    /// Whether what it finds holds here, be it well or dead; that it is dead holds in any case, for whoever asks.
    pub const fn judges(self) -> bool {
        match self {
            Self::Alone => true,
            Self::Prober { is_ruled, .. } => !is_ruled,
            Self::Spared { .. } => false,
        }
    }

    /// Whether the votes of the fleet say what the endpoint is.
    pub const fn is_ruled(self) -> bool {
        match self {
            Self::Alone => false,
            Self::Prober { is_ruled, .. } | Self::Spared { is_ruled } => is_ruled,
        }
    }
}

// === impl Phase ===

impl Phase {
    /// How long after the beginning of each `interval`.
    pub fn of(self, interval: Nanos) -> Nanos {
        // The upper half of a product of two words fits a word.
        ((u128::from(self.0) * u128::from(interval)) >> 64) as Nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_role_is_asked_as_without_a_fleet() {
        let addr = |text: &str| EndpointAddr::Ip(text.parse().unwrap());
        let (one, other) = (addr("10.0.0.1:80"), addr("10.0.0.2:80"));
        assert_eq!(Duty::default().role("app", &one), Role::Alone);
        let spared = Role::Spared { is_ruled: true };
        let of_app = HashMap::from([(one.clone(), spared)]);
        let duty = Duty::Shared(HashMap::from([("app".into(), of_app)]));
        assert_eq!(duty.role("app", &one), spared);
        assert_eq!(duty.role("app", &other), Role::Alone);
        assert_eq!(duty.role("web", &one), Role::Alone);
    }

    #[test]
    fn phases_are_shares_of_any_interval() {
        assert_eq!(Phase(0).of(5_000_000_000), 0);
        assert_eq!(Phase(1 << 63).of(5_000_000_000), 2_500_000_000);
        assert_eq!(Phase(u64::MAX).of(5_000_000_000), 4_999_999_999);
        assert_eq!(Phase(u64::MAX).of(u64::MAX), u64::MAX - 1);
    }
}
