//! By whose word an endpoint is a member, where the file does not say so.

use std::collections::BTreeMap;

use crate::config::Name;
use crate::fleet::id::PeerId;
use crate::fleet::stamp::Stamp;
use crate::upstream::overrides::By;

/// Everybody by whose word an endpoint is a member. Words that give it no traffic (weight 0) are not among them:
/// who says so instead of something else takes the endpoint away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footing {
    /// By registrar.
    pub(super) registered: BTreeMap<PeerId, Record>,
    pub(super) joined: Option<Joined>,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) weight: u32,
    pub(super) zone: Option<Name>,
    pub(super) stamp: Stamp,
}

/// An operator's addition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) weight: u32,
    pub(super) by: By,
    pub(super) origin: PeerId,
    /// Who said so first: its own word may end of itself.
    pub(super) first: PeerId,
}

// === impl Footing ===

impl Footing {
    pub(super) fn is_empty(&self) -> bool {
        self.registered.is_empty() && self.joined.is_none()
    }

    /// The registration that speaks for all: the latest.
    pub(super) fn latest(&self) -> Option<(PeerId, &Record)> {
        latest(self.registered.iter().map(|(peer, record)| (*peer, record)))
    }
}

/// The latest of registrations that give traffic, or else of all: who registers with no weight, or with less than a
/// [`LIGHT`]th of what it has elsewhere, must not take away what another peer says.
pub(super) fn latest<'a>(
    registered: impl Iterator<Item = (PeerId, &'a Record)> + Clone,
) -> Option<(PeerId, &'a Record)> {
    let weights = registered.clone().map(|(_, record)| record.weight);
    let heaviest = weights.max()?;
    let counts = |weight: u32| weight > 0 && weight.saturating_mul(LIGHT) >= heaviest;
    registered.max_by_key(|(peer, record)| (counts(record.weight), record.stamp, *peer))
}

/// A server that starts slowly, or is busy, asks for a half or a quarter of its weight.
const LIGHT: u32 = 4;
