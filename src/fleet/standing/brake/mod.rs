//! The brake: how much the word of one peer may take away from an upstream.
//!
//! It takes away by removing, by weights, and by adding what takes traffic from the rest; each has a share of its own.
//! This is about removing, [`moves`] about the other two.
//!
//! A peer takes an endpoint away when it says that it drains, is disabled, has weight 0 or leaves, and when it ends
//! its registration or addition and nobody else says that it is a member. What one peer takes away has effect up to
//! a share of the upstream, the oldest first; the rest is *held* until
//! - another peer says the same of the endpoint (also later, in place of the first), or
//! - checks find the endpoint down, for as long as they do, or
//! - there is share again.
//!
//! What has effect keeps it as long as it is said, so that nothing comes back only because an upstream shrank. Words
//! take share as long as they stand. What nobody says any more, a registration that ended, takes share for
//! [`SETTLES`]: in that time those who are well and were taken away by mistake register again, and those who come and
//! go by the hundred a day are no burden for ever.
//!
//! Peers see facts in different orders, so they may hold different endpoints; each lets one peer take its share and
//! no more. After a restart nothing has had effect yet, and two peers who said the same thing one after the other
//! are one.

mod moves;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Nanos, nanos};
use crate::config::Name;
use crate::fleet::id::PeerId;
use crate::fleet::stamp::Stamp;

use super::footing::Footing;
use moves::Moves;
pub(super) use moves::{Claim, Claims};

/// For how long a registration that ended takes share: two of the usual lifetimes, six renewals.
pub const SETTLES: Duration = Duration::from_secs(60);

/// Decides which of the removals that peers ask for have effect.
#[derive(Clone, Debug)]
pub struct Brake {
    max_remove: f64,
    /// This peer does not know yet what the others do.
    is_learning: bool,
    upstreams: BTreeMap<Name, Lane>,
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

/// An endpoint that is to be taken away.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) endpoint: EndpointAddr,
    /// By whom, and by what; not empty.
    pub(super) removers: Vec<Remover>,
    /// Whether checks find it down.
    pub(super) is_down: bool,
}

/// One thing that takes an endpoint away.
#[derive(Clone, Debug)]
pub(super) struct Remover {
    pub(super) by: By,
    pub(super) origin: PeerId,
    pub(super) stamp: Stamp,
    pub(super) what: String,
}

/// By what an endpoint is taken away, or gets another weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    /// It is a member by this word alone.
    Added,
    /// Nobody says any more that it is a member.
    End,
    Member,
    /// A registration beside others.
    Registered,
    State,
    Weight,
}

/// One upstream.
#[derive(Clone, Debug, Default)]
struct Lane {
    asked: BTreeMap<EndpointAddr, Asked>,
    /// Whose registration has ended with effect, by whom, and until when that takes share.
    settling: BTreeMap<EndpointAddr, (PeerId, Nanos)>,
    /// Who is a member though the file does not say so, and by whose word: what was last in effect.
    members: BTreeMap<EndpointAddr, Footing>,
    moves: Moves,
}

/// An endpoint that is to be taken away, over time.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// Who has said each thing since it has been said without a break.
    origins: BTreeMap<By, BTreeSet<PeerId>>,
    /// It has effect, and takes share of this origin.
    share_of: Option<PeerId>,
    held: Option<Braked>,
}

// === impl Brake ===

impl Brake {
    /// A brake that lets one peer take away this share of an upstream (from 0 to 1), and at least one endpoint.
    pub fn new(max_remove: f64) -> Self {
        Self {
            max_remove,
            is_learning: false,
            upstreams: BTreeMap::new(),
        }
    }

    /// The same, of a peer that does not know yet what the others do: until it [knows](Self::know) it, weights and
    /// additions have effect, as they have at the others or have not for a reason that only those know.
    pub fn learning(max_remove: f64) -> Self {
        Self {
            is_learning: true,
            ..Self::new(max_remove)
        }
    }

    /// This peer knows what the others do: what it is told from now on is new; of each upstream, once it has been
    /// looked at with what is known now.
    pub fn know(&mut self) {
        self.is_learning = false;
    }

    /// Forgets what was decided about weights and additions: the next look at each upstream is as the first of one that
    /// learns.
    pub fn begin_again(&mut self) {
        for lane in self.upstreams.values_mut() {
            lane.moves = Moves::default();
        }
    }

