//! Parts of an upstream with a share of their own: priorities, and within one the own zone first.

use std::sync::Arc;

use crate::balance::{Balancer, Member};
use crate::base::rng::Rng;
use crate::config;
use crate::guard::tiers;

/// After whom an endpoint is used: those of a lower tier take what they can carry first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tier {
    /// 0 first; [`config::Endpoint::BACKUP`] while nobody else can serve.
    pub priority: u8,
    /// It stands in another zone than this process.
    pub is_remote: bool,
}

/// The members of one tier.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tier: Tier,
    /// Up to where, in ten thousandths, a draw means this group; equal to the one before it = never.
    upto: u32,
    share: u32,
    pub(super) ready: Box<[bool]>,
    pub(super) balancer: Arc<dyn Balancer>,
}

/// Shares are parts of this.
const WHOLE: u32 = 10_000;

// === impl Group ===

impl Group {
    /// Whether it takes what others cannot: backups do nothing of the kind while they have no share.
    pub(super) fn may_help(&self) -> bool {
        self.has_share() || self.tier.priority < config::Endpoint::BACKUP
    }

    /// Whether anything goes there as things are.
    pub(super) fn has_share(&self) -> bool {
        self.share > 0
    }
}

/// The groups of `members`, in the order in which they are used, and the group of each member.
/// `counts` says who counts as capacity of its tier, `eligible` who may be picked.
pub(super) fn groups(
    members: &[Member],
    places: &[Tier],
    counts: impl Fn(usize) -> bool,
    eligible: &[bool],
    build: impl Fn(Tier, &[bool]) -> Arc<dyn Balancer>,
) -> (Box<[Group]>, Box<[u8]>) {
    let mut distinct: Vec<Tier> = places.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.is_empty() {
        distinct.push(Tier::default());
    }
    // 16 priorities, each near and far: an index fits a byte.
    let group_of: Box<[u8]> = places
        .iter()
        .map(|tier| distinct.binary_search(tier).unwrap_or(0) as u8)
        .collect();
    let mut capacity = vec![tiers::Tier { ready: 0, total: 0 }; distinct.len()];
    for (i, group) in group_of.iter().enumerate() {
        let tier = &mut capacity[usize::from(*group)];
        tier.ready += u32::from(eligible[i]);
        tier.total += u32::from(counts(i) || eligible[i]);
    }
    let shares = shares(&distinct, &capacity);
    let mut upto = 0;
    let groups = distinct
        .into_iter()
        .zip(shares)
        .enumerate()
        .map(|(group, (tier, share))| {
            upto += share;
            let ready: Box<[bool]> = (0..members.len())
                .map(|i| eligible[i] && usize::from(group_of[i]) == group)
                .collect();
            Group {
                tier,
                upto,
                share,
                balancer: build(tier, &ready),
                ready,
            }
        })
        .collect();
    (groups, group_of)
}

/// Draws a group by its share; of one there is nothing to draw.
#[inline]
pub(super) fn draw<'g>(groups: &'g [Group], rng: &mut Rng) -> Option<&'g Group> {
    if let [only] = groups {
        return Some(only);
    }
    let at = rng.below(WHOLE as usize) as u32;
    groups.iter().find(|g| at < g.upto)
}

/// The shares of `tiers`: of those with a priority, and only if all of these have none, of the backups.
fn shares(places: &[Tier], capacity: &[tiers::Tier]) -> Vec<u32> {
    let first_backup = places.partition_point(|t| t.priority < config::Endpoint::BACKUP);
    let (regular, backups) = capacity.split_at(first_backup);
    let mut shares = tiers::shares(regular);
    let is_anybody_ready = shares.iter().any(|share| *share > 0);
    shares.extend(if is_anybody_ready {
        vec![0; backups.len()]
    } else {
        tiers::shares(backups)
    });
    shares
}
