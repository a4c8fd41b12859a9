//! The brake: how much the word of one peer may take away from an upstream.

use std::collections::BTreeMap;

use crate::base::addr::EndpointAddr;
use crate::config::Name;
use crate::fleet::id::PeerId;

/// Decides which of the removals that peers ask for have effect.
#[derive(Clone, Debug)]
pub struct Brake {
    max_remove: f64,
    held: BTreeMap<Name, BTreeMap<EndpointAddr, Braked>>,
}

/// What one peer takes away and the brake holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Braked {
    /// Who asks for it.
    pub origin: PeerId,
    /// What it asks for, for people: `drain`, `its registration ended`.
    pub what: String,
    /// Since when it is held, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

// === impl Brake ===

impl Brake {
    /// A brake that lets one peer take away this share of an upstream (from 0 to 1), and at least one endpoint.
    pub fn new(max_remove: f64) -> Self {
        Self {
            max_remove,
            held: BTreeMap::new(),
        }
    }

    /// After a reload.
    pub fn set_max_remove(&mut self, max_remove: f64) {
        self.max_remove = max_remove;
    }

    /// All that is held, by upstream and endpoint.
    pub fn held(&self) -> impl Iterator<Item = (&Name, &EndpointAddr, &Braked)> {
        let held = self.held.iter();
        held.flat_map(|(upstream, all)| all.iter().map(move |(addr, b)| (upstream, addr, b)))
    }
}