    /// After a reload.
    pub fn set_max_remove(&mut self, max_remove: f64) {
        self.max_remove = max_remove;
    }

    /// Forgets upstreams that are gone.
    pub fn retain(&mut self, mut is_there: impl FnMut(&Name) -> bool) {
        self.upstreams.retain(|upstream, _| is_there(upstream));
    }

    /// The upstreams that it has decided about.
    pub fn upstreams(&self) -> impl Iterator<Item = &Name> {
        self.upstreams.keys()
    }

    /// Whether what is held depends on what checks find of an endpoint.
    pub fn hangs_on(&self, upstream: &str, endpoint: &EndpointAddr) -> bool {
        let lane = self.upstreams.get(upstream);
        lane.is_some_and(|lane| {
            lane.asked.contains_key(endpoint) || lane.moves.is_unproven(endpoint)
        })
    }

    /// Decides about the weights that are said of one upstream.
    pub(super) fn weigh(&mut self, upstream: &Name, claims: &Claims, own: PeerId, unix_ms: u64) {
        let lane = self.upstreams.entry(upstream.clone()).or_default();
        lane.moves.judge(claims, self.max_remove, own, unix_ms);
        if !self.is_learning {
            lane.moves.know();
        }
    }

    /// What is held of the word of one peer about the weight of an endpoint.
    pub(super) fn held_weight(
        &self,
        upstream: &Name,
        endpoint: &EndpointAddr,
        origin: PeerId,
        by: By,
    ) -> Option<&Braked> {
        let lane = self.upstreams.get(upstream)?;
        lane.moves.held_of(endpoint, origin, by)
    }

    /// Whether an endpoint that was added is to have no picks before a check has found it up.
    pub(super) fn is_unproven(&self, upstream: &Name, endpoint: &EndpointAddr) -> bool {
        let lane = self.upstreams.get(upstream);
        lane.is_some_and(|lane| lane.moves.is_unproven(endpoint))
    }

    /// All that is held, by upstream and endpoint.
    pub fn held(&self) -> impl Iterator<Item = (&Name, &EndpointAddr, &Braked)> {
        self.upstreams.iter().flat_map(|(upstream, lane)| {
            let removals = lane.asked.iter();
            let removals = removals.filter_map(|(addr, asked)| Some((addr, asked.held.as_ref()?)));
            let held = removals.chain(lane.moves.held());
            held.map(move |(addr, held)| (upstream, addr, held))
        })
    }

    /// What is held of one endpoint.
    pub(super) fn held_of(&self, upstream: &Name, endpoint: &EndpointAddr) -> Option<&Braked> {
        let asked = self.upstreams.get(upstream)?.asked.get(endpoint)?;
        asked.held.as_ref()
    }

    /// When what is held of an upstream may be let go by time alone.
    pub(super) fn again_at(&self, upstream: &Name) -> Option<Nanos> {
        let lane = self.upstreams.get(upstream)?;
        if lane.asked.values().all(|asked| asked.held.is_none()) {
            return None;
        }
        lane.settling.values().map(|(_, until)| *until).min()
    }

