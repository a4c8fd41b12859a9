//! The facts of an upstream, and what follows from them.

use std::fmt;

use crate::base::addr::EndpointAddr;
use crate::base::clock::Nanos;
use crate::config;
use crate::fleet::fact::Fact;
use crate::fleet::id::PeerId;
use crate::upstream::overrides::Told;

use super::brake::Brake;
use super::orphans::Orphans;

/// From where facts are looked at.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The upstream as the file has it.
    pub spec: &'a config::Upstream,
    /// Who looks.
    pub own: PeerId,
    /// Whether checks find an endpoint down.
    pub is_down: &'a dyn Fn(&EndpointAddr) -> bool,
    /// The time.
    pub now: Nanos,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl fmt::Debug for Sight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upstream = &self.spec.name;
        write!(f, "upstream `{upstream}` as peer {} sees it", self.own)
    }
}

/// What facts mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What holds.
    pub told: Told,
    /// When it will be something else without a new fact; expiries of words excepted, of which
    /// [`Overrides`](crate::upstream::overrides::Overrides) knows.
    pub again_at: Option<Nanos>,
}

/// What the facts of one upstream mean: all of them, in any order, tombstones included; facts about others are
/// passed over.
pub fn told<'f>(
    sight: &Sight<'_>,
    facts: impl IntoIterator<Item = &'f Fact>,
    orphans: &mut Orphans,
    brake: &mut Brake,
) -> Standing {
    let _ = (sight, facts.into_iter(), orphans, brake);
    Standing::default()
}
