//! Parts of an upstream with a share of their own: priorities, and within one the own zone first.

use std::sync::Arc;

use crate::balance::{Balancer, Member};
use crate::base::rng::Rng;

/// After whom an endpoint is used: those of a lower tier take what they can carry first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tier {
    /// 0 first.
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
    /// Whether anything goes there as things are.
    pub(super) fn has_share(&self) -> bool {
        self.share > 0
    }
}

/// The groups of `members`, in the order in which they are used, and the group of each member.
/// `counts` says who counts as capacity of its tier, `eligible` who may be picked.
pub(super) fn groups(
    members: &[Member],
    tiers: &[Tier],
    counts: impl Fn(usize) -> bool,
    eligible: &[bool],
    build: impl Fn(Tier, &[bool]) -> Arc<dyn Balancer>,
) -> (Box<[Group]>, Box<[u8]>) {
    let mut distinct: Vec<Tier> = tiers.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.is_empty() {
        distinct.push(Tier::default());
    }
    // 16 priorities, each near and far: an index fits a byte.
    let group_of: Box<[u8]> = tiers
        .iter()
        .map(|tier| distinct.binary_search(tier).unwrap_or(0) as u8)
        .collect();
    let capacity: Vec<(u32, u32)> = (0..distinct.len())
        .map(|group| {
            let of = (0..members.len()).filter(|&i| usize::from(group_of[i]) == group);
            of.fold((0, 0), |(ready, total), i| {
                (ready + u32::from(eligible[i]), total + u32::from(counts(i)))
            })
        })
        .collect();
    let shares = shares(&capacity);
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

/// Shares by (ready, total) of each tier.
fn shares(capacity: &[(u32, u32)]) -> Vec<u32> {
    let mut left = WHOLE;
    capacity
        .iter()
        .map(|(ready, _)| {
            if *ready > 0 {
                std::mem::take(&mut left)
            } else {
                0
            }
        })
        .collect()
}
