//! The order between rules whose host and path fit equally: how much else each one asks.

use super::{HostLevel, PathLevel, Rule};

/// What decided between two rules that both match, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The other's host is more specific.
    Host,
    /// The other's path is more specific.
    Path,
    /// The other names methods.
    Method,
    /// The other has more header matchers.
    Headers,
    /// The other has more query matchers.
    Query,
    /// The other's network is longer.
    Client,
    /// The other comes first in the file.
    FileOrder,
}

/// Steps 3 to 6 of the order; the greater, the more specific. The fields' order is the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) method: bool,
    pub(super) headers: usize,
    pub(super) query: usize,
    /// Length of the network that holds the client.
    pub(super) network: Option<u8>,
}

// === impl Rank ===

impl Rank {
    pub(super) fn of_rule(rule: &Rule, network: Option<u8>) -> Self {
        Self {
            method: !rule.methods.is_empty(),
            headers: rule.headers.len(),
            query: rule.query.len(),
            network,
        }
    }
}

// === impl Step ===

impl Step {
    /// Why the second of two matching rules comes after the first.
    pub(super) fn between(
        first: (HostLevel, PathLevel, Rank),
        second: (HostLevel, PathLevel, Rank),
    ) -> Self {
        let (a, b) = (first.2, second.2);
        if first.0 != second.0 {
            Self::Host
        } else if first.1 != second.1 {
            Self::Path
        } else if a.method != b.method {
            Self::Method
        } else if a.headers != b.headers {
            Self::Headers
        } else if a.query != b.query {
            Self::Query
        } else if a.network != b.network {
            Self::Client
        } else {
            Self::FileOrder
        }
    }
}