    /// Decides about all that is asked for of one upstream; `members` are those that it would have if nothing
    /// of it were.
    pub(super) fn judge(
        &mut self,
        upstream: &Name,
        members: &BTreeSet<&EndpointAddr>,
        asks: &[Ask],
        own: PeerId,
        (now, unix_ms): (Nanos, u64),
    ) {
        let lane = self.upstreams.entry(upstream.clone()).or_default();
        lane.settling
            .retain(|addr, (_, until)| *until > now && !members.contains(addr));
        let asked: BTreeSet<&EndpointAddr> = asks.iter().map(|ask| &ask.endpoint).collect();
        lane.asked.retain(|addr, _| asked.contains(addr));

        let mut by_origin: BTreeMap<PeerId, Vec<&Ask>> = BTreeMap::new();
        // What this peer itself has taken away is nobody's to share.
        let mut own_word = 0;
        for ask in asks {
            let asked = lane.asked.entry(ask.endpoint.clone()).or_default();
            asked.note(&ask.removers);
            let is_own = ask.removers.iter().any(|r| r.origin == own);
            own_word += usize::from(is_own);
            match asked.one_origin() {
                Some(origin) if !is_own && !ask.is_down => {
                    by_origin.entry(origin).or_default().push(ask);
                }
                _ => asked.held = None,
            }
        }
        let all = (members.len() + lane.settling.len()).saturating_sub(own_word);
        let share = share(self.max_remove, all);
        for (origin, mut asks) in by_origin {
            asks.sort_by_key(|ask| (ask.since(), &ask.endpoint));
            let settling = lane.settling.values();
            let settling = settling.filter(|(by, _)| *by == origin).count();
            let standing = lane.asked.values();
            let standing = standing.filter(|asked| asked.has_share(origin));
            let mut left = share.saturating_sub(settling + standing.count());
            for ask in asks {
                let Some(asked) = lane.asked.get_mut(&ask.endpoint) else {
                    continue;
                };
                if !asked.has_share(origin) && left > 0 {
                    asked.share_of = Some(origin);
                    left -= 1;
                }
                if asked.has_share(origin) {
                    asked.held = None;
                    continue;
                }
                let since_unix_ms = asked.held.take().map_or(unix_ms, |held| held.since_unix_ms);
                asked.held = Some(Braked {
                    origin,
                    what: ask.what(),
                    since_unix_ms,
                });
            }
        }
    }

    /// Why an endpoint was a member when last looked at, beside the file.
    pub(super) fn footing(&self, upstream: &Name, endpoint: &EndpointAddr) -> Option<&Footing> {
        self.upstreams.get(upstream)?.members.get(endpoint)
    }

    /// The endpoints that have a footing.
    pub(super) fn members(&self, upstream: &Name) -> impl Iterator<Item = &EndpointAddr> {
        let lane = self.upstreams.get(upstream);
        lane.into_iter().flat_map(|lane| lane.members.keys())
    }

    /// Remembers why an endpoint is a member; nothing = it is none but by the file.
    pub(super) fn stand(&mut self, upstream: &Name, endpoint: &EndpointAddr, footing: Footing) {
        let lane = self.upstreams.entry(upstream.clone()).or_default();
        if footing.is_empty() {
            lane.members.remove(endpoint);
        } else if lane.members.get(endpoint) != Some(&footing) {
            lane.members.insert(endpoint.clone(), footing);
        }
    }

    /// Notes that an endpoint is no member any more, which was not held: it takes share for a while, if it did.
    pub(super) fn settle(&mut self, upstream: &Name, endpoint: &EndpointAddr, now: Nanos) {
        let Some(lane) = self.upstreams.get_mut(upstream) else {
            return;
        };
        let Some(asked) = lane.asked.remove(endpoint) else {
            return;
        };
        if let Some(origin) = asked.one_origin()
            && asked.has_share(origin)
        {
            let until = now.saturating_add(nanos(SETTLES));
            lane.settling.insert(endpoint.clone(), (origin, until));
        }
    }
}

/// How many of `all` endpoints one peer may take away.
fn share(max_remove: f64, all: usize) -> usize {
    // What a fraction like 0.29 lacks of a hundredth must not cost an endpoint.
    let share = (max_remove * all as f64 + 1e-9).floor();
    (share as usize).max(1)
}

// === impl Asked ===

impl Asked {
    fn note(&mut self, removers: &[Remover]) {
        self.origins
            .retain(|by, _| removers.iter().any(|remover| remover.by == *by));
        for remover in removers {
            let origins = self.origins.entry(remover.by).or_default();
            origins.insert(remover.origin);
        }
    }

    fn has_share(&self, origin: PeerId) -> bool {
        self.share_of == Some(origin) && self.one_origin() == Some(origin)
    }

    /// Who alone says so; `None` = several do.
    fn one_origin(&self) -> Option<PeerId> {
        let mut origins = self.origins.values().flatten();
        let first = *origins.next()?;
        origins.all(|origin| *origin == first).then_some(first)
    }
}

// === impl Ask ===

impl Ask {
    fn since(&self) -> Stamp {
        let stamps = self.removers.iter().map(|remover| remover.stamp);
        stamps.min().unwrap_or_default()
    }

    fn what(&self) -> String {
        let what: Vec<&str> = self.removers.iter().map(|r| r.what.as_str()).collect();
        what.join(", ")
    }
}

#[cfg(test)]
mod tests;
